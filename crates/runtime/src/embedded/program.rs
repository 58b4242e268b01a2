//! The program that shims run from: a sealed copy in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags};

/// A copy of a program that nobody can change any more.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    pub(super) fn copy(path: &Path) -> io::Result<Self> {
        let mut original = File::open(path)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag, and make every such file executable.
        let fd = rustix::fs::memfd_create("skep", flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create("skep", flags))?;
        let mut copy = File::from(fd);
        io::copy(&mut original, &mut copy)?;
        rustix::fs::fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self(copy.into()))
    }

    /// How a child of this process calls it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
