//! The control groups of a container, on every hierarchy that the machine has: v1, v2, or both.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::container::ContainerId;
use crate::error::RuntimeError;
use crate::files::Process;

/// How long the kernel may take to let go of processes that were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cgroup of a container, from the root of each hierarchy.
pub(crate) fn path(parent: &str, id: &ContainerId) -> String {
    format!("/{}/{id}", parent.trim_matches('/'))
}

/// The roots of all hierarchies, `true` for cgroup v2.
fn roots() -> Vec<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let v2 = match back.split(' ').next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some((PathBuf::from(front.split(' ').nth(4)?), v2))
    };
    let mut roots: Vec<(PathBuf, bool)> = mounts.lines().filter_map(root).collect();
    roots.sort();
    roots.dedup();
    roots
}

/// The directories of the cgroup at `path`.
pub(crate) fn dirs(path: &str) -> Vec<PathBuf> {
    let below = roots().into_iter().map(|(root, _)| root.join(path.trim_start_matches('/')));
    below.filter(|dir| dir.join("cgroup.procs").exists()).collect()
}

/// Moves the calling process into the cgroup at `path`, on every hierarchy.
///
/// # Errors
/// When there is none, or the kernel refuses.
pub(crate) fn join(path: &str) -> std::io::Result<()> {
    let dirs = dirs(path);
    if dirs.is_empty() {
        return Err(ErrorKind::NotFound.into());
    }
    // Zero is whoever writes it.
    dirs.iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
}

/// The directory of the cgroup at `path` on the v2 hierarchy, when that one controls devices: when no v1 hierarchy does.
pub(crate) fn v2_devices(path: &str) -> Option<PathBuf> {
    let roots = roots();
    let v1 = roots.iter().any(|(root, v2)| !v2 && root.join("devices.list").exists());
    let v2 = roots.into_iter().find(|(_, v2)| *v2 && !v1);
    v2.map(|(root, _)| root.join(path.trim_start_matches('/'))).filter(|dir| dir.exists())
}

/// The cgroups in and below `dir`, the deepest first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut all: Vec<PathBuf> = below.flat_map(|e| tree(&e.path())).collect();
    all.push(dir.to_owned());
    all
}

fn processes(dir: &Path) -> Vec<Process> {
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.lines().filter_map(|l| l.parse().ok()).filter_map(Process::find).collect()
}

/// Every process of the container that still runs.
fn members(path: &str) -> Vec<Process> {
    let mut all: Vec<Process> = dirs(path).iter().flat_map(|d| tree(d)).flat_map(|d| processes(&d)).collect();
    all.sort_by_key(|p| p.pid);
    all.dedup();
    all
}

/// The numbers of all processes of the container that run, as the node numbers them.
pub(crate) fn pids(path: &str) -> Vec<i32> {
    members(path).into_iter().map(|process| process.pid).collect()
}

/// Kills every process of the container; returns when they have ended.
///
/// # Errors
/// [`RuntimeError::Unkillable`] for those that hang in the kernel.
pub(crate) fn kill(id: &ContainerId, path: &str) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let members = members(path);
        if members.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(RuntimeError::Unkillable { id: id.clone(), pids: members.iter().map(|p| p.pid).collect() });
        }
        // Killing may race with forks: who was born meanwhile is found in the next round.
        members.iter().for_each(|p| p.signal(libc::SIGKILL));
        for process in &members {
            process.ended_within(1000);
        }
    }
}

/// Kills what is in the container's cgroup and deletes it; returns when both is done.
///
/// # Errors
/// [`RuntimeError::Unkillable`], or what the kernel says about the directory.
pub(crate) fn clear(id: &ContainerId, path: &str) -> Result<(), RuntimeError> {
    kill(id, path)?;
    let deadline = Instant::now() + PATIENCE;
    for dir in dirs(path).iter().flat_map(|dir| tree(dir)) {
        loop {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    // A process that has ended leaves its cgroup a moment later, and nothing tells when.
                    std::thread::yield_now();
                    kill(id, path)?;
                }
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(RuntimeError::io("delete", &dir)(e)),
                _ => break,
            }
        }
    }
    Ok(())
}
