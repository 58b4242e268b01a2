//! What can go wrong when nodes tell each other.

use std::net::SocketAddr;

/// What can go wrong when nodes tell each other. A single message that cannot be read is not among it: it is counted and dropped.
#[derive(Debug, thiserror::Error)]
pub enum NetDbError {
    /// The port cannot be had.
    #[error("cannot listen on {addr} for what other nodes tell: {source}; does another process have port {}? (ss -lntup)", addr.port())]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A peer cannot be reached, or hung up.
    #[error(
        "cannot compare notes with the node at {addr}: {source}; is a firewall between the nodes? 7946/tcp and 7946/udp must be open"
    )]
    Exchange {
        /// The peer.
        addr: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A peer takes longer than an exchange may.
    #[error(
        "the node at {addr} did not answer in time; is a firewall between the nodes? 7946/tcp and 7946/udp must be open"
    )]
    Timeout {
        /// The peer.
        addr: SocketAddr,
    },
    /// A message that is not one of a member.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Something else than gossip, or of a version that this one does not speak.
    #[error("not a message of this version; are all nodes of the same version?")]
    Foreign,
    /// Sealed with a key that this node does not have.
    #[error("sealed with a key that is not known here; a manager hands out the newest with the next session")]
    UnknownKey,
    /// Changed on its way, or made by somebody without the key.
    #[error("the seal is broken")]
    Forged,
    /// From a node that is no member, or from this one.
    #[error("the sender is not another member")]
    Stranger,
    /// The seal is good and the content is not.
    #[error("the content cannot be read; are all nodes of the same version?")]
    Garbled,
}
