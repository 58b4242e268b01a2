//! The files of a container's directory, through which daemon and shim know of each other, and processes by pid and start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skep_model::Timestamp;
use tokio::io::unix::AsyncFd;

use crate::container::ContainerId;
use crate::error::RuntimeError;
use crate::images::ImageId;
use crate::oci_runtime::OciRuntime;

/// [`Made`]; without it the directory is half made or half removed.
pub(crate) const CONTAINER: &str = "container.json";
/// [`Shim`]; there from before the first process is made until the container is removed.
pub(crate) const SHIM: &str = "shim.json";
/// [`crate::Exit`].
pub(crate) const EXIT: &str = "exit.json";

/// What a container was made with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) id: ContainerId,
    pub(crate) image: ImageId,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: Timestamp,
    pub(crate) command: Vec<String>,
    pub(crate) hostname: String,
    pub(crate) netns: PathBuf,
    /// From the root of each hierarchy.
    pub(crate) cgroup: String,
    /// Keep standard input open instead of at its end.
    pub(crate) open_stdin: bool,
    /// A terminal instead of pipes.
    #[serde(default)]
    pub(crate) tty: bool,
    /// The runtime that makes it, where it is not the one that is built in.
    #[serde(default)]
    pub(crate) oci_runtime: Option<OciRuntime>,
    /// Supplementary groups as the service names them.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// It has files that are in memory alone.
    #[serde(default)]
    pub(crate) in_memory: bool,
    /// The volumes that it uses, by where they are mounted.
    #[serde(default)]
    pub(crate) volumes: BTreeMap<String, String>,
}

/// Who owns a container.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Shim {
    pub(crate) shim: Process,
    /// The container's first process, once its program has been executed.
    pub(crate) init: Option<Process>,
}

/// A process, told apart from later ones of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks between the machine's start and its own.
    started: u64,
    /// Which start of the machine that was: a digest of the kernel's boot id.
    boot: u64,
}

impl Process {
    /// The process that has this number now, unless it has ended.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain anything; after its last parenthesis come the fields from the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        let started = fields.get(19)?.parse().ok()?;
        (!ended).then_some(Self { pid, started, boot: boot() })
    }

    /// A child that has ended and was not waited for yet.
    pub(crate) fn ended(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?, boot: boot() })
    }

    /// A handle on the process, as long as it runs. It becomes readable when the process has ended.
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        (Self::find(self.pid) == Some(*self)).then_some(fd)
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// Sends a signal; nothing happens when it has ended.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the number only goes to the kernel, which refuses those that are no signals.
        let signal = unsafe { Signal::from_raw_unchecked(signal) };
        if let Some(fd) = self.open() {
            // A process that ended between the two calls has what was wanted of it.
            let _ = pidfd_send_signal(&fd, signal);
        }
    }

    /// Waits at the most `milliseconds` until it has ended, and says whether it has.
    pub(crate) fn ended_within(&self, milliseconds: u16) -> bool {
        let Some(fd) = self.open() else { return true };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::from(milliseconds)) {
                Err(nix::errno::Errno::EINTR) => {}
                ready => return ready.is_ok_and(|n| n > 0),
            }
        }
    }
}

/// Lets tokio wait for a file.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same and open as long as its owner lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

fn boot() -> u64 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = id.bytes().filter_map(|b| char::from(b).to_digit(16)).take(16);
    digits.fold(0, |number, digit| number << 4 | u64::from(digit))
}

/// Replaces a file as a whole, and for good: it is there after the machine has lost its power.
pub(crate) fn write(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), RuntimeError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let (path, aside) = (dir.join(name), dir.join(format!(".{name}.{}.{number}", std::process::id())));
    let replace = || -> io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_data()?;
        fs::rename(&aside, &path)?;
        File::open(dir)?.sync_data()
    };
    replace().map_err(RuntimeError::io("write", &path))
}

/// Reads a file written by [`write`]; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, RuntimeError> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(e) => Err(RuntimeError::Damaged { path, reason: e.to_string() }),
        },
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(RuntimeError::io("read", &path)(e)),
    }
}

/// Deletes a file; that there is none is as good.
pub(crate) fn delete(dir: &Path, name: &str) -> Result<(), RuntimeError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(RuntimeError::io("delete", &path)(e)),
        _ => Ok(()),
    }
}

/// Deletes a directory with what is in it; that there is none is as good.
pub(crate) fn delete_dir(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(RuntimeError::io("delete", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_more_than_its_number() {
        let me = Process::find(std::process::id().cast_signed()).unwrap();
        assert!(me.alive() && me.open().is_some() && !me.ended_within(0));
        for other in [Process { started: me.started + 1, ..me }, Process { boot: me.boot ^ 1, ..me }] {
            assert!(!other.alive() && other.open().is_none() && other.ended_within(0));
            other.signal(libc::SIGKILL);
        }
    }

    #[test]
    fn an_unreaped_child_has_ended() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id().cast_signed();
        // Whichever comes first, the look or the end: it must be seen as ended at last.
        assert!(Process::find(pid).is_none_or(|p| p.ended_within(10_000)));
        assert!(Process::find(pid).is_none());
        child.wait().unwrap();
    }

    #[test]
    fn files_are_replaced_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read::<u32>(dir.path(), "x").unwrap().is_none());
        write(dir.path(), "x", &1u32).unwrap();
        write(dir.path(), "x", &2u32).unwrap();
        assert_eq!(read::<u32>(dir.path(), "x").unwrap(), Some(2));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("x"), "{").unwrap();
        let error = read::<u32>(dir.path(), "x").unwrap_err().to_string();
        assert!(error.contains("/x is damaged") && error.contains("remove the container"), "{error}");
        delete(dir.path(), "x").unwrap();
        delete(dir.path(), "x").unwrap();
    }
}
