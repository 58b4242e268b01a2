//! Starting, joining and leaving a swarm.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use skep_model::{Availability, ClusterSpec};

/// An address of this node as a person gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The address itself.
    Ip(IpAddr),
    /// The name of an interface; an address of it is meant.
    Interface(String),
}

/// Where this node listens, or is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The address.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// How to start a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Where the manager listens; `0.0.0.0:2377` by default, which means every address of either family.
    pub listen_addr: HostPort,
    /// Where other nodes reach it; `None` lets the node choose, and refuse when it cannot.
    pub advertise_addr: Option<HostPort>,
    /// Where overlay packets for it go; `None` is the advertised address.
    pub data_path_addr: Option<Host>,
    /// UDP port of the overlay; `None` is 4789.
    pub data_path_port: Option<u16>,
    /// Whether to make a one-manager swarm out of what this node still has of its old one.
    pub force_new_cluster: bool,
    /// What is asked of the swarm.
    pub spec: ClusterSpec,
    /// What may run on this node.
    pub availability: Availability,
    /// The pools that networks are cut from; empty is `10.0.0.0/8`.
    pub default_addr_pool: Vec<Ipv4Net>,
    /// Prefix length of such networks; `None` is 24.
    pub subnet_size: Option<u8>,
}

/// How to join a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOptions {
    /// Managers to ask, `host:port`, at least one.
    pub remote_addrs: Vec<String>,
    /// The join token as given.
    pub token: String,
    /// Where other nodes reach this one; `None` lets the node choose.
    pub advertise_addr: Option<HostPort>,
    /// Where this node listens should it become a manager.
    pub listen_addr: HostPort,
    /// Where overlay packets for it go; `None` is the advertised address.
    pub data_path_addr: Option<Host>,
    /// What may run on it.
    pub availability: Availability,
}

/// How to leave a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// A manager refuses.
    Gently,
    /// Whatever it breaks.
    Force,
}
