//! That something changed, not what.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::error::NetworkError;
use crate::ipsec;

/// Bits of the routing netlink's groups: links; addresses and routes of IPv4, then of IPv6 (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The group of IPsec's policies.
const POLICIES: u32 = 0x8;

/// Yields whenever links, addresses, routes or IPsec's policies of the namespace may have changed. Read what is there, then wait again: nothing that
/// happens after a yield is missed, and many changes may make one yield.
#[derive(Debug)]
pub struct Changes(Source);

#[derive(Debug)]
enum Source {
    Kernel {
        routing: AsyncFd<OwnedFd>,
        /// Nothing on a kernel without IPsec.
        policies: Option<AsyncFd<OwnedFd>>,
    },
    Fake(watch::Receiver<u64>),
}

impl Changes {
    pub(crate) fn of_this_namespace() -> Result<Self, NetworkError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let routing = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute);
        let routing = hear(routing.map_err(|e| failed(e.into()))?, GROUPS).map_err(failed)?;
        let policies = ipsec::open(flags).map_err(failed)?;
        let policies = policies.map(|socket| hear(socket, POLICIES)).transpose().map_err(failed)?;
        Ok(Self(Source::Kernel { routing, policies }))
    }

    pub(crate) fn faked(receiver: watch::Receiver<u64>) -> Self {
        Self(Source::Fake(receiver))
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// When the kernel's socket breaks; open another.
    pub async fn next(&mut self) -> Result<(), NetworkError> {
        match &mut self.0 {
            Source::Fake(receiver) => receiver.changed().await.map_err(|_| failed(io::ErrorKind::BrokenPipe.into())),
            Source::Kernel { routing, policies: None } => something(routing).await.map_err(failed),
            Source::Kernel { routing, policies: Some(policies) } => tokio::select! {
                heard = something(routing) => heard,
                heard = something(policies) => heard,
            }
            .map_err(failed),
        }
    }
}

fn failed(source: io::Error) -> NetworkError {
    NetworkError::netlink("watch the node's links and addresses", source)
}

fn hear(socket: OwnedFd, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives, and the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Waits until there was something in the socket. Cancel-safe.
async fn something(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        let something = drain(socket.get_ref())?;
        ready.clear_ready();
        if something {
            return Ok(());
        }
    }
}

/// Empties the socket; whether anything was in it, or was lost because it was full.
fn drain(socket: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = [0; 8192];
    let mut something = false;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::ENOBUFS) => something = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(something),
            Err(error) => return Err(error),
        }
    }
}
