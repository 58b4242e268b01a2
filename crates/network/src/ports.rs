//! Ports of the node that the mesh answers on: who else has them, and how they are kept from others.
//!
//! The data plane takes packets before any socket sees them. A process that listened on a published port would never hear of its clients again, so
//! it must be found before; and one that comes later must be told so when it binds, as everybody expects of a port in use. A
//! [`Reservation`] does the second: a bound socket that never listens and never reads.

mod fake;
mod kernel;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;

use skep_model::Protocol;

pub use self::fake::FakePorts;
pub use self::kernel::{KernelPorts, raise_file_limit};
use crate::error::NetworkError;
use crate::listeners::Listener;

/// A port of the node, on one address or on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortAddress {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: NonZeroU16,
    /// The address; `None` is every one, of both families.
    pub address: Option<IpAddr>,
}

impl PortAddress {
    /// Whether packets for it could as well be for `listener`.
    #[must_use]
    pub fn meets(&self, listener: &Listener) -> bool {
        let same = (self.protocol, self.port.get()) == (listener.protocol, listener.port);
        same && self.address.is_none_or(|own| match listener.address {
            IpAddr::V4(other) if other.is_unspecified() => own.is_ipv4(),
            IpAddr::V6(other) if other.is_unspecified() => own.is_ipv6() || !listener.v6_only,
            other => other.to_canonical() == own,
        })
    }
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "{}/{}", self.port, self.protocol),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

/// A port that is kept from other processes of the node until this is dropped.
#[derive(Debug)]
pub struct Reservation(#[expect(dead_code, reason = "what keeps the port is that it is open")] Option<OwnedFd>);

/// Why a port could not be reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Some socket has it: one that waits for peers, or a client's that the kernel gave this number, or what an ended connection leaves for a
    /// minute. Only the first is a conflict; [`NodePorts::listeners`] tells.
    #[error("another socket has it")]
    InUse,
    /// The kernel does not know the protocol: no process can have the port either.
    #[error("this kernel has no {0}")]
    Unsupported(Protocol),
    /// No more files can be open.
    #[error("the daemon may not open more files: raise its limit (LimitNOFILE= in its systemd unit)")]
    Files,
    /// The kernel refuses for another reason, such as an address that has just gone.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

/// The node's ports.
pub trait NodePorts: Send + Sync {
    /// Every socket in the node's namespace that waits for peers.
    ///
    /// # Errors
    /// When the kernel cannot answer.
    fn listeners(&self) -> Result<Vec<Listener>, NetworkError>;

    /// Keeps a port from other processes.
    ///
    /// # Errors
    /// See [`ReserveError`].
    fn reserve(&self, port: &PortAddress) -> Result<Reservation, ReserveError>;

    /// Which process has a socket, for people: `nginx (process 812)`. `None` when that cannot be seen.
    fn holder(&self, listener: &Listener) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> Listener {
        Listener { protocol: Protocol::Tcp, port: 80, address: address.parse().unwrap(), v6_only: false, inode: 1 }
    }

    fn meets(own: Option<&str>, listener: &Listener) -> bool {
        let port = NonZeroU16::new(80).unwrap();
        let address = own.map(|own| own.parse().unwrap());
        PortAddress { protocol: Protocol::Tcp, port, address }.meets(listener)
    }

    #[test]
    fn sockets_meet_where_their_addresses_do() {
        for (own, other, meet) in [
            (None, "0.0.0.0", true),
            (None, "::1", true),
            (Some("10.0.0.1"), "0.0.0.0", true),
            (Some("10.0.0.1"), "::", true),
            (Some("10.0.0.1"), "10.0.0.1", true),
            (Some("10.0.0.1"), "::ffff:10.0.0.1", true),
            (Some("10.0.0.1"), "127.0.0.53", false),
            (Some("fd00::1"), "0.0.0.0", false),
            (Some("fd00::1"), "::", true),
            (Some("fd00::1"), "fd00::2", false),
        ] {
            assert_eq!(meets(own, &listener(other)), meet, "{own:?} {other}");
        }
        let six_only = Listener { v6_only: true, ..listener("::") };
        assert!(!meets(Some("10.0.0.1"), &six_only) && meets(Some("fd00::1"), &six_only) && meets(None, &six_only));
        assert!(!meets(None, &Listener { port: 81, ..listener("::") }));
        assert!(!meets(None, &Listener { protocol: Protocol::Udp, ..listener("::") }));
    }
}
