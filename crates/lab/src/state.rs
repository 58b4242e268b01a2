//! What is written down about a lab, and where everything of it lies.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::lab::LabConfig;
use crate::place::{Families, MAX_NODES, Place};

const RUN_ROOT: &str = "/run/skep-lab";
const DATA_ROOT: &str = "/var/lib/skep-lab";
const FILE: &str = "state.json";
const LOCK: &str = ".lock";

/// A lab, as `state.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) nodes: u8,
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    /// Third byte of every IPv4 address, fourth group of every IPv6 address: no two labs have the same.
    pub(crate) subnet: u8,
    #[serde(default)]
    pub(crate) families: Families,
    #[serde(default)]
    pub(crate) daemon_flags: Vec<String>,
}

impl State {
    /// The addresses of a place on its two interfaces, of the family by which the swarm knows its nodes.
    pub(crate) fn known_by(&self, place: Place) -> [IpAddr; 2] {
        match self.families {
            Families::Both => place.ipv4(self.subnet).map(IpAddr::V4),
            Families::Ipv6 => place.ipv6(self.subnet).map(IpAddr::V6),
        }
    }

    /// The further flags of a node's daemon.
    pub(crate) fn flags_of(&self, node: u8) -> impl Iterator<Item = String> {
        let address = self.known_by(Place::Node(node))[0].to_string();
        self.daemon_flags.iter().map(move |flag| flag.replace("{address}", &address))
    }

    /// Writes down a new lab. Its directory appears at once with its state in it, so that a crash never leaves one without.
    pub(crate) fn create(config: LabConfig) -> Result<Self, LabError> {
        let LabConfig { name, nodes, binary, data_dir: data, families, daemon_flags } = config;
        check_name(&name)?;
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(LabError::Nodes(nodes));
        }
        fs::create_dir_all(RUN_ROOT).map_err(|e| LabError::file("create", RUN_ROOT, e))?;
        let lock_path = Path::new(RUN_ROOT).join(LOCK);
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(|e| LabError::file("open", &lock_path, e))?;
        lock.lock().map_err(|e| LabError::file("lock", &lock_path, e))?;
        if run_dir(&name).exists() {
            return Err(LabError::Exists(name));
        }
        let taken: Vec<u8> = names()?.iter().filter_map(|n| Self::read(n).ok()).map(|s| s.subnet).collect();
        let subnet = (0..=u8::MAX).find(|x| !taken.contains(x)).ok_or(LabError::NoNetworkLeft)?;
        let data_dir = data.unwrap_or_else(|| default_data_dir(&name));
        let state = Self { name, nodes, binary, data_dir, subnet, families, daemon_flags };
        state.write()?;
        Ok(state)
    }

    fn write(&self) -> Result<(), LabError> {
        let draft = Path::new(RUN_ROOT).join(format!(".{}.draft", self.name));
        let failed = |e| LabError::file("write", &draft, e);
        fs::create_dir_all(&draft).map_err(failed)?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        fs::write(draft.join(FILE), text).map_err(failed)?;
        fs::rename(&draft, self.run_dir()).map_err(failed)
    }

    /// Reads what was written down about a lab.
    pub(crate) fn read(name: &str) -> Result<Self, LabError> {
        check_name(name)?;
        let path = run_dir(name).join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(LabError::Missing(name.to_owned())),
            Err(e) => return Err(LabError::file("read", path, e)),
        };
        serde_json::from_slice(&text).map_err(|e| LabError::file("read", path, e.into()))
    }

    /// What can be said about a lab of which only the name is known.
    pub(crate) fn unknown(name: &str) -> Result<Self, LabError> {
        check_name(name)?;
        let data_dir = default_data_dir(name);
        let name = name.to_owned();
        Ok(Self {
            name,
            nodes: MAX_NODES,
            binary: PathBuf::new(),
            data_dir,
            subnet: 0,
            families: Families::Both,
            daemon_flags: Vec::new(),
        })
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        (1..=self.nodes).map(Place::Node).chain([Place::Client])
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        run_dir(&self.name)
    }

    /// Runtime directory of a node: socket, log, pid file; below `run`, what the daemon makes.
    pub(crate) fn node_dir(&self, node: u8) -> PathBuf {
        self.run_dir().join(Place::Node(node).to_string())
    }

    pub(crate) fn exec_root(&self, node: u8) -> PathBuf {
        self.node_dir(node).join("run")
    }

    pub(crate) fn data_root(&self, node: u8) -> PathBuf {
        self.data_dir.join(Place::Node(node).to_string())
    }

    pub(crate) fn socket(&self, node: u8) -> PathBuf {
        self.node_dir(node).join("skep.sock")
    }

    pub(crate) fn log(&self, node: u8) -> PathBuf {
        self.node_dir(node).join("daemon.log")
    }

    pub(crate) fn net_path(&self, place: &str) -> PathBuf {
        self.run_dir().join("net").join(place)
    }

    pub(crate) fn uts_path(&self, place: &str) -> PathBuf {
        self.run_dir().join("uts").join(place)
    }

    /// Parent of all control groups of the lab, from the root of each hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("/skep-lab-{}", self.name)
    }

    pub(crate) fn node_cgroup(&self, node: u8) -> String {
        format!("{}/{}", self.cgroup(), Place::Node(node))
    }
}

/// Labs that are written down, sorted.
pub(crate) fn names() -> Result<Vec<String>, LabError> {
    let entries = match fs::read_dir(RUN_ROOT) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(LabError::file("list", RUN_ROOT, e)),
    };
    let found = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = found.filter(|n| check_name(n).is_ok() && run_dir(n).join(FILE).exists()).collect();
    names.sort();
    Ok(names)
}

fn run_dir(name: &str) -> PathBuf {
    Path::new(RUN_ROOT).join(name)
}

fn default_data_dir(name: &str) -> PathBuf {
    Path::new(DATA_ROOT).join(name)
}

fn check_name(name: &str) -> Result<(), LabError> {
    let plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if plain && (1..=32).contains(&name.len()) && !name.starts_with('-') {
        Ok(())
    } else {
        Err(LabError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for wrong in ["", "..", "a/b", ".lock", "A", "-x", "a b", &"a".repeat(33)] {
            assert!(matches!(check_name(wrong), Err(LabError::Name(_))), "{wrong}");
        }
        for right in ["lab", "demo-2", "0", &"a".repeat(32)] {
            check_name(right).unwrap();
        }
    }
}
