//! What committed entries are applied to: the store, in memory. What outlives the process are snapshots and the log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder};
use skep_store::{Store, Tables};

use crate::RaftError;
use crate::snapshot;
use crate::types::{
    Applied, Entry, LogId, Snapshot, SnapshotMeta, StorageError, StorageIoError, StoredMembership, Types,
};

/// The newest snapshot: what is in it and where. Shared with the builder, which replaces it.
type Current = Arc<Mutex<Option<(SnapshotMeta, PathBuf)>>>;

/// The state machine.
pub(crate) struct Machine {
    store: Store,
    dir: PathBuf,
    applied: Option<LogId>,
    membership: StoredMembership,
    current: Current,
}

impl Machine {
    /// Fills `store` from the newest snapshot in `dir`. `purged` is the index up to which the log is gone.
    pub(crate) fn open(dir: &Path, store: Store, purged: Option<u64>) -> Result<Self, RaftError> {
        let mut machine = Self {
            store,
            dir: dir.to_owned(),
            applied: None,
            membership: StoredMembership::default(),
            current: Current::default(),
        };
        if let Some(found) = snapshot::newest(dir, purged)? {
            machine.applied = found.meta.last_log_id;
            machine.membership = found.meta.last_membership.clone();
            machine.store.restore(found.tables);
            machine.current = Arc::new(Mutex::new(Some((found.meta, found.path))));
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
            dir: self.dir.clone(),
            current: self.current.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<Bytes>) -> Result<(), StorageError> {
        let failed = |why: String| StorageIoError::write_snapshot(Some(meta.signature()), AnyError::error(why));
        let saving = {
            let (dir, meta) = (self.dir.clone(), meta.clone());
            move || {
                let (inside, tables) = snapshot::decode(&file)?;
                if inside != meta {
                    return Err("it is not the snapshot that was announced".to_owned());
                }
                let path = snapshot::save(&dir, &meta, &file).map_err(|why| why.to_string())?;
                Ok((path, tables))
            }
        };
        let saved = tokio::task::spawn_blocking(saving).await.map_err(|why| failed(why.to_string()))?;
        let (path, tables) = saved.map_err(failed)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.store.restore(tables);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta.clone(), path));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let Some((meta, path)) = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(None);
        };
        let file = tokio::fs::read(&path).await.map_err(|why| {
            let why = AnyError::error(format!("{}: {why}", path.display()));
            StorageIoError::read_snapshot(Some(meta.signature()), why)
        })?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(file.into()) }))
    }
}

/// Writes a snapshot of the state at the moment when it was made, while the state goes on.
pub(crate) struct Builder {
    applied: Option<LogId>,
    membership: StoredMembership,
    tables: Tables,
    dir: PathBuf,
    current: Current,
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
            let (dir, meta, tables) = (self.dir.clone(), meta.clone(), self.tables.clone());
            move || {
                let file = snapshot::encode(&meta, &tables)?;
                std::io::Result::Ok((snapshot::save(&dir, &meta, &file)?, file))
            }
        };
        let built = tokio::task::spawn_blocking(building).await.map_err(|why| failed(why.to_string()))?;
        let (path, file) = built.map_err(|why| failed(why.to_string()))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta.clone(), path));
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}
