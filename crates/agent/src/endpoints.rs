//! What every node has said of its endpoints, kept on disk for the next daemon: it must not take the mesh apart before a manager has
//! told it everything anew, and it must do without one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skep_model::{NodeId, OwnerTable};
use skep_netdb::NetDb;

use crate::{AgentError, disk};

/// The tables of all nodes, this one among them.
pub(crate) type Tables = BTreeMap<NodeId, OwnerTable>;

/// The copy on disk.
#[derive(Debug, Clone)]
pub(crate) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Below the agent's directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("endpoints.json"))
    }

    /// What was stored last; nothing when nothing was.
    pub(crate) fn load(&self) -> Result<Tables, AgentError> {
        Ok(disk::read_json(&self.0)?.unwrap_or_default())
    }

    /// Stores what discovery knows now.
    pub(crate) fn store(&self, netdb: &NetDb) -> Result<(), AgentError> {
        let table = |owner: NodeId| netdb.table(&owner).map(|table| (owner, OwnerTable::clone(&table)));
        let tables: Tables = netdb.versions().into_keys().filter_map(table).collect();
        disk::write_json(&self.0, &tables)
    }
}
