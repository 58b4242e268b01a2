//! What a node's daemon and its containers hold of the machine, so that it can be seen whether that grows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Swarm;

/// How many there are of each kind of thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings(BTreeMap<String, usize>);

impl Holdings {
    /// The kinds of which there are more than there were, with both numbers.
    #[must_use]
    pub fn more_than(&self, before: &Self) -> Vec<String> {
        let had = |kind: &String| before.0.get(kind).copied().unwrap_or_default();
        let grown = self.0.iter().filter(|(kind, count)| **count > had(kind));
        grown.map(|(kind, count)| format!("{kind}: {} before, {count} now", had(kind))).collect()
    }

    fn count(&mut self, kind: impl Into<String>, count: usize) {
        *self.0.entry(kind.into()).or_default() += count;
    }
}

/// Memory that belongs to a process alone or is shared by others with it, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// All of it that is in the machine's memory.
    pub resident: u64,
    /// What it would give back if it ended, and its share of the rest.
    pub share: u64,
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// How many lines a table of the kernel has without its titles, and without connections that are over and whose number is not given out again
/// for a while (TIME_WAIT).
fn lines(path: String) -> usize {
    let over = |line: &&str| line.split_whitespace().nth(3) == Some("06");
    text(path).lines().skip(1).filter(|line| !over(line)).count()
}

/// How many files and directories there are in and below `dir`.
fn files(dir: &Path) -> usize {
    let one = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => 1 + files(&entry.path()),
        _ => 1,
    };
    fs::read_dir(dir).into_iter().flatten().flatten().map(one).sum()
}

impl Swarm {
    /// What the daemon of a node and the containers there hold.
    ///
    /// # Panics
    /// When no daemon runs there.
    #[must_use]
    pub fn holdings(&self, node: u8) -> Holdings {
        let daemon = self.lab.daemon_pid(node).expect("its daemon runs");
        let (data, run) = (self.lab.data_root(node), self.lab.exec_root(node));
        let mut held = Holdings(BTreeMap::new());
        for fd in fs::read_dir(format!("/proc/{daemon}/fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(fd.path()).unwrap_or_default().to_string_lossy().into_owned();
            // `socket:[123]` and `pipe:[123]` by their kind, files all together.
            let kind = if target.starts_with('/') { "file" } else { target.split(":[").next().unwrap_or("other") };
            held.count(format!("open by the daemon: {kind}"), 1);
        }
        // Some come when there is much to do, and go after a while.
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).map_or(0, Iterator::count);
        held.count("threads of the daemon beyond some", threads.saturating_sub(64));
        let mounts = text("/proc/self/mountinfo");
        let places = [&data, &run].map(|dir| dir.display().to_string());
        let below = |line: &&str| places.iter().any(|dir| line.contains(&format!("{dir}/")));
        held.count("mounts", mounts.lines().filter(below).count());
        held.count("control groups", self.lab.control_groups(node).len());
        held.count("processes", self.lab.processes(node).len());
        held.count("devices of the node", lines(format!("/proc/{daemon}/net/dev")));
        for sockets in ["unix", "tcp", "tcp6", "udp", "udp6", "raw", "netlink", "packet"] {
            held.count(format!("sockets of the node: {sockets}"), lines(format!("/proc/{daemon}/net/{sockets}")));
        }
        for dir in [&data, &run] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                // What managers have on their disk grows and is cut back by itself.
                if entry.file_name() != "raft" {
                    held.count(format!("files in {}", entry.path().display()), files(&entry.path()));
                }
            }
        }
        held
    }

    /// The memory of a node's daemon.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn memory(&self, node: u8) -> Memory {
        memory_of(self.lab.daemon_pid(node).expect("its daemon runs"))
    }

    /// The memory of the shims of a node's containers, taken together, and how many there are.
    #[must_use]
    pub fn shims(&self, node: u8) -> (usize, Memory) {
        let root = self.lab.data_root(node).display().to_string();
        let pids = Command::new("pgrep").args(["-f", &format!("shim {root}/containers/")]).output();
        let pids = pids.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let all: Vec<Memory> = pids.lines().filter_map(|pid| pid.parse().ok()).map(memory_of).collect();
        let sum = |of: fn(&Memory) -> u64| all.iter().map(of).sum();
        (all.len(), Memory { resident: sum(|m| m.resident), share: sum(|m| m.share) })
    }
}

fn memory_of(pid: i32) -> Memory {
    let rollup = text(format!("/proc/{pid}/smaps_rollup"));
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    Memory { resident: field("Rss:"), share: field("Pss:") }
}
