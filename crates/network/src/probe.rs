//! A datagram in another's name: whether the underlay delivers it decides whether a node may answer another node's clients itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockaddrStorage, sendto};

/// Bytes of a UDP header, and of the one address behind it.
const UDP: usize = 8;
const PAYLOAD: usize = 16;

/// Sends a UDP datagram from `member` to `member`, from and to `port`, that names `prober` (16 bytes, IPv4 addresses mapped). Both addresses
/// must be of one family. Needs `CAP_NET_RAW`.
///
/// # Errors
/// When there is no route to the member, or raw sockets are not allowed.
pub fn send_in_anothers_name(member: IpAddr, port: u16, prober: IpAddr) -> io::Result<()> {
    let family = if member.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    // By this protocol the kernel leaves the IP header to the sender; the library has no name for it in both families.
    // SAFETY: no pointer is passed, and what is returned is owned by nobody else.
    let raw = unsafe { libc::socket(family as libc::c_int, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
    let to = SockaddrStorage::from(SocketAddr::new(member, 0));
    sendto(socket.as_raw_fd(), &packet(member, port, prober), &to, MsgFlags::empty())?;
    Ok(())
}

fn packet(member: IpAddr, port: u16, prober: IpAddr) -> Vec<u8> {
    let length = u16::try_from(UDP + PAYLOAD).unwrap_or_default();
    let (mut packet, pseudo) = match member {
        IpAddr::V4(member) => {
            // Length, identification and checksum are filled in by the kernel.
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, libc::IPPROTO_UDP as u8, 0, 0];
            header.extend([member.octets(), member.octets()].concat());
            (header, [member.octets(), member.octets()].concat())
        }
        IpAddr::V6(member) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([libc::IPPROTO_UDP as u8, 64]);
            header.extend([member.octets(), member.octets()].concat());
            (header, [member.octets(), member.octets()].concat())
        }
    };
    let prober = match prober {
        IpAddr::V4(prober) => prober.to_ipv6_mapped(),
        IpAddr::V6(prober) => prober,
    };
    let mut datagram = [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.extend(prober.octets());
    let protocol = [0, libc::IPPROTO_UDP as u8];
    let check = checksum(&[&pseudo[..], &protocol, &length.to_be_bytes(), &datagram].concat());
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    packet.extend(datagram);
    packet
}

/// RFC 1071; 0 is written as all ones (RFC 768).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => u16::MAX,
        check => check,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_whose_it_is() {
        let member: IpAddr = "192.0.2.1".parse().unwrap();
        let packet = packet(member, 7946, "192.0.2.2".parse().unwrap());
        assert_eq!((packet.len(), &packet[12..20]), (44, &[192, 0, 2, 1, 192, 0, 2, 1][..]));
        assert_eq!(packet[20..26], [0x1f, 0x0a, 0x1f, 0x0a, 0, 24]);
        assert_eq!(packet[28..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 2]);
    }

    #[test]
    fn the_checksum_covers_the_pseudo_header() {
        let member: IpAddr = "2001:db8::1".parse().unwrap();
        let packet = packet(member, 7946, "2001:db8::2".parse().unwrap());
        let mut covered = packet[8..40].to_vec();
        covered.extend([0, 17, 0, 24]);
        covered.extend(&packet[40..]);
        // The sum of what it covers and itself is all ones: nothing, inverted.
        assert_eq!(checksum(&covered), u16::MAX);
    }
}
