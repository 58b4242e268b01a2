//! Ports by the kernel's sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use skep_model::Protocol;

use super::{NodePorts, PortAddress, Reservation, ReserveError};
use crate::error::NetworkError;
use crate::listeners::{Listener, Listeners};

/// The namespace that the daemon runs in.
const OWN: &str = "/proc/thread-self/ns/net";

/// The ports of the namespace that the calling thread is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelPorts;

impl NodePorts for KernelPorts {
    fn listeners(&self) -> Result<Vec<Listener>, NetworkError> {
        Ok(Listeners::open(Path::new(OWN))?.all()?.into_iter().collect())
    }

    fn reserve(&self, port: &PortAddress) -> Result<Reservation, ReserveError> {
        let reserved = match port.address {
            Some(address) => bound(port, address),
            None => match bound(port, Ipv6Addr::UNSPECIFIED.into()) {
                // A kernel that was told to do without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    bound(port, Ipv4Addr::UNSPECIFIED.into())
                }
                other => other,
            },
        };
        reserved.map(|socket| Reservation(Some(socket))).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => ReserveError::InUse,
            Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => ReserveError::Unsupported(port.protocol),
            Some(libc::EMFILE | libc::ENFILE) => ReserveError::Files,
            _ => error.into(),
        })
    }

    fn holder(&self, listener: &Listener) -> Option<String> {
        let wanted = format!("socket:[{}]", listener.inode);
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let holds = |pid: &u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == wanted.as_str())
        };
        let pid = numbers.into_iter().find(holds)?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} (process {pid})", name.trim()))
    }
}

/// Never `SO_REUSEADDR`: with it, others that set it too could bind the port as well, and almost all servers set it.
fn bound(port: &PortAddress, address: IpAddr) -> io::Result<OwnedFd> {
    let socket = socket(port.protocol, address)?;
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &libc::c_int::from(port.address.is_some()))?;
    }
    if port.protocol == Protocol::Udp {
        // While no program is attached, datagrams would pile up here.
        refuse_all(&socket)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &1)?;
    }
    let number = port.port.get();
    let address: SockaddrStorage = match address {
        IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, number)).into(),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, number, 0, 0)).into(),
    };
    // SAFETY: the address is valid for as long as the call, and as long as it says.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn socket(protocol: Protocol, address: IpAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = if protocol == Protocol::Udp { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers. (The wrapper does not know SCTP.)
    let fd = unsafe { libc::socket(family, kind | flags, protocol.number().into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is as long as said, and the kernel copies it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filter that lets nothing in: "return 0".
fn refuse_all(socket: &OwnedFd) -> io::Result<()> {
    let mut program = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut program };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// Lets this process have `least` files open, as far as the kernel allows: every reserved port is one. Returns how many it may have.
///
/// # Errors
/// When the kernel refuses even what it allows.
pub fn raise_file_limit(least: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= least {
        return Ok(soft);
    }
    if hard < least && setrlimit(Resource::RLIMIT_NOFILE, least, least).is_ok() {
        return Ok(least);
    }
    let allowed = hard.min(least);
    setrlimit(Resource::RLIMIT_NOFILE, allowed, hard)?;
    Ok(allowed)
}
