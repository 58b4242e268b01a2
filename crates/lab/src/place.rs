//! Where something runs, and which addresses that has.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nodes that a lab may have.
pub(crate) const MAX_NODES: u8 = 50;
/// The second byte of the IPv4 addresses on eth0 and on eth1.
const NETWORKS: [u8; 2] = [99, 98];
/// The second group of the IPv6 addresses on eth0 and on eth1.
const NETWORKS6: [u16; 2] = [0x99, 0x98];
const FIRST_NODE: u8 = 10;
const CLIENT: u8 = 100;

/// A node of a lab, or its client, which is outside of the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A node, counted from 1.
    Node(u8),
    /// The client.
    Client,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node{node}"),
            Self::Client => f.write_str("client"),
        }
    }
}

/// Not the name of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place is node1, node2, ... or client")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        if text == "client" {
            return Ok(Self::Client);
        }
        let number = text.strip_prefix("node").ok_or(NotAPlace)?;
        let node: u8 = number.parse().map_err(|_| NotAPlace)?;
        // "node01" and "node+1" are not names of anything.
        if node == 0 || node.to_string() != number { Err(NotAPlace) } else { Ok(Self::Node(node)) }
    }
}

/// Which addresses the nodes of a lab and its client have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4, by which the swarm's nodes reach each other, and IPv6.
    #[default]
    Both,
    /// IPv6 alone.
    Ipv6,
}

impl Place {
    /// The address on eth0, then that on eth1, in the lab that has the given third byte.
    pub(crate) fn ipv4(self, subnet: u8) -> [Ipv4Addr; 2] {
        NETWORKS.map(|network| Ipv4Addr::new(10, network, subnet, self.host()))
    }

    /// The same for IPv6. The last group reads as the last byte of the IPv4 address does.
    pub(crate) fn ipv6(self, subnet: u8) -> [Ipv6Addr; 2] {
        let host = u16::from(self.host());
        let host = (host / 100) << 8 | (host / 10 % 10) << 4 | (host % 10);
        NETWORKS6.map(|network| Ipv6Addr::new(0xfd00, network, 0, subnet.into(), 0, 0, 0, host))
    }

    /// All addresses with their networks' prefix lengths, those on eth0, then those on eth1.
    pub(crate) fn addresses(self, subnet: u8, families: Families) -> [Vec<(IpAddr, u8)>; 2] {
        let [first, second] = self.ipv4(subnet).map(|ip| (IpAddr::V4(ip), 24));
        let [first6, second6] = self.ipv6(subnet).map(|ip| (IpAddr::V6(ip), 64));
        match families {
            Families::Both => [vec![first, first6], vec![second, second6]],
            Families::Ipv6 => [vec![first6], vec![second6]],
        }
    }

    fn host(self) -> u8 {
        match self {
            Self::Node(node) => FIRST_NODE.saturating_add(node),
            Self::Client => CLIENT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for place in [Place::Client, Place::Node(1), Place::Node(50)] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in ["", "node", "node0", "node01", "node+1", "node256", "Client", "1"] {
            assert_eq!(wrong.parse::<Place>(), Err(NotAPlace), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_everybodys_own() {
        let places = || (1..=MAX_NODES).map(Place::Node).chain([Place::Client]);
        let of =
            |families| places().flat_map(move |p| p.addresses(7, families)).flatten().map(|(ip, _)| ip.to_string());
        let mut all: Vec<String> = of(Families::Both).collect();
        assert_eq!(all[..4], ["10.99.7.11", "fd00:99:0:7::11", "10.98.7.11", "fd00:98:0:7::11"]);
        assert_eq!(Place::Client.ipv6(7)[0].to_string(), "fd00:99:0:7::100");
        assert!(of(Families::Ipv6).all(|ip| ip.contains(':')) && of(Families::Ipv6).count() * 2 == all.len());
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
