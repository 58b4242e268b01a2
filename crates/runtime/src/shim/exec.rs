//! A further program in a container: `shim exec <directory of the container>`.
//!
//! The process is a shim of its own beside the container's, made by the daemon that runs now, so that a container that an older daemon has
//! started gets what this one can do. Its standard input is a socket to the daemon: an [`Order`] comes in with the program's files, out
//! go an [`ExecReport`] of the start and one of the end. A daemon that hangs up wants the program killed, unless it was told to go on alone.
//!
//! libcontainer's own way into a container is not used: it loads no filter of system calls, leaves a socket behind for each program, and
//! takes root and `/` where nothing else is said.

mod enter;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use libcontainer::oci_spec::runtime::Spec;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setsid};
use serde::{Deserialize, Serialize};

use super::external::External;
use super::start::Born;
use crate::bundle::{self, HOME};
use crate::exec::{ExecCommand, ExecFiles};
use crate::files::{self, CONTAINER, Made, Process, SHIM, Shim};
use crate::seccomp::Filters;
use crate::{message, terminal};
use enter::{Entry, Standard};

/// What the daemon asks for. With pipes, the program's three standard files come with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order(pub(crate) ExecCommand);

/// What the shim tells the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecReport {
    /// The program runs, with this pid. With a terminal, its other side comes with this.
    Started(i32),
    /// It could not be started, for this reason.
    Failed(String),
    /// It has ended: with the exit code, or 128 and the number of the signal that ended it.
    Ended(Option<i32>),
}

/// A program that runs in the container as a child of this process.
struct Running {
    process: Process,
    terminal: Option<OwnedFd>,
}

pub(super) fn run(dir: &Path) -> ExitCode {
    let Ok(daemon) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let Ok(Some((Order(command), given))) = message::receive::<Order>(daemon.as_fd()) else {
        return ExitCode::FAILURE;
    };
    let lonely = command.files == ExecFiles::Nothing;
    let Running { process, terminal } = match start(dir, &command, given) {
        Ok(running) => running,
        Err(reason) => {
            message::tell(&daemon, &ExecReport::Failed(reason));
            return ExitCode::FAILURE;
        }
    };
    let files: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    let told = message::send(daemon.as_fd(), &ExecReport::Started(process.pid), &files);
    drop(terminal);
    if told.is_err() && !lonely {
        end(process);
    }
    if let Some(ended) = process.open()
        && !lonely
        && hung_up(&daemon, &ended)
    {
        end(process);
    }
    message::tell(&daemon, &ExecReport::Ended(super::reap(process.pid)));
    ExitCode::SUCCESS
}

/// Waits until the program has ended or the daemon has hung up, and says whether it is the latter.
fn hung_up(daemon: &OwnedFd, ended: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN), PollFd::new(daemon.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            // The daemon says nothing more: what there is to read is the end.
            _ => return fds[0].any() != Some(true),
        }
    }
}

/// Kills the program and what it has started, as far as that has not left its group.
fn end(process: Process) {
    // It leads a session, and with it a group of its number, until it is waited for. Either may be gone.
    let _ = kill(Pid::from_raw(-process.pid), Signal::SIGKILL);
    process.signal(libc::SIGKILL);
}

fn start(dir: &Path, command: &ExecCommand, given: Vec<OwnedFd>) -> Result<Running, String> {
    // Fails only for leaders of a group, and this is a new child.
    let _ = setsid();
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("cannot become a subreaper: {e}"))?;
    let made: Made = files::read(dir, CONTAINER).map_err(|e| e.to_string())?.ok_or("the container is gone")?;
    let entry = entry(dir, &made, command)?;
    let standard = match (command.files, <[OwnedFd; 3]>::try_from(given)) {
        (ExecFiles::Terminal(size), _) => Standard::Terminal(size),
        (ExecFiles::Pipes { .. }, Ok(files)) => Standard::Files(files),
        (ExecFiles::Pipes { .. }, Err(_)) => return Err("the daemon sent no files".to_owned()),
        (ExecFiles::Nothing, _) => Standard::Nothing,
    };
    let (pid, terminal) = match External::of(dir, &made) {
        Some(runtime) => by_runtime(&runtime, &entry, standard)?,
        None => by_hand(&entry, standard)?,
    };
    let process = Process::find(pid).or_else(|| Process::ended(pid)).ok_or("the program's process is gone")?;
    Ok(Running { process, terminal })
}

