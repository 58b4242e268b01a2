//! What the managers want of this node, kept on disk: a node restarted with no manager in reach goes on with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_model::{GossipKeys, Member, Network, NetworkId, Node, NodeId, ServiceEntry, ServiceId, Task, TaskId};
use skep_rpc::proto;

use crate::AgentError;
use crate::disk;

/// Everything that a manager has told this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    /// What it should run.
    pub tasks: BTreeMap<TaskId, Task>,
    /// What is published.
    pub services: BTreeMap<ServiceId, ServiceEntry>,
    /// The networks that its tasks are on.
    pub networks: BTreeMap<NetworkId, Network>,
    /// The nodes of the swarm.
    pub members: BTreeMap<NodeId, Member>,
    /// The node itself, as managers know it.
    pub node: Option<Node>,
    /// By which nodes know each other's talk.
    pub gossip_keys: Option<GossipKeys>,
}

impl Assignments {
    /// Takes over what a manager says.
    ///
    /// # Errors
    /// When an object cannot be read; then nothing is changed.
    pub fn apply(&mut self, message: &proto::Assignments) -> Result<(), AgentError> {
        let mut next = self.clone();
        if message.full {
            next = Self { node: next.node, gossip_keys: next.gossip_keys, ..Self::default() };
        }
        put_all(&mut next.tasks, &message.tasks, |t: &Task| t.id.clone())?;
        put_all(&mut next.services, &message.services, |s: &ServiceEntry| s.id.clone())?;
        put_all(&mut next.networks, &message.networks, |n: &Network| n.id.clone())?;
        put_all(&mut next.members, &message.members, |m: &Member| m.node.clone())?;
        remove_all(&mut next.tasks, &message.removed_tasks);
        remove_all(&mut next.services, &message.removed_services);
        remove_all(&mut next.networks, &message.removed_networks);
        remove_all(&mut next.members, &message.removed_members);
        if !message.node.is_empty() {
            next.node = Some(decode(&message.node)?);
        }
        if let Some(message) = &message.gossip_keys {
            next.gossip_keys = Some(decode(&message.keys)?);
        }
        *self = next;
        Ok(())
    }
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, AgentError> {
    skep_rpc::decode(bytes).map_err(|e| AgentError::Garbled(e.to_string()))
}

fn put_all<K: Ord, V: serde::de::DeserializeOwned>(
    map: &mut BTreeMap<K, V>,
    objects: &[bytes::Bytes],
    key: impl Fn(&V) -> K,
) -> Result<(), AgentError> {
    for bytes in objects {
        let object: V = decode(bytes)?;
        map.insert(key(&object), object);
    }
    Ok(())
}

fn remove_all<K: Ord + std::str::FromStr, V>(map: &mut BTreeMap<K, V>, ids: &[String]) {
    for id in ids.iter().filter_map(|id| id.parse().ok()) {
        map.remove(&id);
    }
}

/// The copy on disk.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentsFile(PathBuf);

impl AssignmentsFile {
    /// Below the agent's directory.
    #[must_use]
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("assignments.json"))
    }

    /// What was stored last; nothing when nothing was.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn load(&self) -> Result<Assignments, AgentError> {
        Ok(disk::read_json(&self.0)?.unwrap_or_default())
    }

    /// Stores them, all or nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn store(&self, assignments: &Assignments) -> Result<(), AgentError> {
        disk::write_json(&self.0, assignments)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use skep_model::{GossipKey, Timestamp};

    use super::*;

    #[test]
    fn keys_are_kept_for_nobody_else_to_read_until_there_are_others() {
        let keys =
            GossipKeys { keys: vec![GossipKey { id: 7, secret: [9; 32] }], primary: 7, rotated: Timestamp::UNIX_EPOCH };
        let told = |keys: Option<&GossipKeys>| proto::Assignments {
            full: true,
            gossip_keys: keys.map(|keys| proto::GossipKeys { keys: skep_rpc::encode(keys) }),
            ..Default::default()
        };
        let mut assignments = Assignments::default();
        assignments.apply(&told(Some(&keys))).unwrap();
        // A manager that has none to hand out takes none away.
        assignments.apply(&told(None)).unwrap();
        assert_eq!(assignments.gossip_keys.as_ref(), Some(&keys));

        let dir = tempfile::tempdir().unwrap();
        let file = AssignmentsFile::new(dir.path());
        // What an earlier version has left is open to all.
        std::fs::write(dir.path().join("assignments.tmp"), "").unwrap();
        file.store(&assignments).unwrap();
        assert_eq!(file.load().unwrap(), assignments);
        let mode = std::fs::metadata(dir.path().join("assignments.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
