//! What committed entries are applied to: the store, in memory. What outlives the process are snapshots and the log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder};
use skep_store::{Store, Tables};

use crate::RaftError;
use crate::fault::Fault;
use crate::log::LogStore;
use crate::snapshot;
use crate::types::{
    Applied, Entry, LogId, Snapshot, SnapshotMeta, StorageError, StorageIoError, StoredMembership, Types,
};
use crate::vault::Vault;

/// The newest snapshot: what is in it and where. Shared with the builder, which replaces it.
type Current = Arc<Mutex<Option<(SnapshotMeta, PathBuf)>>>;

/// Where snapshots are. Clones share it.
#[derive(Clone)]
struct Files {
    dir: PathBuf,
    vault: Vault,
    fault: Fault,
    current: Current,
}

impl Files {
    /// Writes a snapshot, which is the newest one then.
    fn save(&self, meta: &SnapshotMeta, snapshot: &[u8]) -> Result<(), RaftError> {
        let saved = snapshot::save(&self.dir, &self.vault, meta, snapshot);
        let path = saved.map_err(|error| self.fault.note(error))?;
        self.set_current(meta.clone(), path);
        Ok(())
    }

    fn set_current(&self, meta: SnapshotMeta, path: PathBuf) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, path));
    }

    fn current(&self) -> Option<(SnapshotMeta, PathBuf)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state machine.
pub(crate) struct Machine {
    store: Store,
    files: Files,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Fills `store` from the newest snapshot in `dir`, beside the log.
    pub(crate) fn open(dir: &Path, store: Store, log: &LogStore) -> Result<Self, RaftError> {
        let (vault, fault) = (log.vault().clone(), log.fault().clone());
        let files = Files { dir: dir.to_owned(), vault, fault, current: Current::default() };
        let mut machine = Self { store, files, applied: None, membership: StoredMembership::default() };
        if let Some(found) = snapshot::newest(dir, &machine.files.vault, log.purged())? {
            machine.applied = found.meta.last_log_id;
            machine.membership = found.meta.last_membership.clone();
            machine.store.restore(found.tables);
            machine.files.set_current(found.meta, found.path);
        }
        Ok(machine)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let apply = |entry: Entry| {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => Applied::Nothing,
                EntryPayload::Normal(proposal) => {
                    self.store.apply(proposal).map_or(Applied::Outdated, Applied::Version)
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Applied::Nothing
                }
            }
        };
        Ok(entries.into_iter().map(apply).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: self.applied,
            membership: self.membership.clone(),
            // Objects are shared, not copied.
            tables: self.store.view(Tables::clone),
            files: self.files.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<Bytes>) -> Result<(), StorageError> {
        let failed = |why: String| StorageIoError::write_snapshot(Some(meta.signature()), AnyError::error(why));
        let saving = {
            let (files, meta) = (self.files.clone(), meta.clone());
            move || {
                let (inside, tables) = snapshot::decode(&file)?;
                if inside != meta {
                    return Err("it is not the snapshot that was announced".to_owned());
                }
                files.save(&meta, &file).map_err(|why| why.to_string())?;
                Ok(tables)
            }
        };
        let saved = tokio::task::spawn_blocking(saving).await.map_err(|why| failed(why.to_string()))?;
        let tables = saved.map_err(failed)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.store.restore(tables);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let Some((meta, path)) = self.files.current() else {
            return Ok(None);
        };
        let vault = self.files.vault.clone();
        let loading = tokio::task::spawn_blocking(move || snapshot::load(&vault, &path));
        let failed = |why: &dyn std::error::Error| {
            StorageIoError::read_snapshot(Some(meta.signature()), AnyError::error(why.to_string()))
        };
        let snapshot = loading.await.map_err(|why| failed(&why))?.map_err(|why| failed(&why))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(snapshot) }))
    }
}

/// Writes a snapshot of the state at the moment when it was made, while the state goes on.
pub(crate) struct Builder {
    applied: Option<LogId>,
    membership: StoredMembership,
    tables: Tables,
    files: Files,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{}-{:016x}", self.applied.map_or(0, |id| id.index), rand::random::<u64>()),
        };
        let failed = |why: String| StorageIoError::write_snapshot(Some(meta.signature()), AnyError::error(why));
        let building = {
            let (files, meta, tables) = (self.files.clone(), meta.clone(), self.tables.clone());
            move || {
                let snapshot = snapshot::encode(&meta, &tables).map_err(|why| why.to_string())?;
                files.save(&meta, &snapshot).map_err(|why| why.to_string())?;
                Ok(snapshot)
            }
        };
        let built = tokio::task::spawn_blocking(building).await.map_err(|why| failed(why.to_string()))?;
        let snapshot = built.map_err(failed)?;
        Ok(Snapshot { meta, snapshot: Box::new(snapshot) })
    }
}
