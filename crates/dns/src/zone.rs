//! What is named on one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::{Prefix6, Protocol, PublishedPort, TaskId};

/// What is named on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// The network's name, in lower case: what its names may end in.
    pub name: String,
    /// By name, in lower case.
    pub names: HashMap<String, Named>,
    /// Names of addresses.
    pub addresses: HashMap<IpAddr, String>,
    /// An address in it that has no name has none anywhere.
    pub subnet: Option<Ipv4Net>,
    /// The same of IPv6.
    pub subnet6: Option<Ipv6Net>,
    /// How IPv6 addresses begin that have the names of IPv4 ones.
    pub prefix6: Prefix6,
}

/// What a name leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// All of it, in any order. A name that leads nowhere at present is a name all the same.
    pub targets: Vec<Arc<Target>>,
}

/// One place that a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name of it alone, in full.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// On which ports it answers for which.
    pub ports: Ports,
    /// How long an answer may be kept, in seconds.
    pub ttl: u32,
    /// The task that alone is told of it, because it is not ready for others.
    pub only_for: Option<TaskId>,
}

/// On which ports a target answers for which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// On the one that is asked for.
    Same,
    /// On those of its node that lead to it.
    Published(Vec<PublishedPort>),
}

impl Ports {
    /// The ports to ask for the port `target` of a task.
    pub fn of(&self, protocol: Protocol, target: u16) -> Vec<u16> {
        match self {
            Self::Same => vec![target],
            Self::Published(ports) => {
                let same = |port: &&PublishedPort| port.protocol == protocol && port.target.get() == target;
                ports.iter().filter(same).map(|port| port.published.get()).collect()
            }
        }
    }
}

impl Zone {
    /// One more target of a name. Names are the same in upper and lower case.
    pub(crate) fn add(&mut self, name: &str, target: &Arc<Target>) {
        self.names.entry(name.to_ascii_lowercase()).or_default().targets.push(target.clone());
    }

    /// A name that may lead nowhere.
    pub(crate) fn claim(&mut self, name: &str) {
        self.names.entry(name.to_ascii_lowercase()).or_default();
    }

    /// Whether an address is one that only this network could name.
    #[must_use]
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.subnet.is_some_and(|subnet| subnet.contains(&address)),
            IpAddr::V6(address) => self.subnet6.is_some_and(|subnet| subnet.contains(&address)),
        }
    }

    /// The name of an address, which the IPv6 address that goes with an IPv4 one has too.
    #[must_use]
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<&str> {
        let plain = match address {
            IpAddr::V6(twin) => self.prefix6.ipv4_of(twin).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        self.addresses.get(&plain).map(String::as_str)
    }
}
