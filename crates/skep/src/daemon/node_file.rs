//! What a node remembers of its membership: `swarm.json` below the data root.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use skep_model::{ClusterId, NodeId};

/// Membership of this node in a swarm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The swarm.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
    /// The address that others reach it at.
    pub(crate) addr: IpAddr,
    /// Managers that it may turn to: `host:port`.
    pub(crate) managers: Vec<String>,
    /// UDP port of the overlay.
    pub(crate) data_path_port: u16,
    /// Where its manager port is when it becomes a manager.
    pub(crate) listen: SocketAddr,
    /// Where other nodes reach that port.
    pub(crate) advertise_port: u16,
    /// Only on a manager.
    pub(crate) manager: Option<ManagerSeat>,
}

/// How builds without certificates wrote it.
#[derive(Deserialize)]
struct WithNodeKey {
    #[serde(rename = "node_key")]
    _node_key: serde::de::IgnoredAny,
}

/// What a manager remembers of being one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ManagerSeat {
    /// Its number in the Raft group.
    pub(crate) raft_id: u64,
    /// Where its RPC port listens.
    pub(crate) listen: SocketAddr,
    /// Where other managers and nodes reach that port.
    pub(crate) advertise: SocketAddr,
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct NodeFile {
    path: PathBuf,
    /// Held by whoever writes it.
    turn: Arc<Mutex<()>>,
}

impl NodeFile {
    pub(crate) fn new(data_root: &Path) -> Self {
        Self { path: data_root.join("swarm.json"), turn: Arc::default() }
    }

    /// What was stored; `None` when the node is in no swarm.
    pub(crate) fn load(&self) -> Result<Option<Membership>> {
        match fs::read(&self.path) {
            Ok(bytes) => self.parse(&bytes).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| self.path.display().to_string()),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Membership> {
        if serde_json::from_slice::<WithNodeKey>(bytes).is_ok() {
            bail!(
                "{} was written by an early build of skep that had no certificates yet: move it away, with the directories raft and \
                 agent beside it, and join the swarm again",
                self.path.display()
            );
        }
        serde_json::from_slice(bytes)
            .with_context(|| format!("{} is damaged; move it away and join the swarm again", self.path.display()))
    }

    /// Stores it, all or nothing, readable by root only.
    pub(crate) fn store(&self, membership: &Membership) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(membership)
    }

    fn replace(&self, membership: &Membership) -> Result<()> {
        let aside = self.path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&aside)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&serde_json::to_vec(membership)?)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)
        };
        write().with_context(|| self.path.display().to_string())
    }

    /// Notes which managers there are, if `node` is still a member: a late word must not bring back what was left.
    pub(crate) fn remember(&self, node: &NodeId, managers: Vec<String>) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.load()? {
            Some(known) if known.node == *node => self.replace(&Membership { managers, ..known }),
            _ => Ok(()),
        }
    }

    /// The node is in no swarm any more.
    pub(crate) fn remove(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| self.path.display().to_string()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_without_certificates_wrote_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodeFile::new(dir.path());
        let membership = Membership {
            cluster: ClusterId::random(),
            node: NodeId::random(),
            addr: IpAddr::from([192, 0, 2, 1]),
            managers: Vec::new(),
            data_path_port: 4789,
            listen: "0.0.0.0:2377".parse().unwrap(),
            advertise_port: 2377,
            manager: None,
        };
        file.store(&membership).unwrap();
        assert_eq!(file.load().unwrap().unwrap().node, membership.node);
        let mut old = serde_json::to_value(&membership).unwrap();
        old["node_key"] = "00".repeat(32).into();
        fs::write(&file.path, old.to_string()).unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("no certificates yet") && error.contains("join the swarm again"), "{error}");
    }
}
