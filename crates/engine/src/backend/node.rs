//! This node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use skep_model::{GenericResources, NodeId, Timestamp};

/// What the node is to a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwarmState {
    /// In none.
    Inactive,
    /// Joining, or starting up.
    Pending,
    /// A worker.
    Worker,
    /// A manager.
    Manager,
    /// Something is broken.
    Error,
    /// A manager whose keys are locked away.
    Locked,
}

/// What the node is and has.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The daemon's own identity, kept over restarts.
    pub id: String,
    /// The host name.
    pub hostname: String,
    /// skep's version.
    pub version: String,
    /// The commit that it was built from; empty when unknown.
    pub git_commit: String,
    /// When it was built, as text; empty when unknown.
    pub build_time: String,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution's name (`Debian GNU/Linux 12 (bookworm)`).
    pub operating_system: String,
    /// The distribution's version (`12`).
    pub os_version: String,
    /// The processor as the kernel calls it (`x86_64`).
    pub architecture: String,
    /// CPUs that the daemon may use.
    pub cpus: u32,
    /// What its operator says that it has.
    pub generic: GenericResources,
    /// What makes containers: its name, and its program.
    pub runtime: (String, String),
    /// Bytes of memory.
    pub memory: u64,
    /// The data directory.
    pub data_root: String,
    /// The version of the control group hierarchy, `1` or `2`.
    pub cgroup_version: u8,
    /// The daemon's labels.
    pub labels: BTreeMap<String, String>,
    /// Open file descriptors of the daemon.
    pub open_files: u32,
    /// The node's clock.
    pub now: Timestamp,
    /// Registries that may be spoken to without TLS, as given.
    pub insecure_registries: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// What it is to a swarm.
    pub swarm: SwarmInfo,
}

/// What the daemon's process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// Processor time since it started.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_files: u32,
    /// When it started.
    pub started: Timestamp,
}

/// What the node knows of its swarm without asking anybody.
#[derive(Debug, Clone, Default)]
pub struct SwarmInfo {
    /// Its own identity in the swarm.
    pub node: Option<NodeId>,
    /// The address that it is reached at.
    pub addr: Option<IpAddr>,
    /// The managers that it knows: identity and `address:port`.
    pub managers: Vec<(NodeId, String)>,
    /// What is broken; empty when nothing is.
    pub error: String,
}
