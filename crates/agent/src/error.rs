//! What can go wrong on a node.

use std::path::PathBuf;

/// What can go wrong on a node, outside a task. What goes wrong with a task is said in its status.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The disk refused.
    #[error("{path}: {source}; is the disk full or read-only?")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file of ours has other content than we wrote.
    #[error("{path} is damaged: {detail}; move it away to start without it (running tasks are found again)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A message that cannot be read.
    #[error("a manager sent something that this version cannot read: {0}; are all nodes of the same version?")]
    Garbled(String),
    /// The manager cannot be reached, or refuses.
    #[error(transparent)]
    Rpc(#[from] skep_rpc::RpcError),
    /// The manager ended the session.
    #[error("the session with the manager ended: {0}")]
    SessionEnded(String),
    /// Devices, addresses, namespaces.
    #[error(transparent)]
    Network(#[from] skep_network::NetworkError),
    /// The data plane.
    #[error(transparent)]
    Datapath(#[from] skep_mesh::DatapathError),
    /// Nothing has been told to the data plane yet, or it has been taken away.
    #[error("the mesh of this node is not up yet: no manager has told it what is published; see the daemon's log")]
    NoMesh,
    /// Containers.
    #[error(transparent)]
    Runtime(#[from] skep_runtime::RuntimeError),
}
