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
    /// The pools that networks without a subnet of their own are cut from.
    pub default_pools: Vec<Ipv4Net>,
    /// Prefix length of such networks.
    pub subnet_size: u8,
    /// UDP port of the overlay between nodes.
    pub data_path_port: u16,
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
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: BTreeMap::new(),
            task_history_limit: 5,
            dispatcher: Dispatcher { heartbeat: Duration::from_secs(5) },
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
