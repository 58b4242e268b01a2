//! Where something runs, and which addresses that has.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Nodes that a lab may have.
pub(crate) const MAX_NODES: u8 = 50;
/// Length of both networks' prefixes.
pub(crate) const PREFIX_LEN: u8 = 24;
/// The second byte of the addresses on eth0 and on eth1.
const NETWORKS: [u8; 2] = [99, 98];
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

impl Place {
    /// The address on eth0, then that on eth1, in the lab that has the given third byte.
    pub(crate) fn addresses(self, subnet: u8) -> [Ipv4Addr; 2] {
        let host = match self {
            Self::Node(node) => FIRST_NODE.saturating_add(node),
            Self::Client => CLIENT,
        };
        NETWORKS.map(|network| Ipv4Addr::new(10, network, subnet, host))
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
        let mut all: Vec<Ipv4Addr> =
            (1..=MAX_NODES).map(Place::Node).chain([Place::Client]).flat_map(|p| p.addresses(7)).collect();
        assert_eq!(all[..2], [Ipv4Addr::new(10, 99, 7, 11), Ipv4Addr::new(10, 98, 7, 11)]);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
