//! What a container uses right now, and which processes it has.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Timestamp;

/// What a running container has used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerUsage {
    /// Processor time.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub pids: u64,
    /// The most that it may have; `None` is any number.
    pub pids_limit: Option<u64>,
    /// What it has read and written, by block device.
    pub devices: Vec<DeviceUsage>,
    /// By network device, its loopback device left out.
    pub networks: BTreeMap<String, NetworkUsage>,
}

/// Processor time of a container, and of the machine that it is to be seen against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuUsage {
    /// In all.
    pub total: Duration,
    /// In programs.
    pub user: Duration,
    /// In the kernel.
    pub kernel: Duration,
    /// Spans of time over which its limit is reckoned.
    pub periods: u64,
    /// Those of them in which it was held back.
    pub throttled_periods: u64,
    /// For how long.
    pub throttled: Duration,
    /// Of all processors together since the machine was started, idle time too.
    pub system: Duration,
    /// Processors of the machine.
    pub processors: u32,
}

/// Memory of a container, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryUsage {
    /// With the file cache.
    pub usage: u64,
    /// The most that it was; `None` where the kernel does not say (cgroup v2).
    pub peak: Option<u64>,
    /// How often its limit was reached; `None` where the kernel does not say.
    pub failures: Option<u64>,
    /// The most that it may be: the machine's memory without a limit.
    pub limit: u64,
    /// `memory.stat`, in the kernel's words, which are others on cgroup v1 than on v2.
    pub details: BTreeMap<String, u64>,
}

/// What a container has read from a block device and written to it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceUsage {
    /// The device's major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// What has come in and gone out by a network device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkUsage {
    /// Of what has come in: bytes, packets, errors, dropped packets.
    pub received: [u64; 4],
    /// Of what has gone out: the same.
    pub sent: [u64; 4],
}

/// A process of a container, as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProcess {
    /// Its number on the node.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The number of its user.
    pub uid: u32,
    /// The name of that user on the node, or the number.
    pub user: String,
    /// `R`, `S`, `D`, …: proc(5).
    pub state: char,
    /// `pts/0`, or `?`.
    pub terminal: String,
    /// Threads.
    pub threads: u64,
    /// How nice it is.
    pub nice: i64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Processor time.
    pub cpu: Duration,
    /// When it was started.
    pub started: Timestamp,
    /// Its name in the kernel.
    pub name: String,
    /// The program and its arguments.
    pub args: Vec<String>,
}
