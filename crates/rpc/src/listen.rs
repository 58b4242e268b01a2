//! Taking the manager port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens at `addr`. Every address means every address of both families, whether it is written `0.0.0.0` or `::`, as Docker has it. To be
/// called within a tokio runtime.
///
/// # Errors
/// When the port is taken, or the address is none of this node's.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    if !addr.ip().is_unspecified() {
        return open(addr);
    }
    match open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port())) {
        // A kernel without IPv6.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::AFNOSUPPORT) => {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port()))
        }
        opened => opened,
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        set_ipv6_v6only(&socket, false)?;
    }
    // Connections of an earlier daemon that are in TIME_WAIT do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
