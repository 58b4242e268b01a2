//! The way into a container.
//!
//! It is gone by a process between the shim and the program. While it can still see the node it takes the container's limits on itself, then
//! it changes over into the container's namespaces, and there becomes who the program is to be, under the container's filter of system
//! calls. Only then does it make the program's process, which is the first one that programs in the container can see: they find nothing
//! that they could use. It is the shim's child once the one between has ended.
//!
//! Nothing of it can be looked at from the container: the process is not dumpable (ptrace(2), proc(5)), its program is a sealed file in
//! memory, and all files that it has open are closed when the program is executed.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use serde_json::{Value, json};

use crate::confine::{Command, Identity, default_signals, own_standard_files, tell};
use crate::exec::TerminalSize;
use crate::seccomp::Filters;
use crate::{cgroup, message, terminal};

/// What there is to know for the way.
pub(super) struct Entry {
    /// A pidfd of the container's first process.
    pub(super) init: OwnedFd,
    pub(super) cgroup: String,
    pub(super) filters: Filters,
    pub(super) identity: Identity,
    pub(super) limits: Vec<PosixRlimit>,
    pub(super) oom_score_adj: i32,
    pub(super) dir: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
}

impl Entry {
    /// The program as the `process` of a bundle, for a runtime that goes the way by itself. With a size it has a terminal.
    pub(super) fn described(&self, terminal: Option<TerminalSize>) -> Value {
        let names: Vec<String> = self.identity.capabilities.iter().map(ToString::to_string).collect();
        // Another user than root has capabilities only by programs that give them.
        let own: &[String] = if self.identity.uid == 0 { &names } else { &[] };
        json!({
            "terminal": terminal.is_some(),
            "consoleSize": terminal.map(|size| json!({ "height": size.rows, "width": size.columns })),
            "user": { "uid": self.identity.uid, "gid": self.identity.gid, "additionalGids": self.identity.groups },
            "args": self.args,
            "env": self.env,
            "cwd": self.dir,
            "capabilities": { "bounding": names, "effective": own, "permitted": own, "inheritable": [], "ambient": [] },
            "rlimits": self.limits,
            "oomScoreAdj": self.oom_score_adj,
        })
    }
}

/// What the program's standard files are to be.
pub(super) enum Standard {
    Nothing,
    Files([OwnedFd; 3]),
    Terminal(TerminalSize),
}

/// Goes the way, and ends: in the program, or after writing the reason why not to `cause`. The number of the program's process goes to
/// `born`, with the other side of its terminal.
pub(super) fn enter(entry: &Entry, standard: &Standard, cause: &OwnedFd, born: &OwnedFd) -> ! {
    let Err(reason) = go(entry, standard, born);
    tell(cause.as_fd(), &reason);
    std::process::exit(1)
}

fn go(entry: &Entry, standard: &Standard, born: &OwnedFd) -> Result<Infallible, String> {
    nix::sys::prctl::set_dumpable(false).map_err(|e| format!("cannot hide: {e}"))?;
    close_with_exec()?;
    cgroup::join(&entry.cgroup).map_err(|e| format!("cannot join the container's cgroup: {e}"))?;
    std::fs::write("/proc/self/oom_score_adj", entry.oom_score_adj.to_string())
        .map_err(|e| format!("cannot set the OOM score: {e}"))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?;
    // What there is of namespaces in a container, as the bundle has them.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    setns(&entry.init, namespaces).map_err(|e| format!("cannot join the container's namespaces: {e}"))?;
    let terminal = standard_files(standard, &null.into())?;
    begin_in(&entry.dir)?;
    own_standard_files(&entry.identity)?;
    default_signals();
    for limit in &entry.limits {
        setrlimit(resource(limit.typ()), limit.soft(), limit.hard())
            .map_err(|e| format!("cannot set {}: {e}", limit.typ()))?;
    }
    entry.filters.load().map_err(|e| format!("cannot load the system call filter: {e}"))?;
    entry.identity.assume()?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(|e| format!("cannot fork: {e}"))? {
        ForkResult::Parent { child } => hand_over(child, terminal.as_ref(), born),
        ForkResult::Child => become_program(entry, terminal.is_some()),
    }
}

fn hand_over(child: Pid, terminal: Option<&OwnedFd>, born: &OwnedFd) -> Result<Infallible, String> {
    let files: Vec<_> = terminal.into_iter().map(AsFd::as_fd).collect();
    message::send(born.as_fd(), &child.as_raw(), &files).map_err(|e| format!("cannot tell its pid: {e}"))?;
    std::process::exit(0)
}

fn become_program(entry: &Entry, has_terminal: bool) -> Result<Infallible, String> {
    setsid().map_err(|e| format!("cannot begin a session: {e}"))?;
    if has_terminal {
        terminal::control()?;
    }
    Err(Command::new(&entry.args, &entry.env)?.execute())
}

/// Every file from the fourth on is closed when a program is executed, also such as the daemon's parents may have left open.
fn close_with_exec() -> Result<(), String> {
    // SAFETY: it closes nothing in this program.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    if done == 0 { Ok(()) } else { Err(format!("cannot mark open files: {}", std::io::Error::last_os_error())) }
}

/// Puts the program's standard files where they belong; the other side of its terminal, when it has one.
fn standard_files(standard: &Standard, null: &OwnedFd) -> Result<Option<OwnedFd>, String> {
    let (files, other) = match standard {
        Standard::Nothing => ([null, null, null], None),
        Standard::Files([stdin, stdout, stderr]) => ([stdin, stdout, stderr], None),
        Standard::Terminal(size) => {
            let (own, other) = terminal::open()?;
            terminal::resize(&other, *size).map_err(|e| format!("cannot set the terminal's size: {e}"))?;
            terminal::put([&own, &own, &own])?;
            return Ok(Some(other));
        }
    };
    terminal::put(files)?;
    Ok(other)
}

fn begin_in(dir: &Path) -> Result<(), String> {
    let failed = |e: nix::errno::Errno| {
        format!("chdir to cwd ({:?}) set in config.json failed: {}", dir.display(), e.desc().to_lowercase())
    };
    nix::unistd::chdir(dir).map_err(failed)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
