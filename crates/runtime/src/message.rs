//! Messages over a Unix socket between the daemon and its shims, and between a shim and what it starts, with open files in them.
//!
//! A message is its length, eight bytes in the machine's order, and so many bytes of JSON. The files come with the length.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};

/// How many files a message may carry.
const FILES: usize = 4;
/// How long a message may be, in bytes: more than the kernel takes as arguments and environment of a program.
const LONGEST: u64 = 16 << 20;

/// Sends `value` and `files`.
pub(crate) fn send(socket: BorrowedFd<'_>, value: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let length = (body.len() as u64).to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // Whoever has hung up is an error, and not a signal.
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(ErrorKind::WriteZero.into());
    }
    File::from(socket.try_clone_to_owned()?).write_all(&body)
}

/// Waits for a message; `None` when the other side has hung up.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            // Hung up with something unread on the other side.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => break received?.bytes,
        }
    };
    match received {
        0 => return Ok(None),
        8 => {}
        _ => return Err(ErrorKind::UnexpectedEof.into()),
    }
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    let length = u64::from_ne_bytes(length);
    if length > LONGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    File::from(socket.try_clone_to_owned()?).take(length).read_to_end(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, files)))
}

/// Sends a message without files to whoever may have hung up; then nobody is interested.
pub(crate) fn tell(socket: &impl AsFd, value: &impl Serialize) {
    let _ = send(socket.as_fd(), value, &[]);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_message_arrives_whole_and_with_its_files() {
        let (here, there) = UnixStream::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        // Longer than what a socket holds, so that it comes in pieces.
        let long = "x".repeat(1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| send(here.as_fd(), &long, &[write.as_fd()]).unwrap());
            let (text, files) = receive::<String>(there.as_fd()).unwrap().unwrap();
            assert_eq!((text.len(), files.len()), (long.len(), 1));
            File::from(files.into_iter().next().unwrap()).write_all(b"through").unwrap();
        });
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn hanging_up_is_no_message() {
        let (here, there) = UnixStream::pair().unwrap();
        tell(&here, &7);
        drop(here);
        assert_eq!(receive::<i32>(there.as_fd()).unwrap().unwrap().0, 7);
        assert!(receive::<i32>(there.as_fd()).unwrap().is_none());
    }
}
