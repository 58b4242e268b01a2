//! Networks that tasks are attached to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId};

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
    /// Options of the driver, as the person wrote them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The pool of addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// The pool.
    pub subnet: Ipv4Net,
    /// Its gateway: never given to a task.
    pub gateway: Ipv4Addr,
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
