//! Nodes: the machines of the swarm.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{GenericResources, Meta, NodeId, Protocol};

/// A stored node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What people ask of it.
    pub spec: NodeSpec,
    /// What it says of itself; `None` until its first session.
    pub description: Option<NodeDescription>,
    /// Whether it is reachable.
    pub status: NodeStatus,
    /// Only managers have one.
    pub manager: Option<ManagerStatus>,
    /// Its own address on the ingress network: what clients on the node itself appear as.
    pub overlay_addr: Option<Ipv4Addr>,
    /// SHA-256 of the public key that its certificate was last issued for (its DER, as in a certificate), in hexadecimal: a node that asks
    /// again to join with the same key is the same node.
    pub credential: String,
}

impl Node {
    /// The host name it reports, or its id until it has.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.description.as_ref().map_or(self.id.as_str(), |d| &d.hostname)
    }

    /// Its certificate, and whom it trusts; `None` until it has said so.
    #[must_use]
    pub fn tls(&self) -> Option<&NodeTls> {
        self.description.as_ref()?.tls.as_ref()
    }
}

/// What people ask of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// A name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels that constraints may ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it is to the swarm.
    pub role: Role,
    /// What may run on it.
    pub availability: Availability,
}

/// What a node is to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Decides, and runs tasks too.
    Manager,
}

/// What may run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Anything.
    #[default]
    Active,
    /// What already runs; nothing new.
    Pause,
    /// Nothing: its tasks are moved.
    Drain,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDescription {
    /// Its host name.
    pub hostname: String,
    /// Processor and operating system.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// The daemon on it.
    pub engine: EngineDescription,
    /// Where its routes lead, skep's own and default routes apart: networks of the swarm must lie elsewhere.
    pub routes: Vec<Ipv4Net>,
    /// Those of IPv6.
    pub routes6: Vec<Ipv6Net>,
    /// Its certificate, and whom it trusts.
    pub tls: Option<NodeTls>,
}

/// What a node says of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTls {
    /// The root certificates that it trusts: PEM, one after the other.
    pub roots: String,
    /// The one that its own certificate is under, in PEM.
    pub issuer: String,
}

/// Processor and operating system, in the words of Go: `amd64` or `x86_64`, `linux`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// The processor.
    pub architecture: String,
    /// The operating system.
    pub os: String,
}

/// What a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeResources {
    /// CPU time in billionths of one CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// What its operator says that it has (`--node-generic-resource`).
    #[serde(skip_serializing_if = "GenericResources::is_empty")]
    pub generic: GenericResources,
}

/// The daemon of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineDescription {
    /// skep's version.
    pub version: String,
    /// The daemon's own labels (`--label`).
    pub labels: BTreeMap<String, String>,
}

/// Whether a node is reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What its managers know.
    pub state: NodeState,
    /// Why, when there is something to say.
    #[serde(default)]
    pub message: String,
    /// Whether its machine answered when it was given up: what runs there may run still.
    #[serde(default)]
    pub machine_answers: bool,
    /// The address that other nodes reach it at: the underlay of the overlay network too.
    #[serde(default)]
    pub addr: Option<IpAddr>,
    /// Published ports that it does not answer on, because they are somebody else's there.
    #[serde(default)]
    pub port_conflicts: Vec<PortConflict>,
}

/// A published port that a node leaves to one of its own processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortConflict {
    /// Its protocol.
    pub protocol: Protocol,
    /// The published port.
    pub port: NonZeroU16,
    /// Who has it, for people: `nginx (process 812)`; empty when that cannot be seen.
    #[serde(default)]
    pub holder: String,
}

impl fmt::Display for PortConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = if self.holder.is_empty() { "another process" } else { &self.holder };
        write!(f, "port {}/{} is taken by {holder}", self.port, self.protocol)
    }
}

/// What managers know of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Nothing yet: it has joined and not reported, or the leader is new.
    Unknown,
    /// Lost: its tasks are replaced.
    Down,
    /// In session.
    Ready,
    /// Left by itself.
    Disconnected,
}

/// What a manager is to the other managers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Its number in the Raft group; random, never used again.
    pub raft_id: u64,
    /// Where its RPC port answers.
    pub addr: SocketAddr,
    /// Whether it leads.
    pub leader: bool,
    /// Whether the leader reaches it.
    pub reachability: Reachability,
}

/// Whether the leader reaches a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Nothing known yet.
    Unknown,
    /// It does not.
    Unreachable,
    /// It does.
    Reachable,
}
