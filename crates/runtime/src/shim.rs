//! The process that owns one container: `shim <directory of the container>`.
//!
//! It has one thread and knows no tokio. Its standard output is a pipe to the daemon, on which it says how the start went, as
//! [`Report`]; the pipe is closed then, and daemon and shim have nothing in common any more but the container's directory.

mod causes;
mod exec;
mod external;
mod output;
mod start;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use serde::{Deserialize, Serialize};
use skep_model::Timestamp;

use crate::bundle::memory;
use crate::cgroup;
use crate::container::Exit;
use crate::files::{self, CONTAINER, EXIT, Made, Process, SHIM, Shim};
pub(crate) use exec::{ExecReport, Order};
pub(crate) use external::External;
use start::Started;

/// libcontainer's own directory, below the container's.
pub(crate) const STATE: &str = "state";

/// What the shim tells the daemon, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The program runs, with this pid.
    Started(i32),
    /// It could not be started, for this reason.
    Failed(String),
}

/// Runs one container, or with `exec` a further program in one, from its start to its end; `args` are those after `shim`.
///
/// For the very beginning of `main`, before there is a second thread: it forks, and calls what must not be called with threads.
pub fn shim_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let dir = match args.as_slice() {
        [dir] => dir,
        [exec, dir] if exec == "exec" => return exec::run(Path::new(dir)),
        _ => {
            eprintln!("usage: shim [exec] <directory of a container>; started by the daemon, of no use to people");
            return ExitCode::FAILURE;
        }
    };
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() } {
        // The daemon's child ends, so that the container's owner is nobody's child and outlives the daemon.
        Ok(ForkResult::Parent { .. }) => ExitCode::SUCCESS,
        Ok(ForkResult::Child) => own(&PathBuf::from(dir)),
        Err(e) => {
            eprintln!("fork: {e}");
            ExitCode::FAILURE
        }
    }
}

fn own(dir: &Path) -> ExitCode {
    let made = match files::read::<Made>(dir, CONTAINER) {
        Ok(Some(made)) => made,
        Ok(None) => return refuse("the container is not prepared"),
        Err(e) => return refuse(&e.to_string()),
    };
    match begin(dir, &made) {
        Ok((shim, started)) => watch(dir, &made, shim, started),
        Err(reason) => {
            clean(dir, &made);
            refuse(&reason)
        }
    }
}

/// Becomes independent of the daemon and starts the container.
fn begin(dir: &Path, made: &Made) -> Result<(Shim, Started), String> {
    // Fails only for leaders of a group, and this is a new child.
    let _ = setsid();
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("cannot become a subreaper: {e}"))?;
    let me = Process::find(std::process::id().cast_signed()).ok_or("cannot read /proc/self/stat")?;
    let mut shim = Shim { shim: me, init: None };
    files::write(dir, SHIM, &shim).map_err(|e| e.to_string())?;
    let started = start::start(dir, made)?;
    shim.init = Some(started.init);
    if let Err(e) = files::write(dir, SHIM, &shim) {
        started.init.signal(libc::SIGKILL);
        return Err(e.to_string());
    }
    Ok((shim, started))
}

fn refuse(reason: &str) -> ExitCode {
    report(&Report::Failed(reason.to_owned()));
    ExitCode::FAILURE
}

/// Tells the daemon, and lets go of the pipe to it.
fn report(report: &Report) {
    let mut out = std::io::stdout();
    // The daemon may be gone; the container runs all the same.
    let _ = out.write_all(&serde_json::to_vec(report).unwrap_or_default());
    let _ = out.flush();
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

/// Pumps until the container ends, then writes down how.
fn watch(dir: &Path, made: &Made, shim: Shim, mut started: Started) -> ExitCode {
    report(&Report::Started(started.init.pid));
    if let Some(ended) = shim.init.and_then(|init| init.open()) {
        started.output.pump(ended.as_fd());
    }
    let code = reap(started.init.pid);
    // With its first process the kernel has killed the rest of its pid namespace, so nobody writes any more.
    started.output.drain();
    // Whoever hears of the end may rely on it.
    if let Err(e) = memory::drop_files(dir) {
        eprintln!("{e}");
    }
    let written = files::write(dir, EXIT, &Exit { code, at: Timestamp::now() });
    clean(dir, made);
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes away what only a running container needs. Removal by the daemon tries again what fails here.
fn clean(dir: &Path, made: &Made) {
    let emptied = cgroup::clear(&made.id, &made.cgroup).err();
    if let Some(runtime) = External::of(dir, made) {
        runtime.delete();
    }
    for failed in [emptied, files::delete_dir(&dir.join(STATE)).err()].iter().flatten() {
        eprintln!("{failed}");
    }
}

/// The exit status of the first process. Other children that came to the shim are reaped along with it.
fn reap(init: i32) -> Option<i32> {
    let code = loop {
        match waitpid(Pid::from_raw(init), None) {
            Ok(WaitStatus::Exited(_, code)) => break Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => break Some(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => break None,
        }
    };
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    code
}
