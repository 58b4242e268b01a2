//! What can go wrong, in an operator's words.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why something could not be done to the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A namespace could not be made, entered or removed.
    #[error("cannot {action} the namespace {}: {source}", path.display())]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// Where the namespace is pinned.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The path exists, but holds no namespace.
    #[error("{} is not a namespace: remove it, or give another path", .0.display())]
    NotANamespace(PathBuf),
    /// The kernel refused a netlink request.
    #[error("cannot {action}: {source}")]
    Netlink {
        /// What was tried, with the device's name.
        action: String,
        /// The kernel's reason; `PermissionDenied` means that skep lacks CAP_NET_ADMIN.
        source: io::Error,
    },
    /// A task is to be attached to nothing.
    #[error("the task {0} has no address on any network")]
    NoTaskAddress(skep_model::TaskId),
    /// A device is not there (any more).
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// An interface that was named as the one to advertise has no address.
    #[error("interface {0} has no usable IPv4 or IPv6 address")]
    InterfaceWithoutAddress(String),
    /// An interface that was named as the one to advertise has several addresses.
    #[error("interface {interface} has more than one {} address ({first} and {second})", family(*first))]
    SeveralOnInterface {
        /// The interface's name.
        interface: String,
        /// One of its addresses.
        first: IpAddr,
        /// Another one.
        second: IpAddr,
    },
    /// Nothing was named, and an interface has several addresses.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on interface {interface} ({first} and {second})"
    )]
    AmbiguousInterface {
        /// The interface's name.
        interface: String,
        /// One of its addresses.
        first: IpAddr,
        /// Another one.
        second: IpAddr,
    },
    /// Nothing was named, and several interfaces have an address.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({} on {} and {} on {})",
        first.0, first.1, second.0, second.1
    )]
    AmbiguousSystem {
        /// An address and its interface's name.
        first: (IpAddr, String),
        /// Another one.
        second: (IpAddr, String),
    },
    /// The node has no address that others could reach.
    #[error("could not find the system's IP address: give this node an address, or name one with --advertise-addr")]
    NoAddress,
    /// The address that the overlay should run over is on none of the node's interfaces.
    #[error("no interface of this node has the address {0}")]
    NotOurAddress(IpAddr),
    /// A kernel setting could not be written.
    #[error("cannot set {name} to {value}: {source}")]
    Sysctl {
        /// The setting, as a path below `/proc/sys`.
        name: String,
        /// What it should be.
        value: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Several things failed while others were removed; the rest was removed nevertheless.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

impl NetworkError {
    /// `Ok` if nothing failed, the error itself if one did, all of them otherwise.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    pub(crate) fn netlink(action: impl Into<String>, source: io::Error) -> Self {
        Self::Netlink { action: action.into(), source }
    }
}
