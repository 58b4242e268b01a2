//! What the rest of the house asks of the network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use skep_model::{Protocol, TaskId};

use crate::{Facts, NetworkError};

/// The overlay device's name.
pub const OVERLAY_DEVICE: &str = "skep-vx";
/// Names of the host's sides of tasks' veth pairs begin so.
pub const TASK_PREFIX: &str = "skt";

/// The name of the host's side of a task's veth pair: 15 characters are all that the kernel allows.
#[must_use]
pub fn task_device(task: &TaskId) -> String {
    format!("{TASK_PREFIX}{}", &task.as_str()[..12])
}

/// How a task is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNet {
    /// The task.
    pub task: TaskId,
    /// Its network namespace, by path.
    pub netns: PathBuf,
    /// Its address.
    pub addr: Ipv4Addr,
    /// Where it sends everything: an address that the node's data plane stands for, and no machine has.
    pub gateway: Ipv4Addr,
    /// Bytes that fit into a packet.
    pub mtu: u32,
}

/// A task's veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLink {
    /// Index of the host's side.
    pub host_ifindex: u32,
    /// Hardware address of the task's side.
    pub mac: [u8; 6],
}

/// Devices of a node.
#[async_trait]
pub trait Links: Send + Sync {
    /// What the node has right now.
    async fn facts(&self) -> Result<Facts, NetworkError>;

    /// Makes the overlay device be there as it should, and returns its index. `port` is the UDP port, `mtu` what fits into a packet inside.
    async fn ensure_overlay(&self, port: u16, mtu: u32) -> Result<u32, NetworkError>;

    /// Removes the overlay device; no error when there is none.
    async fn remove_overlay(&self) -> Result<(), NetworkError>;

    /// Makes a network namespace and pins it at `path`; one that is there already is left as it is.
    async fn create_namespace(&self, path: &Path) -> Result<(), NetworkError>;

    /// Unpins a namespace; no error when there is none. Its devices go with its last process.
    async fn remove_namespace(&self, path: &Path) -> Result<(), NetworkError>;

    /// Connects a task's namespace to the node's; what is there already is repaired.
    async fn attach(&self, net: &TaskNet) -> Result<TaskLink, NetworkError>;

    /// Removes a task's veth pair; no error when there is none.
    async fn detach(&self, task: &TaskId) -> Result<(), NetworkError>;

    /// Names of the host's sides of all tasks' veth pairs, whoever made them.
    async fn task_devices(&self) -> Result<BTreeSet<String>, NetworkError>;

    /// Removes a device by its name; no error when there is none.
    async fn remove_device(&self, name: &str) -> Result<(), NetworkError>;

    /// What listens in a namespace, by any address.
    async fn listeners(&self, netns: &Path) -> Result<BTreeSet<(Protocol, u16)>, NetworkError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel() {
        assert!(task_device(&TaskId::random()).len() <= 15);
    }
}
