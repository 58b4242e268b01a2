//! Which addresses the swarm's own networks are cut from.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use skep_model::{Cluster, IpamConfig, Network, NewNetwork, Node};
use skep_store::Tables;

use super::retired::is_unused;
use super::subnet6::ipv6;

/// Prefix length of the routing mesh's network: room for 65,000 nodes, services and tasks.
const INGRESS_PREFIX: u8 = 16;
/// The longest prefix that leaves room for a gateway and a task.
const LONGEST: u8 = 30;
/// The shortest prefix of a network: no private range is larger.
const SHORTEST: u8 = 8;
/// The prefix length of networks unless the person who started the swarm has said another.
const DEFAULT_SIZE: u8 = 24;
/// Networks are generous while there is plenty: of such a prefix length as long as this part (one half, one quarter, one eighth) of the
/// pools stays free.
const GENEROUS: [(u8, u64); 3] = [(18, 2), (20, 4), (22, 8)];

/// No subnet can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// All of the pool is in use by the node's own routes.
    #[error(
        "the address pool {subnet} collides with the route to {route} that this node has: give the swarm another pool with --default-addr-pool"
    )]
    Collides {
        /// What was tried.
        subnet: Ipv4Net,
        /// What the node has.
        route: IpNet,
    },
    /// There is no pool to choose from.
    #[error("there is no address pool: give one with --default-addr-pool")]
    NoPool,
    /// Nothing of that size is free.
    #[error(
        "no subnet of /{size} is left in the swarm's address pools ({pools}): remove networks that nobody needs, or give this one a --subnet elsewhere"
    )]
    Exhausted {
        /// Prefix length.
        size: u8,
        /// All pools.
        pools: String,
    },
    /// Somebody has these addresses already.
    #[error(
        "Pool overlaps with other one on this address space: {subnet} shares addresses with {holder}: choose another --subnet"
    )]
    Overlaps {
        /// What was asked for.
        subnet: IpNet,
        /// Who has them.
        holder: Holder,
    },
    /// No network can have these addresses.
    #[error("the subnet {subnet} cannot be used: {why}")]
    Unusable {
        /// What was asked for.
        subnet: IpNet,
        /// What is wrong.
        why: &'static str,
    },
    /// A gateway that no task could use.
    #[error("the gateway {gateway} is no host's address in {subnet}: choose another --gateway, or leave it out")]
    Gateway {
        /// What was asked for.
        gateway: IpAddr,
        /// The network's addresses.
        subnet: IpNet,
    },
    /// A gateway that would be a task.
    #[error(
        "the gateway {gateway} goes with {task}, which a task may have, for tasks' IPv6 addresses end in their IPv4 ones: choose another --gateway, or leave it out"
    )]
    GatewayOfTask {
        /// What was asked for.
        gateway: IpAddr,
        /// The IPv4 address.
        task: Ipv4Addr,
    },
    /// An IPv6 subnet of a network that is to have no IPv6.
    #[error("the subnet {0} is IPv6, and the network is to be without: add --ipv6, or leave the subnet out")]
    WithoutIpv6(IpNet),
    /// The routing mesh's network has the addresses of nodes, too.
    #[error(
        "the subnet {0} cannot be that of the ingress network: clients reach published ports by IPv6 without it; leave it out"
    )]
    OfIngress(IpNet),
    /// A range that is no part of the subnet.
    #[error("the range {range} is not within {subnet}: choose another --ip-range, or leave it out")]
    Range {
        /// What was asked for.
        range: Ipv4Net,
        /// The network's addresses.
        subnet: Ipv4Net,
    },
    /// The gateway and the range are left to skep, which would have to choose both of a subnet that is chosen too.
    #[error("--gateway and --ip-range need a --subnet that they are part of")]
    WithoutSubnet,
    /// All numbers are in use.
    #[error("all numbers of networks are in use: remove networks that nobody needs")]
    NoNumber,
}

