//! The last steps in the container's first process, right before it becomes the program.
//!
//! libcontainer makes namespaces, cgroups and mounts, and would also switch the user, drop capabilities and load the filter of
//! system calls. It cannot do the latter without a C library, and a filter can only be loaded without `no_new_privs`, which
//! Docker does not set, as long as there are capabilities. So it is told to leave the process privileged, and the rest is done
//! here, in the only order that works:
//!
//! 1. signals as a new program expects them; a terminal of the container, where it is to have one; the output pipes become the user's, so that it may open `/dev/stdout`;
//! 2. the filter of system calls, while there is `CAP_SYS_ADMIN`: everything after it is done under it;
//! 3. the bounding and ambient sets, while there is `CAP_SETPCAP`;
//! 4. groups and user, while there are `CAP_SETGID` and `CAP_SETUID`; another user than root loses all capabilities by this;
//! 5. the other capability sets of root;
//! 6. `execve`.
//!
//! Nothing that the container controls runs before the last. Failures go to the shim over a pipe that the kernel closes
//! when the program is executed: libcontainer has nobody to tell them to by then.

mod lookup;
mod reaper;

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use caps::{CapSet, CapsHashSet};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Uid, execve, fchown, setgroups, setresgid, setresuid, setsid};

use crate::seccomp::Filters;
use crate::{message, terminal};

/// Who the program runs as.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// What it may have at the most; root has all of it.
    pub(crate) capabilities: CapsHashSet,
}

/// Whether the program is the container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// It is.
    Program,
    /// The first process is a small reaper, and the program its child.
    Reaper,
}

/// Becomes the program.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) identity: Identity,
    pub(crate) filters: Filters,
    pub(crate) first: First,
    /// Where the reason of a failure goes.
    pub(crate) cause: Rc<OwnedFd>,
    /// Where both sides of its terminal go, when it has one: a socket.
    pub(crate) terminal: Option<Rc<OwnedFd>>,
}

/// What is executed.
pub(crate) struct Command {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    fn of(spec: &Spec) -> Result<Self, String> {
        let process = spec.process().as_ref().ok_or("the bundle names no process")?;
        Self::new(process.args().as_deref().unwrap_or_default(), process.env().as_deref().unwrap_or_default())
    }

    /// Looks the program up as whoever asks, who may not see what root sees.
    pub(crate) fn new(args: &[String], env: &[String]) -> Result<Self, String> {
        let name = args.first().ok_or("no program is named")?;
        let path = lookup::find(name, env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default())?;
        let texts = |list: &[String]| list.iter().map(|text| text_of(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self { path: text_of(&path)?, args: texts(args)?, env: texts(env)? })
    }

    /// Returns only with the reason why it could not be executed.
    pub(crate) fn execute(&self) -> String {
        let Err(e) = execve(&self.path, &self.args, &self.env);
        let path = self.path.to_string_lossy();
        format!("exec {path}: {}", e.desc().to_lowercase())
    }
}

fn text_of(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a zero byte"))
}

impl Program {
    fn run(&self, spec: &Spec) -> Result<std::convert::Infallible, String> {
        default_signals();
        if let Some(shim) = &self.terminal {
            take_terminal(shim.as_fd())?;
        }
        own_standard_files(&self.identity)?;
        self.filters.load().map_err(|e| format!("cannot load the system call filter: {e}"))?;
        self.identity.assume()?;
        let command = Command::of(spec)?;
        match self.first {
            First::Program => Err(command.execute()),
            First::Reaper => reaper::run(&command, self.cause.as_fd()),
        }
    }
}

/// Makes a terminal of the container this process's own, and hands both sides of it to the shim.
fn take_terminal(shim: BorrowedFd<'_>) -> Result<(), String> {
    let (own, other) = terminal::open()?;
    message::send(shim, &(), &[own.as_fd(), other.as_fd()])
        .map_err(|e| format!("cannot hand over the terminal: {e}"))?;
    terminal::put([&own, &own, &own])?;
    // It leads its session already, as the first of the container.
    let _ = setsid();
    terminal::control()
}

/// Makes pipes and terminals the user's, so that it may open `/dev/stdout`.
pub(crate) fn own_standard_files(identity: &Identity) -> Result<(), String> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let kind = nix::sys::stat::fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode));
        let group = match kind.map(|kind| kind & SFlag::S_IFMT) {
            Ok(SFlag::S_IFIFO) => Some(Gid::from_raw(identity.gid)),
            // The group of terminals is one of its own.
            Ok(SFlag::S_IFCHR) if rustix::termios::isatty(fd) => None,
            // Other devices belong to everybody.
            _ => continue,
        };
        fchown(fd, Some(Uid::from_raw(identity.uid)), group)
            .map_err(|e| format!("cannot give its standard files to the user: {e}"))?;
    }
    Ok(())
}

impl Identity {
    /// Becomes it. Needs `CAP_SETPCAP`, `CAP_SETGID` and `CAP_SETUID`.
    pub(crate) fn assume(&self) -> Result<(), String> {
        let failed = |what: &'static str| move |e: caps::errors::CapsError| format!("cannot {what}: {e}");
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed("read the bounding set"))?;
        for capability in bounding.difference(&self.capabilities) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed("drop a capability"))?;
        }
        caps::clear(None, CapSet::Ambient).map_err(failed("clear the ambient set"))?;
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(|e| format!("cannot set the groups: {e}"))?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).map_err(|e| format!("cannot become group {gid}: {e}"))?;
        setresuid(uid, uid, uid).map_err(|e| format!("cannot become user {uid}: {e}"))?;
        let kept: CapsHashSet = match self.uid {
            // What the machine itself does not have nobody can keep.
            0 => bounding.intersection(&self.capabilities).copied().collect(),
            _ => CapsHashSet::new(),
        };
        caps::clear(None, CapSet::Inheritable).map_err(failed("clear the inheritable set"))?;
        caps::set(None, CapSet::Effective, &kept).map_err(failed("set the effective set"))?;
        caps::set(None, CapSet::Permitted, &kept).map_err(failed("set the permitted set"))
    }
}

/// Every signal does what it does by default, and none is blocked. Rust's start of a program ignores SIGPIPE, and whoever
/// started the daemon may have ignored others, also those two that the C library keeps for itself and would not touch.
pub(crate) fn default_signals() {
    // `struct sigaction` as the kernel has it: handler (SIG_DFL is zero), flags, restorer, mask.
    let action = [0u64; 4];
    for number in 1..=crate::signal::MAX {
        // SAFETY: no handler is installed, and the kernel only reads the action. It refuses SIGKILL and SIGSTOP.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), std::ptr::null_mut::<u64>(), 8) };
    }
    // An empty set is always accepted.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Writes a reason for the shim, who reads it instead of the end of the file. When the shim is gone nobody is interested.
pub(crate) fn tell(cause: BorrowedFd<'_>, reason: &str) {
    if let Ok(fd) = cause.try_clone_to_owned() {
        let _ = File::from(fd).write_all(reason.as_bytes());
    }
}

impl Executor for Program {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // The program is looked up as the user who executes it, which this process is not yet.
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The program gets exactly the bundle's, in its order.
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Err(reason) = self.run(spec);
        tell(self.cause.as_fd(), &reason);
        Err(ExecutorError::Other(reason))
    }
}
