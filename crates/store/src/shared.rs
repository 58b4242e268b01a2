//! The tables, shared by everything that runs in a manager.

use std::sync::{Arc, PoisonError, RwLock};

use skep_model::Version;
use tokio::sync::broadcast;

use crate::{Event, Outdated, Proposal, Tables};

/// How many batches of events a slow watcher may be behind before it must read everything anew.
const BACKLOG: usize = 4096;

/// The shared tables. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    tables: Arc<RwLock<Tables>>,
    /// `None` says that everything was replaced by a snapshot.
    events: broadcast::Sender<Option<Arc<[Event]>>>,
}

impl Default for Store {
    fn default() -> Self {
        Self { tables: Arc::default(), events: broadcast::channel(BACKLOG).0 }
    }
}

impl Store {
    /// Reads. `read` must be quick and must not block: writers wait for it.
    pub fn view<R>(&self, read: impl FnOnce(&Tables) -> R) -> R {
        read(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears of every change from now on. Watch first, then read: nothing is missed between the two.
    #[must_use]
    pub fn watch(&self) -> Events {
        Events(self.events.subscribe())
    }

    /// Applies a proposal that the log has committed. For the log's state machine only; everybody else uses a [`crate::Writer`].
    ///
    /// # Errors
    /// [`Outdated`] when it was planned on another version of the tables; nothing has changed then, and nobody is told.
    pub fn apply(&self, proposal: Proposal) -> Result<Version, Outdated> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let events = tables.apply(proposal)?;
        let version = tables.version();
        // Sent under the lock, so that watchers hear of changes in the order in which they were made. No watcher is no error.
        let _ = self.events.send(Some(events.into()));
        Ok(version)
    }

    /// Replaces everything by a snapshot. Watchers are told that they lag.
    pub fn restore(&self, snapshot: Tables) {
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let _ = self.events.send(None);
    }
}

/// The watcher has missed events: it must read everything anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

/// A stream of changes.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Option<Arc<[Event]>>>);

impl Events {
    /// The next changes, those of one proposal together. `None` when the store is gone. Safe to cancel.
    ///
    /// # Errors
    /// [`Lagged`] when events were missed; the next call goes on with the oldest that is left.
    pub async fn next(&mut self) -> Option<Result<Arc<[Event]>, Lagged>> {
        match self.0.recv().await {
            Ok(Some(events)) => Some(Ok(events)),
            Ok(None) | Err(broadcast::error::RecvError::Lagged(_)) => Some(Err(Lagged)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
