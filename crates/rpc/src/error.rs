//! What can go wrong on the calling side.

use std::net::SocketAddr;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::Refusal;

/// Under this key a manager that does not lead tells who does.
const LEADER: &str = "skep-leader";

/// What a manager answers that does not lead, to what only the leader can do.
#[must_use]
pub fn not_leader(leader: Option<SocketAddr>) -> Status {
    let mut status = Status::unavailable("this manager does not lead");
    if let Some(addr) = leader {
        let addr = MetadataValue::try_from(addr.to_string()).expect("an address is of digits, points and brackets");
        status.metadata_mut().insert(LEADER, addr);
    }
    status
}

/// Why a call to another node failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Not an address.
    #[error("invalid address {addr:?}: expected a host and a port, such as 192.0.2.1:2377")]
    BadAddress {
        /// What was given.
        addr: String,
    },
    /// Nobody answers.
    #[error(
        "cannot reach the manager at {addr}: {why}; check the address, that skep runs there as a manager, and that no firewall \
         is in between"
    )]
    Unreachable {
        /// Where.
        addr: String,
        /// What the network says.
        why: String,
    },
    /// The connection stands, and the answer did not come in time.
    #[error("the manager at {addr} did not answer in time; it may be overloaded or have lost its quorum: try again")]
    Timeout {
        /// Where.
        addr: String,
    },
    /// The other side does not let this node in.
    #[error("{addr} refused: {refusal}")]
    Refused {
        /// Where.
        addr: String,
        /// Why.
        refusal: Refusal,
    },
    /// The other side cannot decide: another manager leads, or none does.
    #[error("the manager at {addr} does not lead: {message}")]
    NoLeader {
        /// Where.
        addr: String,
        /// What it says.
        message: String,
        /// Who leads, if it knows: `host:port`.
        leader: Option<String>,
    },
    /// The other side was asked for something that it does not do, and says so.
    #[error("{addr} answered: {message}")]
    Rejected {
        /// Where.
        addr: String,
        /// What it says.
        message: String,
    },
    /// An address to listen on that cannot be used any more.
    #[error("the manager port failed: {why}")]
    Listen {
        /// What the network says.
        why: String,
    },
}

impl RpcError {
    /// What a status that came from `addr`, or from the connection to it, means.
    #[must_use]
    pub fn from_status(addr: &str, status: &Status) -> Self {
        let addr = addr.to_owned();
        if let Some(refusal) = Refusal::of(status) {
            return Self::Refused { addr, refusal };
        }
        let message = status.message().to_owned();
        match status.code() {
            // A status that was made here, for want of a connection, has a cause; one that was received has none.
            Code::Unavailable | Code::Unknown | Code::Cancelled if has_cause(status) => {
                Self::Unreachable { addr, why: cause(status) }
            }
            Code::DeadlineExceeded | Code::Cancelled => Self::Timeout { addr },
            Code::Unavailable => {
                let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
                Self::NoLeader { addr, message, leader: leader.map(str::to_owned) }
            }
            _ => Self::Rejected { addr, message },
        }
    }
}

fn has_cause(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The innermost cause: what the network says, without the layers in between.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
