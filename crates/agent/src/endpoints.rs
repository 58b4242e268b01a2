//! What this node has told the others of its endpoints, kept on disk for the next daemon.

use std::path::{Path, PathBuf};

use skep_model::OwnerTable;

use crate::{AgentError, disk};

/// The copy on disk.
#[derive(Debug, Clone)]
pub(crate) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Below the agent's directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("endpoints.json"))
    }

    /// What was stored last; nothing when nothing was.
    pub(crate) fn load(&self) -> Result<OwnerTable, AgentError> {
        Ok(disk::read_json(&self.0)?.unwrap_or_default())
    }

    pub(crate) fn store(&self, table: &OwnerTable) -> Result<(), AgentError> {
        disk::write_json(&self.0, table)
    }
}