/// Who has addresses that a network cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Holder {
    /// Another network.
    #[error("the network {name} ({subnet})")]
    Network {
        /// Its name.
        name: String,
        /// Its addresses.
        subnet: IpNet,
    },
    /// What was the routing mesh's network.
    #[error(
        "the ingress network that was removed ({subnet}), on which tasks still have addresses until they are replaced,"
    )]
    Retired {
        /// Its addresses.
        subnet: Ipv4Net,
    },
    /// A node knows another way there.
    #[error("the route to {route} of node {node}")]
    Route {
        /// Where it leads.
        route: IpNet,
        /// The node's host name.
        node: String,
    },
    /// A node is reached there.
    #[error("the address {addr} of node {node}")]
    Node {
        /// The address.
        addr: IpAddr,
        /// The node's host name.
        node: String,
    },
}

/// The first subnet of the pools for the routing mesh that collides with none of the routes. It leaves at least half of a pool to other
/// networks.
///
/// # Errors
/// [`SubnetError::Collides`] names the first that was tried, when all collide.
pub fn ingress_subnet(pools: &[Ipv4Net], routes: &[IpNet]) -> Result<Ipv4Net, SubnetError> {
    let mut refused = None;
    for pool in pools {
        let length = INGRESS_PREFIX.max(pool.prefix_len().saturating_add(1)).min(LONGEST.max(pool.prefix_len()));
        // A length between the pool's own and 32 is always valid.
        for subnet in pool.subnets(length).into_iter().flatten() {
            match collision(subnet, routes) {
                None => return Ok(subnet),
                Some(route) => refused = refused.or(Some(SubnetError::Collides { subnet, route })),
            }
        }
    }
    Err(refused.unwrap_or(SubnetError::NoPool))
}

/// The route that shares addresses with `subnet`. Default routes, also when they come in parts, lead everywhere and say nothing.
pub(crate) fn collision<N: Into<IpNet>>(subnet: N, routes: &[IpNet]) -> Option<IpNet> {
    let subnet = subnet.into();
    routes.iter().filter(|route| is_telling(route)).find(|route| shares(route, &subnet)).copied()
}

/// Whether a route leads somewhere in particular.
pub(super) fn is_telling(route: &IpNet) -> bool {
    route.prefix_len() > if route.addr().is_ipv4() { 1 } else { 3 }
}

/// Whether there are addresses that both have.
pub(super) fn shares(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

/// The addresses of a new network: those that were asked for if nobody has them, or the next free ones of the swarm's pools.
///
/// # Errors
/// When they cannot be had; whoever has them is named.
pub(crate) fn ipam(tables: &Tables, cluster: &Cluster, new: &NewNetwork) -> Result<IpamConfig, SubnetError> {
    let subnet = match new.subnet {
        Some(subnet) => asked_for(tables, new, subnet)?,
        None if new.gateway.is_some() || new.range.is_some() => return Err(SubnetError::WithoutSubnet),
        None => choose(tables, cluster, new)?,
    };
    let inside = |addr: Ipv4Addr| subnet.contains(&addr) && addr != subnet.network() && addr != subnet.broadcast();
    let gateway = match new.gateway {
        Some(gateway) if !inside(gateway) => {
            return Err(SubnetError::Gateway { gateway: gateway.into(), subnet: subnet.into() });
        }
        Some(gateway) => gateway,
        None => Ipv4Addr::from(u32::from(subnet.network()) + 1),
    };
    match new.range.map(|range| range.trunc()) {
        Some(range) if !subnet.contains(&range) => Err(SubnetError::Range { range, subnet }),
        range => Ok(IpamConfig { subnet, gateway, range, ipv6: ipv6(tables, new, (subnet, gateway))? }),
    }
}

fn asked_for(tables: &Tables, new: &NewNetwork, subnet: Ipv4Net) -> Result<Ipv4Net, SubnetError> {
    let first = subnet.network();
    let why = match () {
        () if subnet.addr() != first => Some("it has bits beyond its prefix: write its first address"),
        () if subnet.prefix_len() > LONGEST => Some("it has no room for a gateway and a task: choose a /30 or larger"),
        () if subnet.prefix_len() < SHORTEST => Some("it is too large: choose a /8 or smaller"),
        () if first.is_loopback()
            || first.is_link_local()
            || first.is_multicast()
            || matches!(first.octets()[0], 0 | 240..) =>
        {
            Some("such addresses mean something else to every machine: choose private ones, of 10.0.0.0/8 say")
        }
        () => None,
    };
    if let Some(why) = why {
        return Err(SubnetError::Unusable { subnet: subnet.into(), why });
    }
    match holders(tables, new.ingress).find(|(held, _)| overlap(held, &subnet)) {
        Some((_, holder)) => Err(SubnetError::Overlaps { subnet: subnet.into(), holder: holder() }),
        None => Ok(subnet),
    }
}

type Held<'a> = (Ipv4Net, Box<dyn Fn() -> Holder + 'a>);

