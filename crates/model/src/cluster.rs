//! The swarm's own object: one per store.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, GossipKeys, Meta};

/// The stored swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// What people ask of it.
    pub spec: ClusterSpec,
    /// What lets a node in.
    pub join: JoinSecrets,
    /// What makes and checks the certificates of its nodes.
    pub authority: Authority,
    /// What a manager needs to start, when the swarm is locked.
    #[serde(default)]
    pub unlock_key: Option<UnlockSecret>,
    /// The pools that networks without a subnet of their own are cut from.
    pub default_pools: Vec<Ipv4Net>,
    /// Prefix length of such networks.
    pub subnet_size: u8,
    /// UDP port of the overlay between nodes.
    pub data_path_port: u16,
    /// The number that a network was given last; 0 when none was.
    #[serde(default)]
    pub last_vni: u32,
    /// By which nodes know each other's talk. A leader makes them when there are none.
    #[serde(default)]
    pub gossip_keys: Option<GossipKeys>,
}

/// What people ask of the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`, as in Docker.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many ended tasks of a slot are kept for `service ps`.
    pub task_history_limit: u64,
    /// Sessions with nodes.
    pub dispatcher: Dispatcher,
    /// Whether a manager needs the unlock key to start.
    #[serde(default)]
    pub autolock: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: BTreeMap::new(),
            task_history_limit: 5,
            dispatcher: Dispatcher { heartbeat: Duration::from_secs(5) },
            autolock: false,
        }
    }
}

/// Sessions with nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatcher {
    /// How long a node may be silent before it counts as lost.
    pub heartbeat: Duration,
}

/// The secret halves of the join tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSecrets {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

impl std::fmt::Debug for JoinSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecrets(…)")
    }
}

/// The swarm's certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The root certificate that new certificates are issued under, in PEM.
    pub certificate: String,
    /// The private key of that certificate.
    pub key: PrivateKey,
    /// All root certificates that members trust, each in PEM: the issuing one is among them.
    pub trusted: Vec<String>,
}

/// The key that an operator keeps when the swarm is locked, as text. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnlockSecret(pub String);

impl std::fmt::Debug for UnlockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockSecret(…)")
    }
}

/// A private key in PEM. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub String);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
