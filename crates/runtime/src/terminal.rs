//! Terminals of a container: made in the container's own `/dev/pts`, so that its programs find theirs there.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS: i64 = 0x1cd1;
/// Where new terminals come from, in a container.
const PTMX: &str = "/dev/pts/ptmx";

/// Both sides of a new terminal of the container in whose root this process is: the one that programs see, and the other.
///
/// The container may have put anything at the path. Only a multiplexer of a file system of terminals is taken, and the program's side is
/// asked of it without a path (`TIOCGPTPEER`).
pub(crate) fn open() -> Result<(OwnedFd, OwnedFd), String> {
    let failed = |e: rustix::io::Errno| format!("cannot open a terminal in the container: {PTMX}: {e}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let other = rustix::fs::open(PTMX, flags, Mode::empty()).map_err(failed)?;
    let (file, system) = (rustix::fs::fstat(&other).map_err(failed)?, rustix::fs::fstatfs(&other).map_err(failed)?);
    let kind = FileType::from_raw_mode(file.st_mode);
    if system.f_type != DEVPTS || kind != FileType::CharacterDevice {
        return Err(format!("cannot open a terminal in the container: {PTMX} is none"));
    }
    rustix::pty::unlockpt(&other).map_err(failed)?;
    let own = rustix::pty::ioctl_tiocgptpeer(&other, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(failed)?;
    Ok((own, other))
}

/// Makes files the standard ones of this process.
pub(crate) fn put([stdin, stdout, stderr]: [&OwnedFd; 3]) -> Result<(), String> {
    let failed = |e| format!("cannot put its standard files in place: {e}");
    nix::unistd::dup2_stdin(stdin).map_err(failed)?;
    nix::unistd::dup2_stdout(stdout).map_err(failed)?;
    nix::unistd::dup2_stderr(stderr).map_err(failed)
}

/// Gives a terminal its size.
pub(crate) fn resize(terminal: &impl AsFd, size: TerminalSize) -> std::io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the terminal at standard input the one of this process's session, of which it is the leader.
pub(crate) fn control() -> Result<(), String> {
    rustix::process::ioctl_tiocsctty(std::io::stdin()).map_err(|e| format!("cannot take the terminal: {e}"))
}
