//! How a published port behaves, beyond what a port in a service's spec can say: the options that service labels set.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// Which of a node's addresses a port answers on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ListenOn {
    /// Those within the network; a single address is a network of one.
    Net(IpNet),
    /// Those of the device with this name.
    Interface(String),
}

impl ListenOn {
    /// Whether an address that the device `device` has is among those that are meant.
    #[must_use]
    pub fn covers(&self, address: IpAddr, device: Option<&str>) -> bool {
        match self {
            Self::Net(net) => net.contains(&address),
            Self::Interface(name) => device == Some(name.as_str()),
        }
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// How new flows are given to ready tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Evenly over all of them, the same on every node.
    #[default]
    Maglev,
    /// To tasks on the node that was asked, while it has ready ones.
    LocalFirst,
    /// Each datagram by itself, evenly (UDP only).
    Datagram,
}

/// The options of a published port. The default is what a port without options does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishOptions {
    /// Addresses that it answers on; all of a node's when empty.
    pub listen: Vec<ListenOn>,
    /// Constraints on the nodes that answer (`node.labels.edge == true`); all nodes when empty.
    pub nodes: Vec<String>,
    /// Networks that clients may come from; any when empty. Others are treated as if the port were not published.
    pub sources: Vec<IpNet>,
    /// How new flows are given to tasks.
    pub balance: Balance,
    /// Whether all flows of a client address go to the same task, as long as that is ready.
    pub client_affinity: bool,
    /// How long a flow without a packet is remembered; `None` is the default of its protocol.
    pub idle_timeout: Option<Duration>,
    /// How long a task that is to stop may finish its flows; `None` is the default.
    pub drain: Option<Duration>,
}

/// The options of one published port, as a node needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOptions {
    /// Which port:
    pub protocol: Protocol,
    /// the one that clients ask.
    pub published: NonZeroU16,
    /// What was asked for.
    pub options: PublishOptions,
    /// Whether the node that this is said to is one of those that answer ([`PublishOptions::nodes`]).
    pub answers: bool,
}
