//! From the container's pipes, or its terminal, to its log files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_model::Timestamp;

use crate::container::LogStream;
use crate::logs::Writer;

/// Bytes after which a line is cut.
const LINE: usize = 16 << 10;

/// The read ends of the two pipes, and the log that they go to.
pub(super) struct Output {
    pipes: Vec<Pipe>,
    log: Writer,
    /// The program's side of its terminal: with it in hand, the other side is not at an end when the program closes its own.
    terminal: Option<OwnedFd>,
}

struct Pipe {
    file: File,
    stream: LogStream,
    begun: Vec<u8>,
    open: bool,
}

impl Output {
    pub(super) fn new(dir: &Path, out: OwnedFd, err: OwnedFd) -> io::Result<Self> {
        let pipes = vec![Pipe::new(out, LogStream::Stdout)?, Pipe::new(err, LogStream::Stderr)?];
        Ok(Self { pipes, log: Writer::open(dir)?, terminal: None })
    }

    /// The container writes to a terminal, of which this is the other side and its own, and never to its pipes.
    pub(super) fn of_terminal(&mut self, other: OwnedFd, own: OwnedFd) -> io::Result<()> {
        self.pipes = vec![Pipe::new(other, LogStream::Stdout)?];
        self.terminal = Some(own);
        Ok(())
    }

    /// Goes on until `ended` becomes readable.
    pub(super) fn pump(&mut self, ended: BorrowedFd<'_>) {
        loop {
            let mut fds = vec![PollFd::new(ended, PollFlags::POLLIN)];
            let open = self.pipes.iter().filter(|p| p.open);
            fds.extend(open.map(|p| PollFd::new(p.file.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[0].any() == Some(false) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                _ => return,
            }
            for pipe in &mut self.pipes {
                pipe.read(&mut self.log);
            }
        }
    }

    /// Takes what is left in the pipes.
    pub(super) fn drain(&mut self) {
        for pipe in &mut self.pipes {
            while pipe.read(&mut self.log) {}
            if !pipe.begun.is_empty() {
                self.log.write(Timestamp::now(), pipe.stream, &pipe.begun);
            }
        }
    }
}

impl Pipe {
    fn new(fd: OwnedFd, stream: LogStream) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { file: fd.into(), stream, begun: Vec::new(), open: true })
    }

    /// Reads once; false when there is nothing (more).
    fn read(&mut self, log: &mut Writer) -> bool {
        let mut buffer = [0; LINE];
        let bytes = match self.file.read(&mut buffer) {
            Ok(0) => {
                self.open = false;
                return false;
            }
            Ok(n) => &buffer[..n],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            // A terminal ends with an error (EIO).
            Err(_) => {
                self.open = false;
                return false;
            }
        };
        let now = Timestamp::now();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.begun.extend_from_slice(piece);
            let whole = self.begun.pop_if(|b| *b == b'\n').is_some();
            while self.begun.len() > LINE || (self.begun.len() == LINE && !whole) {
                let rest = self.begun.split_off(LINE);
                log.write(now, self.stream, &self.begun);
                self.begun = rest;
            }
            if whole {
                log.write(now, self.stream, &self.begun);
                self.begun.clear();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_at_sixteen_kibibytes() {
        let dir = tempfile::tempdir().unwrap();
        let (out, write) = nix::unistd::pipe().unwrap();
        let (err, _) = nix::unistd::pipe().unwrap();
        let mut output = Output::new(dir.path(), out, err).unwrap();
        let text = format!("one\n\n{}\n{}rest", "a".repeat(LINE), "b".repeat(LINE + 1));
        std::thread::scope(|scope| {
            scope.spawn(|| io::Write::write_all(&mut File::from(write), text.as_bytes()).unwrap());
            let (never, _writer) = nix::unistd::pipe().unwrap();
            while output.pipes[0].open {
                let mut fds = [PollFd::new(output.pipes[0].file.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::NONE).unwrap();
                output.pipes[0].read(&mut output.log);
            }
            drop(never);
        });
        output.drain();
        let log = std::fs::read_to_string(dir.path().join("logs/00000001")).unwrap();
        let lengths: Vec<usize> = log.lines().map(|l| l.splitn(3, ' ').nth(2).unwrap().len()).collect();
        assert_eq!(lengths, [3, 0, LINE, LINE, 5]);
    }
}
