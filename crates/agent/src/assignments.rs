//! What the managers want of this node, kept on disk: a node restarted with no manager in reach goes on with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_model::{
    Config, ConfigId, GossipKeys, Member, Network, NetworkId, Node, NodeId, Secret, SecretId, ServiceEntry, ServiceId,
    Task, TaskId,
};
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
    /// Secrets of its tasks. Not on disk: a daemon that has just started has none until a manager hands them over.
    #[serde(skip)]
    pub secrets: BTreeMap<SecretId, Secret>,
    /// Configs of its tasks, likewise.
    #[serde(skip)]
    pub configs: BTreeMap<ConfigId, Config>,
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
        let objects = |kept: &[proto::Kept]| kept.iter().map(|kept| kept.object.clone()).collect::<Vec<_>>();
        put_all(&mut next.secrets, &objects(&message.secrets), |s: &Secret| s.id.clone())?;
        put_all(&mut next.configs, &objects(&message.configs), |c: &Config| c.id.clone())?;
        remove_all(&mut next.secrets, &message.removed_secrets);
        remove_all(&mut next.configs, &message.removed_configs);
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

    use skep_model::{Data, DataSpec, GossipKey, Meta, Templating, Timestamp};

    use super::*;

    #[test]
    fn secrets_are_never_written_to_the_disk_nor_shown() {
        let spec = DataSpec {
            name: "key".parse().unwrap(),
            labels: BTreeMap::new(),
            data: Data(b"hush".to_vec()),
            templating: Templating::None,
        };
        let secret = Secret { id: SecretId::random(), meta: Meta::new(Timestamp::UNIX_EPOCH), spec };
        let kept = proto::Kept { object: skep_rpc::encode(&secret) };
        let message = proto::Assignments { full: true, secrets: vec![kept], ..Default::default() };
        assert!(!format!("{message:?}").contains(&secret.spec.data.to_base64()), "{message:?}");
        let mut assignments = Assignments::default();
        assignments.apply(&message).unwrap();
        assert_eq!(assignments.secrets.get(&secret.id), Some(&secret));
        let dir = tempfile::tempdir().unwrap();
        let file = AssignmentsFile::new(dir.path());
        file.store(&assignments).unwrap();
        let text = std::fs::read_to_string(dir.path().join("assignments.json")).unwrap();
        assert!(!text.contains(&secret.spec.data.to_base64()), "{text}");
        assert_eq!(file.load().unwrap().secrets, BTreeMap::new());
        let removed_secrets = vec![secret.id.to_string()];
        assignments.apply(&proto::Assignments { removed_secrets, ..Default::default() }).unwrap();
        assert_eq!(assignments, Assignments::default());
    }

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
