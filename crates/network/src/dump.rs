//! Netlink's way to ask the kernel for all of something, where no crate speaks the family.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Asks through a netlink socket, and hands on each message of the answer without its header.
///
/// # Errors
/// What the kernel says, `InvalidData` when it cannot be understood.
pub(crate) fn ask(socket: &OwnedFd, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    send(socket.as_raw_fd(), &request(kind, body), MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if read_datagram(&buffer[..length], &mut each)? {
            return Ok(());
        }
    }
}

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Reads the messages of one datagram; whether the last one of the answer was among them.
fn read_datagram(mut rest: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while rest.len() >= HEADER {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let message = rest.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = message.first_chunk().map_or(-libc::EPROTO, |c| i32::from_ne_bytes(*c));
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => each(message),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
