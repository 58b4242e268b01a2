//! A first process for programs that do not reap what their children leave behind.

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::{Command, tell};

/// Starts the program as a child, hands signals on to it, reaps every process of the container that has lost its parent, and
/// ends as the program ends. The caller is already confined, as the child will be.
pub(super) fn run(command: &Command, cause: BorrowedFd<'_>) -> Result<Infallible, String> {
    // Blocked before there is a child, so that none is lost; the kernel drops unblocked signals of a first process.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(|e| format!("cannot block signals: {e}"))?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() } {
        Err(e) => Err(format!("cannot fork: {e}")),
        Ok(ForkResult::Child) => {
            // An empty set is always accepted.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            tell(cause, &command.execute());
            std::process::exit(127)
        }
        Ok(ForkResult::Parent { child }) => {
            // SAFETY: nothing in this process uses a file any more; the shim waits for the end of the pipe.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            std::process::exit(look_after(child))
        }
    }
}

/// Returns the exit code of `child`.
fn look_after(child: Pid) -> i32 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // It may have ended just now.
            Ok(signal) => drop(kill(child, signal)),
            // A real-time signal, which has no name here, or an interruption.
            Err(_) => {}
        }
    }
}

/// Reaps whoever has ended; the exit code of `child` when it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
