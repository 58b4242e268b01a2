//! The one way to change the tables.

use std::sync::Arc;

use async_trait::async_trait;
use skep_model::{Timestamp, Version};
use tokio::sync::Mutex;

use crate::{Change, Outdated, Proposal, Store, Tables};

/// Why a proposal was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another manager leads, or none does.
    #[error(
        "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader,
    /// The leader lost its majority or its office after it took the proposal and before it knew what became of it. It may be committed
    /// already, may still be, or never will. A proposal with a [`base`](Proposal::base) can be planned anew without harm: of two
    /// on the same base at most one is applied.
    #[error(
        "The swarm lost its leader while this was being decided. Whether the change was made is not known: look before you repeat it."
    )]
    Unknown,
    /// The log cannot be written any more: this manager must be restarted.
    #[error("the manager's log has failed: {0}; see the daemon's log, and restart it once the cause is gone")]
    Fatal(String),
    /// It was committed, and not applied: something else was committed since it was planned.
    #[error(transparent)]
    Outdated(#[from] Outdated),
}

/// What commits proposals.
#[async_trait]
pub trait Log: Send + Sync {
    /// Commits `proposal` and applies it to this manager's [`Store`]. When it returns, the change is durable on a majority
    /// and visible here.
    ///
    /// # Errors
    /// When it was not committed, or when that is not known.
    async fn propose(&self, proposal: Proposal) -> Result<Version, ProposeError>;
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The function that plans the changes refused.
    #[error(transparent)]
    Refused(E),
    /// The log refused.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Changes the tables, one update at a time: what a planner reads is still true when its changes are applied.
pub struct Writer {
    store: Store,
    log: Arc<dyn Log>,
    turn: Arc<Mutex<()>>,
}

impl Writer {
    /// A writer for `store`, whose proposals `log` commits. There must be one writer per store.
    #[must_use]
    pub fn new(store: Store, log: Arc<dyn Log>) -> Self {
        Self { store, log, turn: Arc::default() }
    }

    /// The store that it writes to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `work` while nothing is being committed, and lets nothing begin before it has ended: what must not be decided halfway.
    pub async fn still<R>(&self, work: impl Future<Output = R>) -> R {
        let _turn = self.turn.lock().await;
        work.await
    }

    /// Lets `plan` read the tables and commits the changes that it returns, all or none. No changes, no commit.
    ///
    /// Safe to cancel: what `plan` has returned is committed all the same, and the next update waits for it. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// What `plan` returns, and then nothing has changed; or that the log did not commit. After [`ProposeError::Unknown`] the change
    /// may show later. The next update is safe all the same: its plan names the version that it read, so that it is
    /// [`Outdated`] when the lost change turns out to be before it in the log.
    pub async fn update<R, E>(
        &self,
        plan: impl FnOnce(&Tables) -> Result<(R, Vec<Change>), E>,
    ) -> Result<R, UpdateError<E>> {
        let turn = self.turn.clone().lock_owned().await;
        let plan = |tables: &Tables| plan(tables).map(|(result, changes)| (result, changes, tables.version()));
        let (result, changes, base) = self.store.view(plan).map_err(UpdateError::Refused)?;
        if changes.is_empty() {
            return Ok(result);
        }
        let proposal = Proposal { base: Some(base), now: Timestamp::now(), changes };
        let log = self.log.clone();
        // A task of its own, which keeps the turn: a caller that goes away must not let the next one plan on tables that are about to
        // change.
        let proposing = tokio::spawn(async move {
            let proposed = log.propose(proposal).await;
            drop(turn);
            proposed
        });
        match proposing.await {
            Ok(proposed) => proposed?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(ProposeError::Fatal("the manager is shutting down".to_owned()).into()),
        };
        Ok(result)
    }
}

/// A log that commits at once and keeps nothing, for tests.
#[cfg(any(test, feature = "fake"))]
#[derive(Debug, Clone)]
pub struct LocalLog(pub Store);

#[cfg(any(test, feature = "fake"))]
#[async_trait]
impl Log for LocalLog {
    async fn propose(&self, proposal: Proposal) -> Result<Version, ProposeError> {
        Ok(self.0.apply(proposal)?)
    }
}