/// All addresses that a network cannot have, and who has them. What was the routing mesh's network before makes room for its successor when nobody
/// is on it.
fn holders(tables: &Tables, for_ingress: bool) -> impl Iterator<Item = Held<'_>> {
    let stays = move |network: &&Arc<Network>| !(network.retired && for_ingress && is_unused(tables, &network.id));
    let networks = tables.all::<Network>().filter(stays).map(|network| {
        let subnet = network.spec.ipam.subnet;
        let holder = move || match network.retired {
            true => Holder::Retired { subnet },
            false => Holder::Network { name: network.spec.name.clone(), subnet: subnet.into() },
        };
        (subnet, Box::new(holder) as Box<dyn Fn() -> Holder>)
    });
    let routes = tables.all::<Node>().flat_map(|node| {
        let routes = node.description.iter().flat_map(|description| &description.routes);
        routes.filter(|route| route.prefix_len() > 1).map(move |route| {
            let holder = move || Holder::Route { route: (*route).into(), node: node.hostname().to_owned() };
            (*route, Box::new(holder) as Box<dyn Fn() -> Holder>)
        })
    });
    let nodes = tables.all::<Node>().filter_map(|node| {
        let Some(IpAddr::V4(addr)) = node.status.addr else { return None };
        let holder = move || Holder::Node { addr: addr.into(), node: node.hostname().to_owned() };
        Some((Ipv4Net::from(addr), Box::new(holder) as Box<dyn Fn() -> Holder>))
    });
    networks.chain(routes).chain(nodes)
}

/// The first and the last address of something.
type Span = (u32, u32);

fn span(net: &Ipv4Net) -> Span {
    (net.network().into(), net.broadcast().into())
}

fn choose(tables: &Tables, cluster: &Cluster, new: &NewNetwork) -> Result<Ipv4Net, SubnetError> {
    let pools = &cluster.default_pools;
    let held = merged(holders(tables, new.ingress).map(|(net, _)| span(&net)).collect());
    let total: u64 = pools.iter().map(|pool| length(&span(pool))).sum();
    let used: u64 = pools.iter().map(|pool| held.iter().map(|one| shared(&span(pool), one)).sum::<u64>()).sum();
    let free = total.saturating_sub(used);
    let generous = GENEROUS
        .iter()
        .filter(|(size, part)| cluster.subnet_size == DEFAULT_SIZE && free >= total / part + (1_u64 << (32 - size)));
    let sizes = generous.map(|(size, _)| *size).chain([cluster.subnet_size]);
    let exhausted = || {
        let pools = pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        SubnetError::Exhausted { size: cluster.subnet_size, pools }
    };
    let mut tried = sizes.filter_map(|size| pools.iter().find_map(|pool| first_free(pool, size, &held)));
    tried.next().ok_or_else(exhausted)
}

/// In order, those that touch as one.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for (first, last) in spans {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn length((first, last): &Span) -> u64 {
    u64::from(*last) - u64::from(*first) + 1
}

fn shared(a: &Span, b: &Span) -> u64 {
    let both = (a.0.max(b.0), a.1.min(b.1));
    if both.0 <= both.1 { length(&both) } else { 0 }
}

/// The first block of that prefix length in the pool of which nothing is held. `held` is in order and merged.
fn first_free(pool: &Ipv4Net, size: u8, held: &[Span]) -> Option<Ipv4Net> {
    if size < pool.prefix_len() {
        return None;
    }
    let (start, end) = span(pool);
    let (mut at, end) = (u64::from(start), u64::from(end));
    let block = 1_u64 << (32 - size);
    let mut rest = held.iter();
    while at + block - 1 <= end {
        match rest.find(|held| u64::from(held.1) >= at) {
            Some(held) if u64::from(held.0) < at + block => at = (u64::from(held.1) + 1).next_multiple_of(block),
            _ => return Ipv4Net::new(Ipv4Addr::from(u32::try_from(at).ok()?), size).ok(),
        }
    }
    None
}
