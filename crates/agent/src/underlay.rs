//! What the mesh needs to know of this node's devices, kept true while devices and addresses come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use skep_mesh::Way;
use skep_model::NodeId;
use skep_netdb::NetDb;
use skep_network::{Changes, Facts, Link, NetworkError, NodeNetwork, Overlay};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::Assignments;

/// How often devices are compared with what they should be when nothing is heard of a change.
const REPAIR: Duration = Duration::from_secs(5);

/// The smallest MTU, in bytes, over which IPv6 may be spoken (RFC 8200, 5).
const IPV6_MIN_MTU: u16 = 1280;

/// This node's devices and addresses as the mesh needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// Every address that clients may ask by, without loopback ones, and the device that has it.
    pub(crate) addresses: BTreeMap<IpAddr, String>,
    /// Ethernet devices that clients may come through.
    pub(crate) uplinks: BTreeSet<u32>,
    /// Devices without Ethernet frames (WireGuard, tun, PPP) that clients may come through.
    pub(crate) tunnels: BTreeSet<u32>,
    /// The device that has the address by which other nodes reach this one.
    pub(crate) device: Option<u32>,
    /// The routes to the world outside.
    pub(crate) ways: BTreeMap<IpNet, Way>,
    /// Index of `lo`.
    pub(crate) loopback: u32,
    /// Index of the overlay device; `None` until there is one.
    pub(crate) overlay: Option<u32>,
    /// Bytes that fit into a packet of the overlay.
    pub(crate) overlay_mtu: u16,
    /// UDP port of the overlay.
    pub(crate) overlay_port: u16,
    /// Whether policies of IPsec are there for what the node sends or gets.
    pub(crate) ipsec: bool,
}

/// Keeps an [`Underlay`] true.
pub(crate) struct Driver {
    pub(crate) own: NodeId,
    pub(crate) network: Arc<dyn NodeNetwork>,
    /// UDP port of the overlay.
    pub(crate) port: u16,
    pub(crate) assignments: watch::Receiver<Arc<Assignments>>,
    pub(crate) underlay: watch::Sender<Underlay>,
    /// Told of this node's addresses.
    pub(crate) netdb: NetDb,
}

impl Driver {
    /// Ends only by being dropped.
    pub(crate) async fn run(mut self) {
        let mut changes = self.network.watch().map_err(|e| warn!("devices are looked at only now and then: {e}")).ok();
        let mut repair = interval(REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.look().await {
                Ok(now) => {
                    self.netdb.set_addresses(now.addresses.keys().copied().filter(is_told).collect());
                    self.underlay.send_if_modified(|known| {
                        let changed = *known != now;
                        if known.overlay_mtu != now.overlay_mtu {
                            tell_of_mtu(&now);
                        }
                        *known = now;
                        changed
                    });
                }
                Err(e) => warn!("the overlay is not as it should be, trying again: {e}"),
            }
            tokio::select! {
                heard = next(&mut changes) => if heard.is_err() { changes = self.network.watch().ok() },
                Ok(()) = self.assignments.changed() => {}
                _ = repair.tick() => {}
            }
        }
    }

    async fn look(&mut self) -> Result<Underlay, NetworkError> {
        let facts = self.network.facts().await?;
        let address = self.assignments.borrow_and_update().members.get(&self.own).map(|m| m.underlay);
        let mut underlay = describe(&facts);
        if let Some(address) = address {
            underlay.device = facts.addresses.iter().find(|a| a.ip == address).map(|a| a.link);
            let overlay = Overlay { port: self.port, ..Overlay::over(address, facts.mtu_of(address)?) };
            let link = self.network.ensure_overlay(&overlay).await?;
            underlay.overlay = Some(link.ifindex);
            underlay.overlay_mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
            underlay.overlay_port = self.port;
        }
        Ok(underlay)
    }
}

