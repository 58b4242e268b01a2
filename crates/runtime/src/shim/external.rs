//! Containers made by an OCI runtime of the machine, such as runc.
//!
//! The shim is the subreaper of what the runtime starts, so that the container's first process is its child as soon as the runtime has made it
//! and ended. The runtime keeps its own files below the container's directory; its errors go to a file there, as lines of JSON. What is
//! done by hand where the runtime is built in (see `confine`) is written into the bundle here: filter, terminal, first process.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caps::{Capability, CapsHashSet};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use serde_json::{Value, json};

use super::STATE;
use super::start::{Born, Files};
use crate::bundle::REAPER;
use crate::confine::default_signals;
use crate::files::Made;
use crate::oci_runtime::OciRuntime;
use crate::seccomp;

/// Where containers find their first process.
const INIT: &str = "/sbin/docker-init";

/// The runtime of one container.
pub(crate) struct External<'a> {
    oci: &'a OciRuntime,
    /// The container's directory.
    dir: &'a Path,
    id: String,
}

impl<'a> External<'a> {
    /// Nothing when the container's runtime is the one that is built in.
    pub(crate) fn of(dir: &'a Path, made: &'a Made) -> Option<Self> {
        made.oci_runtime.as_ref().map(|oci| Self { oci, dir, id: made.id.to_string() })
    }

    /// Makes the container and starts its program.
    pub(super) fn start(&self, made: &Made, files: Files) -> Result<Born, String> {
        let bundle = self.dir.join(STATE).join("bundle");
        let place = Place::make(&bundle)?;
        self.adapt(&bundle, made)?;
        let console = made.tty.then(|| Console::listen(&bundle)).transpose()?;
        let mut create = self.command(&place, "create");
        create.arg("--bundle").arg(&bundle).arg("--pid-file").arg(place.pid());
        create.args(console.iter().flat_map(Console::flags)).arg(&self.id);
        match console {
            // The program gets the terminal, and the runtime's own words are in its log.
            Some(_) => create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
            None => create.stdin(files.stdin).stdout(files.stdout).stderr(files.stderr),
        };
        place.run(&mut create)?;
        let terminal = console.map(Console::accept).transpose()?;
        let pid = place.read_pid()?;
        let mut start = self.command(&place, "start");
        place.run(start.arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        Ok(Born { pid, terminal })
    }

    /// Starts a further program, described as the `process` of a bundle is. `None` for files is a terminal.
    pub(super) fn exec(&self, process: &Value, files: Option<[OwnedFd; 3]>) -> Result<Born, String> {
        let dir = self.dir.join(STATE).join(format!("exec-{}", std::process::id()));
        let place = Place::make(&dir)?;
        let begun = self.exec_in(&place, process, files);
        // What stays is removed with the container.
        let _ = fs::remove_dir_all(&dir);
        begun
    }

    fn exec_in(&self, place: &Place, process: &Value, files: Option<[OwnedFd; 3]>) -> Result<Born, String> {
        let description = place.0.join("process.json");
        fs::write(&description, process.to_string())
            .map_err(|e| format!("cannot write {}: {e}", description.display()))?;
        let console = files.is_none().then(|| Console::listen(&place.0)).transpose()?;
        let mut exec = self.command(place, "exec");
        exec.arg("--detach").arg("--process").arg(&description).arg("--pid-file").arg(place.pid());
        exec.args(console.iter().flat_map(Console::flags)).arg(&self.id);
        match files {
            Some([stdin, stdout, stderr]) => exec.stdin(stdin).stdout(stdout).stderr(stderr),
            None => exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        };
        place.run(&mut exec)?;
        Ok(Born { pid: place.read_pid()?, terminal: console.map(Console::accept).transpose()? })
    }

    /// Lets the runtime forget the container, whatever is left of it.
    pub(crate) fn delete(&self) {
        let state = self.dir.join(STATE);
        if !state.exists() {
            return;
        }
        let mut delete = self.command(&Place(state), "delete");
        delete.arg("--force").arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its directory and its cgroup go in any case.
        let _ = delete.status();
    }

    fn command(&self, place: &Place, verb: &str) -> Command {
        let mut command = Command::new(&self.oci.program);
        command.env_clear().current_dir("/");
        command.arg("--root").arg(self.dir.join(STATE).join("oci"));
        command.arg("--log").arg(place.log()).args(["--log-format", "json", verb]);
        let signals = || {
            default_signals();
            Ok(())
        };
        // SAFETY: it makes system calls only.
        unsafe { command.pre_exec(signals) };
        command
    }

    /// Writes the bundle as a runtime needs it that does everything by itself.
    fn adapt(&self, bundle: &Path, made: &Made) -> Result<(), String> {
        let path = self.dir.join("config.json");
        let text = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let mut spec: Value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        spec["process"]["terminal"] = json!(made.tty);
        spec["linux"]["seccomp"] = seccomp::oci_profile(&bounding(&spec["process"])?);
        if spec["annotations"].get(REAPER).is_some() {
            let init = self.oci.init.as_ref().ok_or("there is no first process for it on this node")?;
            let options = json!(["bind", "ro", "rprivate"]);
            let mount = json!({ "destination": INIT, "type": "bind", "source": init, "options": options });
            spec["mounts"].as_array_mut().ok_or("the bundle has no mounts")?.push(mount);
            let args = spec["process"]["args"].as_array_mut().ok_or("the bundle names no program")?;
            args.splice(0..0, [json!(INIT), json!("--")]);
        }
        let path = bundle.join("config.json");
        fs::write(&path, spec.to_string()).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }
}

/// What a program may have at the most.
fn bounding(process: &Value) -> Result<CapsHashSet, String> {
    let names = process["capabilities"]["bounding"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| name.parse::<Capability>().map_err(|e| e.to_string())).collect()
}

/// A directory for what a call of the runtime leaves there.
struct Place(PathBuf);

impl Place {
    fn make(dir: &Path) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
        Ok(Self(dir.to_owned()))
    }

    fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn read_pid(&self) -> Result<i32, String> {
        let text = fs::read_to_string(self.pid()).map_err(|e| format!("the runtime told no pid: {e}"))?;
        text.trim().parse().map_err(|_| format!("the runtime told no pid: {text:?}"))
    }

    /// Runs the runtime to its end.
    fn run(&self, command: &mut Command) -> Result<(), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let status = command.status().map_err(|e| format!("{program}: {e}"))?;
        if status.success() {
            return Ok(());
        }
        Err(self.reason().unwrap_or_else(|| format!("{program} failed without a word ({status})")))
    }

    /// The last error that the runtime has told, without its own words around it.
    fn reason(&self) -> Option<String> {
        let log = fs::read_to_string(self.log()).ok()?;
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = lines.rfind(|line| line["level"] == "error")?;
        let mut reason = last["msg"].as_str()?;
        for around in ["runc create failed: ", "exec failed: ", "unable to start container process: "] {
            reason = reason.strip_prefix(around).unwrap_or(reason);
        }
        Some(reason.to_owned())
    }
}

/// Where the runtime sends the other side of a terminal that it has made.
struct Console {
    listener: UnixListener,
    /// The socket's name, which is short: by way of an open directory.
    path: PathBuf,
    _dir: OwnedFd,
}

impl Console {
    fn listen(dir: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("cannot listen for the terminal: {e}");
        let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(|e| failed(e.into()))?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}/console", std::process::id(), fd.as_raw_fd()));
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(Self { listener, path, _dir: fd })
    }

    fn flags(&self) -> [PathBuf; 2] {
        ["--console-socket".into(), self.path.clone()]
    }

    /// Both sides of the terminal, the program's own first. The runtime has ended, so it has sent the other one.
    fn accept(self) -> Result<[OwnedFd; 2], String> {
        let failed = |e: std::io::Error| format!("cannot take the terminal: {e}");
        self.listener.set_nonblocking(true).map_err(failed)?;
        let (socket, _) = self.listener.accept().map_err(failed)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut ancillary, mut name) = (RecvAncillaryBuffer::new(&mut space), [0; 4096]);
        let flags = RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut name)], &mut ancillary, flags)
            .map_err(|e| failed(e.into()))?;
        let sent = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let other = sent.ok_or("the runtime sent no terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = rustix::pty::ioctl_tiocgptpeer(&other, flags).map_err(|e| failed(e.into()))?;
        Ok([own, other])
    }
}
