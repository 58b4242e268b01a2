//! Networks that tasks are attached to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId, Prefix6};

/// A stored network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its identity.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// Number of the network in VXLAN headers, 24 bits.
    pub vni: u32,
    /// The address that was given last. The next ones are given onward from it, so that one that became free is left alone for as long
    /// as possible: other nodes may still have flows to it.
    #[serde(default)]
    pub last: Option<Ipv4Addr>,
    /// Of the routing mesh's network: it was removed, and is kept for the tasks that have an address on it. Nobody is shown it, and
    /// nothing is published on it.
    #[serde(default)]
    pub retired: bool,
}

/// What a person asks a network to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The pool that addresses come from.
    pub ipam: IpamConfig,
    /// Whether it is the routing mesh's own network.
    #[serde(default)]
    pub ingress: bool,
    /// Whether its tasks are kept from the outside world, unless another network lets them out.
    #[serde(default)]
    pub internal: bool,
    /// Whether containers that are started by hand may be attached to it.
    #[serde(default)]
    pub attachable: bool,
    /// Whether the person asked for IPv6. Tasks have an IPv6 address either way: it is made of their IPv4 one ([`Self::ipv6_of`]).
    #[serde(default)]
    pub ipv6: bool,
    /// Options of the driver, as the person wrote them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The option that says how large the packets of a network are. Its name is Docker's.
const MTU: &str = "com.docker.network.driver.mtu";

/// The same, for short.
const MTU_FOR_SHORT: &str = "mtu";

/// An option of a network that says nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No size of a packet.
    #[error("{option}={value} is no size of a packet in bytes: write a number from 576 to 65535")]
    Mtu {
        /// As it was written.
        option: String,
        /// What it was to be.
        value: String,
    },
}

impl NetworkSpec {
    /// Bytes that a packet of a task may have on the network; `None` when nothing was said, or nothing that makes sense.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        mtu(&self.options).ok().flatten()
    }

    /// How IPv6 addresses on the network begin.
    #[must_use]
    pub fn prefix6(&self) -> Prefix6 {
        self.ipam.ipv6.and_then(|ipv6| Prefix6::of(ipv6.subnet)).unwrap_or(Prefix6::MESH)
    }

    /// All IPv6 addresses of the network: its own subnet, or those that go with its IPv4 addresses.
    #[must_use]
    pub fn subnet6(&self) -> Ipv6Net {
        self.ipam.ipv6.map_or_else(|| Prefix6::MESH.net(self.ipam.subnet), |ipv6| ipv6.subnet)
    }

    /// The IPv6 address that goes with an IPv4 address on the network, with the length of the network's prefix.
    #[must_use]
    pub fn ipv6_of(&self, address: Ipv4Addr) -> Ipv6Net {
        Ipv6Net::new_assert(self.prefix6().with(address), self.subnet6().prefix_len())
    }

    /// Whether the address is one of the network's.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipam.subnet.contains(&address),
            IpAddr::V6(address) => self.subnet6().contains(&address),
        }
    }
}

/// What the options of a network say about the size of packets.
///
/// # Errors
/// When it is no number, or less than every IPv4 host takes (RFC 791), or more than any packet has.
pub fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>, OptionError> {
    let Some((option, value)) = options.get_key_value(MTU).or_else(|| options.get_key_value(MTU_FOR_SHORT)) else {
        return Ok(None);
    };
    let refused = || OptionError::Mtu { option: option.clone(), value: value.clone() };
    match value.parse() {
        Ok(mtu @ 576..=65_535) => Ok(Some(mtu)),
        _ => Err(refused()),
    }
}

/// A network to be made: what the person did not say is `None`, and chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The pool that addresses come from.
    pub subnet: Option<Ipv4Net>,
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the pool that addresses are given from.
    pub range: Option<Ipv4Net>,
    /// An IPv6 subnet of its own.
    pub subnet6: Option<Ipv6Net>,
    /// The gateway in that.
    pub gateway6: Option<Ipv6Addr>,
    /// As [`NetworkSpec::ingress`].
    pub ingress: bool,
    /// As [`NetworkSpec::internal`].
    pub internal: bool,
    /// As [`NetworkSpec::attachable`].
    pub attachable: bool,
    /// As [`NetworkSpec::ipv6`].
    pub ipv6: bool,
    /// As [`NetworkSpec::options`].
    pub options: BTreeMap<String, String>,
}

/// The pool of addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// The pool.
    pub subnet: Ipv4Net,
    /// Its gateway: never given to a task.
    pub gateway: Ipv4Addr,
    /// The part of the pool that addresses are given from; `None` is all of it.
    #[serde(default)]
    pub range: Option<Ipv4Net>,
    /// The IPv6 subnet of its own, if the person chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Subnet>,
}

/// An IPv6 subnet of a network's own. Addresses in it are made of IPv4 ones ([`NetworkSpec::ipv6_of`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Subnet {
    /// The subnet: a prefix of at most 96 bits.
    pub subnet: Ipv6Net,
    /// Its gateway: no task's address.
    pub gateway: Ipv6Addr,
}

/// A network that a service is on, and the names that it answers to there besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// The network.
    pub network: NetworkId,
    /// The further names.
    pub aliases: Vec<String>,
}

/// A task's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network.
    pub network: NetworkId,
    /// The task's address, with the length of the network's prefix.
    pub addr: Ipv4Net,
}

/// A service's address on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    /// The network.
    pub network: NetworkId,
    /// The address, with the length of the network's prefix.
    pub addr: Ipv4Net,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_packets_is_an_option() {
        let of = |option: &str, value: &str| mtu(&BTreeMap::from([(option.to_owned(), value.to_owned())]));
        for option in [MTU, MTU_FOR_SHORT] {
            assert_eq!(of(option, "1200"), Ok(Some(1200)));
            for bad in ["", "575", "65536", "-1", "big"] {
                let refused = of(option, bad).unwrap_err().to_string();
                assert!(refused.starts_with(&format!("{option}={bad} is no size of a packet")), "{refused}");
            }
        }
        assert_eq!(of("encrypted", "false"), Ok(None));
    }
}