/// Whether an address means something on other nodes.
fn is_told(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

fn tell_of_mtu(underlay: &Underlay) {
    if underlay.overlay.is_some() && underlay.overlay_mtu < IPV6_MIN_MTU {
        warn!(
            "packets between tasks have room for {} bytes, and IPv6 needs {IPV6_MIN_MTU}: services answer by IPv4 only until the MTU of \
             this node's network is larger",
            underlay.overlay_mtu
        );
    }
}

async fn next(changes: &mut Option<Changes>) -> Result<(), NetworkError> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn describe(facts: &Facts) -> Underlay {
    // What comes through a port of a bridge or a bond comes through that device too, and would be seen twice.
    let is_outside = |l: &&Link| l.up && !l.loopback && !l.own && !facts.is_enslaved(l);
    // Devices without hardware addresses carry no Ethernet frames, and get a program for that.
    let (uplinks, tunnels): (Vec<&Link>, Vec<&Link>) =
        facts.links.iter().filter(is_outside).partition(|l| l.mac.is_some());
    let indexes = |links: Vec<&Link>| links.iter().map(|l| l.index).collect();
    let own: BTreeSet<u32> = facts.links.iter().filter(|l| l.own).map(|l| l.index).collect();
    let device = |index| facts.link_by_index(index).map(|l| l.name.clone()).unwrap_or_default();
    let foreign = facts.addresses.iter().filter(|a| !own.contains(&a.link) && !a.ip.is_loopback());
    Underlay {
        addresses: foreign.map(|a| (a.ip, device(a.link))).collect(),
        uplinks: indexes(uplinks),
        tunnels: indexes(tunnels),
        ways: ways(facts),
        loopback: facts.links.iter().find(|l| l.loopback).map_or(1, |l| l.index),
        device: None,
        overlay: None,
        overlay_mtu: 0,
        overlay_port: 0,
        ipsec: facts.ipsec,
    }
}

/// Routes through devices of others, by which the node has an address. What is for a task of its own does not go by them.
fn ways(facts: &Facts) -> BTreeMap<IpNet, Way> {
    let way = |way: &skep_network::Way| {
        let link = facts.link_by_index(way.link).filter(|l| l.up && !l.loopback && !l.own)?;
        let source = facts.source_of(way)?;
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        Some((way.to, Way { device: link.index, mtu, source }))
    };
    facts.ways.iter().filter_map(way).collect()
}

#[cfg(test)]
mod tests {
    use skep_model::Member;
    use skep_network::{Address, FakeNetwork, MacAddr};

    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])),
            mtu: 1500,
            up: true,
            loopback: false,
            own: false,
            master: None,
        }
    }

    fn address(ip: &str, link: u32) -> Address {
        Address { ip: ip.parse().unwrap(), prefix_len: 64, link, global: true, lasting: true }
    }

    fn facts() -> Facts {
        let links = vec![
            Link { loopback: true, ..link(1, "lo", None) },
            Link { master: Some(4), ..link(2, "eth0", None) },
            Link { master: Some(4), ..link(3, "eth1", None) },
            link(4, "bond0", Some("bond")),
            link(5, "bond0.7", Some("vlan")),
            link(6, "br0", Some("bridge")),
            Link { master: Some(6), ..link(7, "veth0", Some("veth")) },
            link(8, "vrf0", Some("vrf")),
            Link { master: Some(8), ..link(9, "eth2", None) },
            Link { mac: None, ..link(10, "wg0", Some("wireguard")) },
            Link { own: true, ..link(11, "skep-vx", Some("vxlan")) },
            Link { up: false, ..link(12, "eth3", None) },
        ];
        let addresses = vec![
            address("127.0.0.1", 1),
            address("192.0.2.1", 4),
            address("::1", 1),
            address("2001:db8::1", 4),
            address("fd73:6b65:7000::a00:2", 11),
        ];
        let way = |to: &str, link, source: Option<&str>| skep_network::Way {
            to: to.parse().unwrap(),
            link,
            source: source.map(|ip| ip.parse().unwrap()),
        };
        let ways = vec![
            way("0.0.0.0/0", 4, None),
            way("::/0", 4, None),
            way("10.9.0.0/16", 6, Some("10.1.0.1")),
            way("10.8.0.0/16", 6, None),
            way("10.7.0.0/16", 11, Some("10.1.0.1")),
        ];
        Facts { links, addresses, ways, ..Facts::default() }
    }

    #[test]
    fn clients_come_through_a_bond_or_a_bridge_and_not_through_its_ports() {
        let uplinks = describe(&facts()).uplinks;
        assert_eq!(uplinks.into_iter().collect::<Vec<_>>(), [4, 5, 6, 8, 9]);
    }

    #[test]
    fn clients_may_ask_by_addresses_of_both_families() {
        let addresses = describe(&facts()).addresses;
        let named: Vec<_> = addresses.iter().map(|(ip, device)| format!("{ip} {device}")).collect();
        assert_eq!(named, ["192.0.2.1 bond0", "2001:db8::1 bond0"]);
    }

    #[test]
    fn tasks_go_out_by_routes_that_the_node_has_an_address_for() {
        let ways = describe(&facts()).ways;
        let shown: Vec<_> =
            ways.iter().map(|(to, way)| format!("{to} {} {} {}", way.device, way.source, way.mtu)).collect();
        assert_eq!(shown, ["0.0.0.0/0 4 192.0.2.1 1500", "10.9.0.0/16 6 10.1.0.1 1500", "::/0 4 2001:db8::1 1500"]);
    }

    #[test]
    fn link_local_addresses_mean_nothing_to_others() {
        let told = |text: &str| is_told(&text.parse().unwrap());
        assert!(told("192.0.2.1") && told("10.0.0.1") && told("fd00::1"));
        assert!(!told("169.254.1.1") && !told("fe80::1"));
    }

    /// The overlay device for a node that its swarm knows by this address.
    async fn overlay(underlay: &str) -> (Underlay, Overlay) {
        let own = NodeId::random();
        let member = Member {
            node: own.clone(),
            hostname: "n".to_owned(),
            underlay: underlay.parse().unwrap(),
            overlay: [10, 0, 0, 2].into(),
            alive: true,
            away: false,
        };
        let known = Assignments { members: BTreeMap::from([(own.clone(), member)]), ..Assignments::default() };
        let network = Arc::new(FakeNetwork::new(facts()));
        let mut driver = Driver {
            netdb: NetDb::new(own.clone()),
            own,
            network: network.clone(),
            port: 4789,
            assignments: watch::channel(Arc::new(known)).1,
            underlay: watch::Sender::default(),
        };
        (driver.look().await.unwrap(), network.overlay("skep-vx").unwrap())
    }

    #[tokio::test]
    async fn the_overlay_has_room_for_the_headers_of_the_underlays_family() {
        let (underlay, overlay_device) = overlay("192.0.2.1").await;
        assert_eq!((underlay.overlay_mtu, overlay_device.mtu), (1450, 1450));
        let (underlay, overlay_device) = overlay("2001:db8::1").await;
        assert_eq!((underlay.overlay_mtu, overlay_device.mtu), (1430, 1430));
    }
}
