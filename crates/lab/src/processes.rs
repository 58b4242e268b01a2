//! The processes of a node: found by what they are in, not by remembering them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::LabError;

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// By what a process is recognised.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// Inodes of network namespaces.
    pub(crate) namespaces: Vec<u64>,
    /// Cgroups, from the root of each hierarchy.
    pub(crate) cgroup: String,
    /// Directories that appear in the arguments.
    pub(crate) dirs: Vec<PathBuf>,
}

impl Marks {
    /// Processes that bear one of the marks and have not ended.
    pub(crate) fn find(&self) -> Vec<i32> {
        let own = std::process::id().cast_signed();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != own && !ended(*pid) && self.on(*pid)).collect()
    }

    fn on(&self, pid: i32) -> bool {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|m| m.ino());
        let below = |line: &str| {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            path == self.cgroup || path.strip_prefix(self.cgroup.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let argument = |text: &str| self.dirs.iter().any(|dir| text.contains(&*dir.to_string_lossy()));
        namespace.is_some_and(|inode| self.namespaces.contains(&inode))
            || read("cgroup").lines().any(below)
            || argument(&read("cmdline"))
    }
}

/// Whether nothing is left of a process but its exit status.
fn ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| matches!(rest.trim_start().as_bytes().first(), None | Some(b'Z' | b'X')))
}

/// Sends a signal and waits for the process to end. No error when it has already.
pub(crate) fn end(pid: i32, signal: Signal, patience: Duration) -> Result<(), LabError> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    match pidfd_send_signal(&handle, signal) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(LabError::Signal { pid, source: io::Error::from(e) }),
        Ok(()) => {}
    }
    let limit = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)) {
        Ok(0) => Err(LabError::StillRunning(vec![pid])),
        _ => Ok(()),
    }
}

/// Kills everything that bears one of the marks, all at once, and returns when it has ended.
pub(crate) fn kill(marks: &Marks) -> Result<(), LabError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = marks.find();
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(LabError::StillRunning(found));
        }
        // All are told before any is waited for: a node that loses its power loses everything at once.
        for pid in found.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // One that has ended meanwhile needs no signal; who was born meanwhile is found in the next round.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        for pid in found {
            end(pid, Signal::KILL, PATIENCE)?;
        }
    }
}
