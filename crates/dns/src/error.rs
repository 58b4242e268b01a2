//! What can go wrong with names.

use std::net::SocketAddr;

use skep_network::NetworkError;

/// What can go wrong with names. A question that cannot be read is not among it: whoever asked is told.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The task's namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NetworkError),
    /// The port cannot be had.
    #[error("cannot answer questions for names at {addr}: {source}; does another process have the port? (ss -lntup)")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
}
