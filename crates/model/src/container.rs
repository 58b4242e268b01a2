//! What runs inside a task.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConfigId, FileReference, HealthConfig, SecretId, VolumeOptions};

/// The container of a task, as its service describes it. What is left out comes from the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the person wrote it (checked to be an [`crate::ImageRef`] when the service was created).
    pub image: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// `NAME=value`, or `NAME` alone to unset one of the image's.
    pub env: Vec<String>,
    /// Working directory.
    pub dir: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; names are resolved in the image.
    pub user: Option<String>,
    /// Supplementary groups, by name or number.
    pub groups: Vec<String>,
    /// The container's host name.
    pub hostname: Option<String>,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// A read-only root file system.
    pub read_only: bool,
    /// A small reaper as the first process; `None` leaves it to the daemon's setting.
    pub init: Option<bool>,
    /// Name or number of the signal that asks the container to stop.
    pub stop_signal: Option<String>,
    /// How long the container may take to stop before it is killed; `None` is 10 s.
    pub stop_grace_period: Option<Duration>,
    /// File systems mounted into the container.
    pub mounts: Vec<Mount>,
    /// Extra lines of `/etc/hosts`, in its own format: `address name…`.
    pub hosts: Vec<String>,
    /// Name servers and search domains.
    pub dns: Dns,
    /// Capabilities added to Docker's default set (`CAP_NET_ADMIN`, `ALL`).
    pub cap_add: Vec<String>,
    /// Capabilities removed from it.
    pub cap_drop: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// How readily the kernel kills it when memory runs out, -1000 to 1000.
    pub oom_score_adj: i64,
    /// How it is found out whether it does its work; `None` leaves it to the image.
    pub health: Option<HealthConfig>,
    /// Secrets that it is given as files.
    pub secrets: Vec<FileReference<SecretId>>,
    /// Configs that it is given as files.
    pub configs: Vec<FileReference<ConfigId>>,
}

impl ContainerSpec {
    /// Docker's default for [`Self::stop_grace_period`].
    pub const DEFAULT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

    /// How long the container may take to stop before it is killed.
    #[must_use]
    pub fn grace_period(&self) -> Duration {
        self.stop_grace_period.unwrap_or(Self::DEFAULT_STOP_GRACE_PERIOD)
    }
}

/// Name resolution inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options of `resolv.conf`.
    pub options: Vec<String>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where the content comes from.
    pub kind: MountKind,
    /// Where it appears in the container: an absolute path.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the node.
    Bind {
        /// An absolute path that must exist.
        source: String,
        /// `rprivate` (the default), `rshared`, `rslave`, `private`, `shared` or `slave`.
        propagation: Option<String>,
    },
    /// A named volume of the node, or a fresh one that goes with the container.
    Volume {
        /// The volume's name; `None` for a fresh one.
        source: Option<String>,
        /// How it is made where there is none yet.
        #[serde(default)]
        options: VolumeOptions,
    },
    /// Memory.
    Tmpfs(TmpfsOptions),
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// Size in bytes; `None` is the kernel's default.
    pub size: Option<u64>,
    /// Permission bits of its root.
    pub mode: Option<u32>,
}

/// A resource limit of processes (`setrlimit(2)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …, in lower case and without `RLIMIT_`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// What a task may use, and what is set aside for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// The most it may use.
    pub limits: ResourceLimits,
    /// What the scheduler sets aside.
    pub reservations: ResourceReservations,
}

/// The most that a task may use. Zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// CPU time in billionths of one CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What the scheduler sets aside for a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceReservations {
    /// CPU time in billionths of one CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// How many of each kind of generic resources.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generic: BTreeMap<String, u64>,
}
