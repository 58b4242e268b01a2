//! The daemons of a lab.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use skep_network::{Namespace, NamespaceKind};

use crate::error::LabError;
use crate::place::Place;
use crate::state::State;
use crate::{http, processes};

/// How long a daemon may take to answer, and to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often the socket of a starting daemon is tried.
const TRY: Duration = Duration::from_millis(20);

/// Lets a command run in a place.
pub(crate) fn enter(state: &State, place: Place, command: &mut Command) -> Result<(), LabError> {
    let name = place.to_string();
    Namespace::open_kind(&state.uts_path(&name), NamespaceKind::Uts)?.enter_on_exec(command)?;
    Namespace::open(&state.net_path(&name))?.enter_on_exec(command)?;
    Ok(())
}

/// Starts a node's daemon and returns without waiting for it.
pub(crate) fn spawn(state: &State, node: u8) -> Result<(), LabError> {
    let dir = state.node_dir(node);
    fs::create_dir_all(&dir).map_err(|e| LabError::file("create", &dir, e))?;
    let path = state.log(node);
    let log = File::options().create(true).append(true).open(&path);
    let log = log.map_err(|e| LabError::file("open", &path, e))?;
    let copy = log.try_clone().map_err(|e| LabError::file("open", &path, e))?;
    let mut command = Command::new(&state.binary);
    command.arg("-H").arg(format!("unix://{}", state.socket(node).display())).arg("daemon");
    command.arg("--data-root").arg(state.data_root(node)).arg("--exec-root").arg(state.exec_root(node));
    command.arg("--pidfile").arg(dir.join("skep.pid")).arg("--cgroup-parent").arg(state.node_cgroup(node));
    // In its own namespace every node can have the same.
    command.args(["--metrics-addr", "0.0.0.0:9323"]).args(state.flags_of(node));
    // A group of its own: Ctrl-C in the terminal is not meant for it.
    command.stdin(Stdio::null()).stdout(log).stderr(copy).process_group(0);
    enter(state, Place::Node(node), &mut command)?;
    let mut child = command.spawn().map_err(|source| LabError::Spawn { program: state.binary.clone(), source })?;
    // Reaped when it ends, whenever that is.
    thread::spawn(move || child.wait());
    Ok(())
}

/// Returns once a node's daemon answers.
pub(crate) fn wait_ready(state: &State, node: u8) -> Result<(), LabError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match http::get(&state.socket(node), "/_ping", Duration::from_secs(2)) {
            Ok(response) if response.status == 200 => return Ok(()),
            Ok(response) => format!("status {}", response.status),
            Err(e) => e.to_string(),
        };
        if Instant::now() > deadline {
            return Err(LabError::NotReady { node, last, log: tail(state, node) });
        }
        thread::sleep(TRY);
    }
}

fn tail(state: &State, node: u8) -> String {
    let log = fs::read_to_string(state.log(node)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The process id of a node's daemon, when one runs.
pub(crate) fn pid(state: &State, node: u8) -> Option<i32> {
    let pidfile = state.node_dir(node).join("skep.pid");
    let pid = fs::read_to_string(pidfile).ok()?.trim().parse().ok()?;
    let marks = processes::Marks { dirs: vec![state.data_root(node)], ..processes::Marks::default() };
    // The number may have been given to somebody else since.
    marks.find().contains(&pid).then_some(pid)
}

/// Sends the daemon of a node a signal and waits for its end; its containers live on. No error when there is none.
pub(crate) fn end(state: &State, node: u8, signal: Signal) -> Result<(), LabError> {
    pid(state, node).map_or(Ok(()), |pid| processes::end(pid, signal, PATIENCE))
}
