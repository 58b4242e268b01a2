//! From the bundle to a running program.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use caps::{Capability, CapsHashSet};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Process as OciProcess, Spec, UserBuilder};
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::STATE;
use super::causes::Causes;
use super::external::External;
use super::output::Output;
use crate::bundle::REAPER;
use crate::confine::{First, Identity, Program};
use crate::devices;
use crate::files::{self, Made, Process};
use crate::message;
use crate::seccomp::Filters;

/// A container whose program runs.
pub(super) struct Started {
    pub(super) init: Process,
    pub(super) output: Output,
    /// Keeps standard input open for the container, when asked to.
    _stdin: Option<OwnedFd>,
}

/// What the container's three standard files are.
pub(super) struct Files {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A program that a runtime has started.
pub(super) struct Born {
    pub(super) pid: i32,
    /// Both sides of its terminal, its own first.
    pub(super) terminal: Option<[OwnedFd; 2]>,
}

pub(super) fn start(dir: &Path, made: &Made) -> Result<Started, String> {
    // What an earlier start left behind that was broken off.
    files::delete_dir(&dir.join(STATE)).map_err(|e| e.to_string())?;
    File::open(&made.netns).map_err(|e| format!("network namespace {}: {e}", made.netns.display()))?;
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    let (stdin, kept) = if made.open_stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (File::open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?.into(), None)
    };
    let mut output = Output::new(dir, out, err).map_err(|e| format!("cannot open the log: {e}"))?;
    let files = Files { stdin, stdout, stderr };
    let Born { pid, terminal } = match External::of(dir, made) {
        Some(runtime) => runtime.start(made, files)?,
        None => run(dir, made, files)?,
    };
    if let Some([own, other]) = terminal {
        output.of_terminal(other, own).map_err(|e| format!("cannot read the terminal: {e}"))?;
    }
    let init = Process::find(pid).or_else(|| Process::ended(pid)).ok_or("the first process is gone")?;
    Ok(Started { init, output, _stdin: kept })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("cannot make a pipe: {e}"))
}

/// Makes the container with libcontainer, and starts its program.
fn run(dir: &Path, made: &Made, files: Files) -> Result<Born, String> {
    let (cause, cause_in) = pipe()?;
    let (terminal, terminal_in) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| format!("cannot make a socket: {e}"))?;
    let handed = made.tty.then(|| Rc::new(terminal_in));
    let causes = Causes::keep().map_err(|e| format!("cannot keep causes: {e}"))?;
    let mut container = create(dir, made, (cause_in, handed), files)
        .map_err(|library| causes.first().map_or(library.clone(), |cause| format!("{library}: {cause}")))?;
    devices::confine(&made.cgroup).map_err(|e| format!("cannot confine the container to its devices: {e}"))?;
    let told = container.start().map_err(|e| chain(&e));
    // Ends when the program has been executed, or after the reason why it could not be.
    let mut reason = String::new();
    File::from(cause).read_to_string(&mut reason).map_err(|e| format!("cannot read the outcome: {e}"))?;
    match (reason.as_str(), told) {
        ("", Ok(())) => {}
        ("", Err(library)) => return Err(library),
        (reason, _) => return Err(reason.to_owned()),
    }
    let pid = container.pid().ok_or("libcontainer knows no first process")?.as_raw();
    let terminal = if made.tty { Some(take_terminal(&terminal)?) } else { None };
    Ok(Born { pid, terminal })
}

/// Both sides of the terminal that the program has made for itself, its own first.
fn take_terminal(socket: &OwnedFd) -> Result<[OwnedFd; 2], String> {
    let sides = message::receive::<()>(socket.as_fd()).map_err(|e| format!("cannot take the terminal: {e}"))?;
    let ((), sides) = sides.ok_or("the program kept its terminal to itself")?;
    <[OwnedFd; 2]>::try_from(sides).map_err(|_| "a terminal has two sides".to_owned())
}

/// An error with all its causes.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    text
}

/// Makes the container up to the point where its first process waits for the order to execute the program.
fn create(
    dir: &Path,
    made: &Made,
    (cause, terminal): (OwnedFd, Option<Rc<OwnedFd>>),
    files: Files,
) -> Result<Container, String> {
    let mut spec = Spec::load(dir.join("config.json")).map_err(|e| chain(&e))?;
    let reaper = spec.annotations().as_ref().is_some_and(|a| a.contains_key(REAPER));
    let identity = privileged(spec.process_mut().as_mut().ok_or("the bundle names no process")?)?;
    let filters = Filters::compile(&identity.capabilities)?;
    let first = if reaper { First::Reaper } else { First::Program };
    let program = Program { identity, filters, first, cause: Rc::new(cause), terminal };
    let bundle = dir.join(STATE).join("bundle");
    fs::create_dir_all(&bundle).map_err(|e| format!("cannot create {}: {e}", bundle.display()))?;
    spec.save(bundle.join("config.json")).map_err(|e| chain(&e))?;
    let builder = ContainerBuilder::new(made.id.to_string(), SyscallType::default())
        .with_executor(program)
        .with_root_path(dir.join(STATE))
        .map_err(|e| chain(&e))?
        .with_stdin(files.stdin)
        .with_stdout(files.stdout)
        .with_stderr(files.stderr);
    builder.as_init(bundle).with_systemd(false).with_detach(true).build().map_err(|e| chain(&e))
}

/// Takes the user and the capabilities out of what libcontainer gets to see, for [`Program`] to see to them.
fn privileged(process: &mut OciProcess) -> Result<Identity, String> {
    let identity = identity(process)?;
    process.set_user(UserBuilder::default().uid(0u32).gid(0u32).build().map_err(|e| e.to_string())?);
    process.set_capabilities(None);
    Ok(identity)
}

/// Who a bundle's program runs as.
pub(super) fn identity(process: &OciProcess) -> Result<Identity, String> {
    let user = process.user();
    let named = process.capabilities().as_ref().and_then(|c| c.bounding().clone()).unwrap_or_default();
    let mut capabilities = CapsHashSet::new();
    for name in named {
        let text = name.to_string();
        let full = if text.starts_with("CAP_") { text } else { format!("CAP_{text}") };
        capabilities.insert(full.parse::<Capability>().map_err(|e| e.to_string())?);
    }
    let groups = user.additional_gids().clone().unwrap_or_default();
    Ok(Identity { uid: user.uid(), gid: user.gid(), groups, capabilities })
}
