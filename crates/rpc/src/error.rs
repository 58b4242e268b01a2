//! What can go wrong on the calling side.

use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError};
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
    /// The other side cannot prove that it is a manager of the swarm.
    #[error("{addr} does not prove that it is a manager of this swarm: {why}")]
    Untrusted {
        /// Where.
        addr: String,
        /// What is wrong.
        why: String,
    },
    /// The other side does not take this node for a member.
    #[error(
        "the manager at {addr} does not accept this node's certificate ({why}): this node may be of another swarm, or was away \
         while the swarm's root certificate was replaced; leave the swarm on it and join again"
    )]
    NotAccepted {
        /// Where.
        addr: String,
        /// What it says.
        why: String,
    },
    /// A certificate that is not valid at this time.
    #[error(
        "between this node and {addr} a certificate is expired or not yet valid ({why}): check that the clocks of both are right; if they are, \
         leave the swarm on the node whose certificate has expired and join again"
    )]
    Clock {
        /// Where.
        addr: String,
        /// Whose certificate, and when it was valid.
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
                Self::no_connection(&addr, status)
            }
            Code::DeadlineExceeded | Code::Cancelled => Self::Timeout { addr },
            Code::Unavailable => {
                let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
                Self::NoLeader { addr, message, leader: leader.map(str::to_owned) }
            }
            _ => Self::Rejected { addr, message },
        }
    }

    /// What it means that no connection to `addr` came about, or that it broke.
    pub(crate) fn no_connection(addr: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let addr = addr.to_owned();
        let Some(tls) = of_tls(error) else { return Self::Unreachable { addr, why: cause(error) } };
        match tls {
            rustls::Error::InvalidCertificate(invalid) => match invalid {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => {
                    Self::Clock { addr, why: format!("the other side's: {invalid}") }
                }
                CertificateError::Other(own) => Self::Untrusted { addr, why: own.to_string() },
                other => Self::Untrusted { addr, why: other.to_string() },
            },
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
                Self::Clock { addr, why: "this node's, as the other side sees it".to_owned() }
            }
            rustls::Error::AlertReceived(alert) => Self::NotAccepted { addr, why: format!("{alert:?}") },
            rustls::Error::InvalidMessage(_) => {
                Self::Unreachable { addr, why: "what answers there does not speak TLS".to_owned() }
            }
            other => Self::Unreachable { addr, why: other.to_string() },
        }
    }
}

/// The word of the TLS library among the causes of an error.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // What is inside an I/O error is not its source, but takes its place.
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inside = inside.and_then(|inside| inside.downcast_ref());
        if let Some(found) = error.downcast_ref().or(inside) {
            return Some(found);
        }
        next = error.source();
    }
    None
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
