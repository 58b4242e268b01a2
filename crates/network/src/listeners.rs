//! What listens in a network namespace: asked from the kernel by `sock_diag(7)`, without a packet being sent.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use skep_model::Protocol;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Length of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of a `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where in a `struct inet_diag_msg` the source port is, in network byte order.
const SOURCE_PORT: usize = 4;
/// Where the destination port is: zero for a UDP socket that takes datagrams from anybody.
const DESTINATION_PORT: usize = 6;

/// `TCP_LISTEN` and `TCP_CLOSE` of `net/tcp_states.h`, as bits. An unconnected UDP socket is in the latter.
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;

/// Ports that the calling thread's network namespace listens on, by IPv4 or IPv6, on any address.
///
/// # Errors
/// When the kernel does not answer; it needs `CONFIG_INET_DIAG` and `CONFIG_INET_UDP_DIAG`.
pub fn here() -> io::Result<BTreeSet<(Protocol, u16)>> {
    let mut open = BTreeSet::new();
    for (protocol, states) in [(Protocol::Tcp, LISTEN), (Protocol::Udp, CLOSE)] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            dump(family.to_le_bytes()[0], protocol, states, &mut open)?;
        }
    }
    Ok(open)
}

fn dump(family: u8, protocol: Protocol, states: u32, open: &mut BTreeSet<(Protocol, u16)>) -> io::Result<()> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(socket.as_raw_fd(), &request(family, protocol, states), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if !read(&buffer[..length], protocol, open)? {
            return Ok(());
        }
    }
}

fn request(family: u8, protocol: Protocol, states: u32) -> [u8; HEADER + REQUEST] {
    let mut message = [0; HEADER + REQUEST];
    message[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[HEADER] = family;
    message[HEADER + 1] = protocol.number();
    message[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    message
}

/// Reads a datagram of answers; whether more will come.
fn read(mut answers: &[u8], protocol: Protocol, open: &mut BTreeSet<(Protocol, u16)>) -> io::Result<bool> {
    while let Some(header) = answers.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
        let Some(body) = answers.get(HEADER..length) else { break };
        match kind {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => return Err(refusal(body)),
            _ => {
                if let Some(port) = listening_port(body) {
                    open.insert((protocol, port));
                }
            }
        }
        answers = answers.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn listening_port(message: &[u8]) -> Option<u16> {
    let port = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let source = port(SOURCE_PORT)?;
    (source != 0 && port(DESTINATION_PORT)? == 0).then_some(source)
}

fn refusal(body: &[u8]) -> io::Error {
    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    io::Error::from_raw_os_error(-code)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn open_ports_are_seen_and_closed_ones_are_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp6 = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        let ports = [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Tcp, tcp6.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ];
        let open = here().unwrap();
        assert!(ports.iter().all(|p| open.contains(p)), "{ports:?} among {open:?}");
        assert!(!open.contains(&(Protocol::Udp, connected.local_addr().unwrap().port())));
        drop((tcp, tcp6, udp));
        let open = here().unwrap();
        assert!(ports.iter().all(|p| !open.contains(p)));
    }

    #[test]
    fn damaged_answers_do_no_harm() {
        let mut open = BTreeSet::new();
        for length in 0..64_u8 {
            let mut bytes = vec![length; length.into()];
            if let Some(first) = bytes.get_mut(..4) {
                first.copy_from_slice(&u32::from(length).to_ne_bytes());
            }
            let _ = read(&bytes, Protocol::Tcp, &mut open);
        }
    }
}
