//! IPv6 subnets of networks' own.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model::{Ipv6Subnet, Network, NewNetwork, Node, Prefix6};
use skep_store::Tables;

use super::subnet::{Holder, SubnetError, is_telling, shares};

/// The shortest: what an operator may get of the Internet's addresses (RFC 6177), or make of those for one's own (RFC 4193).
const SHORTEST: u8 = 16;

/// The IPv6 subnet that was asked for, of a network whose IPv4 addresses are known.
///
/// # Errors
/// When it cannot be had; whoever has its addresses is named.
pub(super) fn ipv6(
    tables: &Tables,
    new: &NewNetwork,
    (ipv4, gateway): (Ipv4Net, Ipv4Addr),
) -> Result<Option<Ipv6Subnet>, SubnetError> {
    let subnet = match (new.subnet6, new.gateway6) {
        (Some(subnet), _) => subnet,
        (None, Some(_)) => return Err(SubnetError::WithoutSubnet),
        (None, None) => return Ok(None),
    };
    if new.ingress {
        return Err(SubnetError::OfIngress(subnet.into()));
    }
    if !new.ipv6 {
        return Err(SubnetError::WithoutIpv6(subnet.into()));
    }
    let unusable = |why| SubnetError::Unusable { subnet: subnet.into(), why };
    let prefix = Prefix6::of(subnet).ok_or_else(|| unusable(NO_ROOM))?;
    if let Some(why) = misuse(subnet) {
        return Err(unusable(why));
    }
    if let Some(holder) = holder(tables, subnet) {
        return Err(SubnetError::Overlaps { subnet: subnet.into(), holder });
    }
    let gateway = match new.gateway6 {
        None => prefix.with(gateway),
        Some(chosen) if !subnet.contains(&chosen) || chosen == subnet.network() => {
            return Err(SubnetError::Gateway { gateway: chosen.into(), subnet: subnet.into() });
        }
        Some(chosen) => match prefix.ipv4_of(chosen).filter(|task| ipv4.contains(task) && *task != gateway) {
            Some(task) => return Err(SubnetError::GatewayOfTask { gateway: chosen.into(), task }),
            None => chosen,
        },
    };
    Ok(Some(Ipv6Subnet { subnet, gateway }))
}

const NO_ROOM: &str = "its tasks' IPv6 addresses end in their IPv4 ones, and it has no room for these: choose a /96 or larger, such as a /64";

fn misuse(subnet: Ipv6Net) -> Option<&'static str> {
    let first = subnet.network();
    let special = |net: &str| net.parse::<Ipv6Net>().is_ok_and(|net| net.contains(&first));
    match () {
        () if subnet.addr() != first => Some("it has bits beyond its prefix: write its first address"),
        () if subnet.prefix_len() < SHORTEST => Some("it is too large: choose a /16 or smaller"),
        // RFC 4291: none, loopback, mapped and compatible IPv4 addresses; those of a link, of sites that are no more, of groups.
        () if special("::/8") || special("fe00::/8") || special("ff00::/8") => Some(
            "such addresses mean something else to every machine: choose some of fd00::/8, or of what you were given",
        ),
        () if shares(&subnet.into(), &Prefix6::MESH.all().into()) => {
            Some("skep itself has fd73:6b65:7000::/96, for networks without an IPv6 subnet: choose another one")
        }
        () => None,
    }
}

/// Who has some of these addresses.
fn holder(tables: &Tables, subnet: Ipv6Net) -> Option<Holder> {
    let wanted = IpNet::from(subnet);
    let of_network = |network: &Network| {
        let held = network.spec.ipam.ipv6.map(|ipv6| IpNet::from(ipv6.subnet)).filter(|held| shares(held, &wanted))?;
        Some(Holder::Network { name: network.spec.name.clone(), subnet: held })
    };
    let of_node = |node: &Node| {
        let routes = node.description.iter().flat_map(|description| &description.routes6);
        let mut routes = routes.map(|route| IpNet::from(*route)).filter(is_telling);
        let name = || node.hostname().to_owned();
        if let Some(route) = routes.find(|route| shares(route, &wanted)) {
            return Some(Holder::Route { route, node: name() });
        }
        let addr = node.status.addr.filter(|addr| matches!(addr, IpAddr::V6(addr) if subnet.contains(addr)))?;
        Some(Holder::Node { addr, node: name() })
    };
    let mut networks = tables.all::<Network>().filter_map(|network| of_network(network));
    networks.next().or_else(|| tables.all::<Node>().find_map(|node| of_node(node)))
}
