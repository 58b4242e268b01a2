//! What listens in a namespace, asked of the kernel by sock_diag(7): no probe traffic, a few microseconds.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use skep_model::Protocol;

use crate::dump;
use crate::error::NetworkError;
use crate::namespace::Namespace;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_msg` without attributes.
const MESSAGE: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// TCP_LISTEN, and what UDP calls a socket that is bound and has no peer: TCP_CLOSE.
const LISTEN: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;

/// A socket that waits for peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Its port, 1 to 65535.
    pub port: u16,
    /// The address that it is bound to; unspecified means every one.
    pub address: IpAddr,
    /// Takes IPv6 only; meaningless for an IPv4 address.
    pub v6_only: bool,
    /// The socket's number, by which `/proc/<pid>/fd` shows whose it is.
    pub inode: u32,
}

impl Listener {
    /// Whether peers outside of the namespace reach it, by IPv4 or by IPv6.
    #[must_use]
    pub fn open_to_peers(&self) -> bool {
        let address = self.address.to_canonical();
        let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        !address.is_loopback() && !link_local
    }
}

/// A socket through which one namespace can be asked again and again.
#[derive(Debug)]
pub struct Listeners {
    socket: OwnedFd,
}

impl Listeners {
    /// For the namespace at `netns`: a pinned one, or `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn open(netns: &Path) -> Result<Self, NetworkError> {
        let opened = Namespace::open(netns)?.run(|| {
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        })?;
        let socket = opened.map_err(|e| failed(e.into()))?;
        Ok(Self { socket })
    }

    /// Ports that are open to the outside of the namespace, by IPv4 or by IPv6: TCP and SCTP that listen, UDP that is bound.
    ///
    /// # Errors
    /// When the kernel cannot answer.
    pub fn ports(&mut self) -> Result<BTreeSet<(Protocol, u16)>, NetworkError> {
        let open = self.all()?;
        Ok(open.into_iter().filter(Listener::open_to_peers).map(|l| (l.protocol, l.port)).collect())
    }

    /// Every socket that waits for peers, also on loopback addresses.
    ///
    /// # Errors
    /// When the kernel cannot answer.
    pub fn all(&mut self) -> Result<BTreeSet<Listener>, NetworkError> {
        let mut found = BTreeSet::new();
        for (protocol, states) in [(Protocol::Tcp, LISTEN), (Protocol::Udp, UNCONNECTED), (Protocol::Sctp, LISTEN)] {
            for family in [libc::AF_INET, libc::AF_INET6] {
                let mut read = |message: &[u8]| found.extend(read_message(message, protocol));
                let question = question(family as u8, protocol.number(), states);
                match dump::ask(&self.socket, SOCK_DIAG_BY_FAMILY, &question, &mut read) {
                    // A kernel without SCTP: nobody listens.
                    Err(error) if protocol == Protocol::Sctp && error.raw_os_error() == Some(libc::ENOENT) => {}
                    received => received.map_err(failed)?,
                }
            }
        }
        Ok(found)
    }
}

/// Ports that are open to the outside in the namespace at `netns`. To ask repeatedly, keep a [`Listeners`].
///
/// # Errors
/// When there is no such namespace, or the kernel cannot answer.
pub fn listeners(netns: &Path) -> Result<BTreeSet<(Protocol, u16)>, NetworkError> {
    Listeners::open(netns)?.ports()
}

fn failed(source: io::Error) -> NetworkError {
    NetworkError::netlink("ask which ports are open", source)
}

/// `struct inet_diag_req_v2`.
fn question(family: u8, protocol: u8, states: u32) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[0] = family;
    bytes[1] = protocol;
    bytes[4..8].copy_from_slice(&states.to_ne_bytes());
    bytes
}

fn read_message(message: &[u8], protocol: Protocol) -> Option<Listener> {
    let fixed: &[u8; MESSAGE] = message.first_chunk()?;
    let source: [u8; 16] = fixed[8..24].try_into().ok()?;
    let address = match i32::from(fixed[0]) {
        libc::AF_INET => Ipv4Addr::new(source[0], source[1], source[2], source[3]).into(),
        _ => Ipv6Addr::from(source).into(),
    };
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let inode = u32::from_ne_bytes(fixed[68..72].try_into().ok()?);
    let v6_only = attribute(&message[MESSAGE..], INET_DIAG_SKV6ONLY).is_some_and(|v| v.first() == Some(&1));
    (port != 0).then_some(Listener { protocol, port, address, v6_only, inode })
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([rest[2], rest[3]]) == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}