/// The number of a program's process, and the other side of its terminal, when it has one.
type Begun = (i32, Option<OwnedFd>);

/// Lets the container's runtime start it.
fn by_runtime(runtime: &External<'_>, entry: &Entry, standard: Standard) -> Result<Begun, String> {
    let null = || File::open("/dev/null").map(OwnedFd::from).map_err(|e| format!("/dev/null: {e}"));
    let (files, size) = match standard {
        Standard::Terminal(size) => (None, Some(size)),
        Standard::Files(files) => (Some(files), None),
        Standard::Nothing => (Some([null()?, null()?, null()?]), None),
    };
    let Born { pid, terminal } = runtime.exec(&entry.described(size), files)?;
    let other = terminal.map(|[_, other]| other);
    // Not every runtime has done that; where one has, the program hears nothing of it.
    if let (Some(other), Some(size)) = (&other, size) {
        terminal::resize(other, size).map_err(|e| format!("cannot set the terminal's size: {e}"))?;
    }
    Ok((pid, other))
}

fn by_hand(entry: &Entry, standard: Standard) -> Result<Begun, String> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("cannot make a pipe: {e}"));
    let (cause, cause_in) = pipe()?;
    let (born, born_in) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| format!("cannot make a socket: {e}"))?;
    // SAFETY: this process has one thread, so the child may do anything.
    let between = match unsafe { fork() }.map_err(|e| format!("cannot fork: {e}"))? {
        ForkResult::Child => enter::enter(entry, &standard, &cause_in, &born_in),
        ForkResult::Parent { child } => child,
    };
    drop((cause_in, born_in, standard));
    let _ = waitpid(between, None);
    // Ends when the program has been executed, or after the reason why it could not be.
    let mut reason = String::new();
    File::from(cause).read_to_string(&mut reason).map_err(|e| format!("cannot read the outcome: {e}"))?;
    let born = message::receive::<i32>(born.as_fd()).map_err(|e| format!("cannot read its pid: {e}"))?;
    let Some((pid, terminal)) = born else {
        return Err(if reason.is_empty() { "it was killed before it began".to_owned() } else { reason });
    };
    if !reason.is_empty() {
        super::reap(pid);
        return Err(reason);
    }
    Ok((pid, terminal.into_iter().next()))
}

/// What the container's directory says about programs in it.
fn entry(dir: &Path, made: &Made, command: &ExecCommand) -> Result<Entry, String> {
    let told = |e: crate::RuntimeError| e.to_string();
    let shim: Shim = files::read(dir, SHIM).map_err(told)?.ok_or("the container is not running")?;
    let init = shim.init.and_then(|init| init.open()).ok_or("the container is not running")?;
    let spec = Spec::load(dir.join("config.json")).map_err(|e| e.to_string())?;
    let process = spec.process().as_ref().ok_or("the bundle names no process")?;
    let mut identity = super::start::identity(process)?;
    let root = spec.root().as_ref().ok_or("the bundle names no root")?.path().clone();
    let home = spec.annotations().as_ref().and_then(|a| a.get(HOME)).map(String::as_str);
    let mut env = process.env().clone().unwrap_or_default();
    if let Some(user) = command.user.as_deref().filter(|user| !user.is_empty()) {
        let user = bundle::user(&root, user, &made.groups).map_err(told)?;
        (identity.uid, identity.gid, identity.groups) = (user.uid, user.gid, user.groups);
        if let Some(own) = home.and_then(|home| env.iter_mut().find(|e| e.strip_prefix("HOME=") == Some(home))) {
            *own = format!("HOME={}", user.home);
        }
    }
    if matches!(command.files, ExecFiles::Terminal(_)) && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push(bundle::TERM.to_owned());
    }
    bundle::override_env(&mut env, &command.env).map_err(told)?;
    let dir = command.dir.clone().filter(|dir| !dir.is_empty());
    Ok(Entry {
        init,
        cgroup: made.cgroup.clone(),
        filters: Filters::compile(&identity.capabilities)?,
        identity,
        limits: process.rlimits().clone().unwrap_or_default(),
        oom_score_adj: process.oom_score_adj().unwrap_or_default(),
        dir: dir.map_or_else(|| process.cwd().clone(), Into::into),
        args: command.args.clone(),
        env,
    })
}
