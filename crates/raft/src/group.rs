//! The group's identity: a random number, made with the group and again when one member goes on alone.
//!
//! It is on every message between members. Who has another one, from before a recovery or from another swarm, is refused: neither
//! its votes nor its entries are looked at. A member that is in no group yet takes the identity of the leader that calls it first.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::RaftError;
use crate::log::LogStore;

/// A message and the group that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) group: u64,
    pub(crate) body: T,
}

/// Why a message from another group is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("this manager belongs to another group of managers: it was recovered alone, or is of another swarm")]
    Other,
    #[error("this manager is in no group yet")]
    Nobody,
    #[error("{0}")]
    Stopped(RaftError),
}

/// A member's group. Clones share it.
#[derive(Clone)]
pub(crate) struct Group(Arc<Mutex<Inner>>);

struct Inner {
    id: Option<u64>,
    /// Gone once the member has been shut down: it would keep the file open.
    log: Option<LogStore>,
}

impl Group {
    /// As the log says.
    pub(crate) fn of(log: &LogStore) -> Self {
        Self(Arc::new(Mutex::new(Inner { id: log.group(), log: Some(log.clone()) })))
    }

    /// The identity, once there is one.
    pub(crate) fn id(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id
    }

    /// Gives the member a new identity of its own.
    pub(crate) async fn found(&self) -> Result<(), RaftError> {
        self.set(rand::random()).await
    }

    /// Checks the identity on a vote.
    pub(crate) fn check(&self, id: u64) -> Result<(), Stranger> {
        match self.id() {
            Some(own) if own == id => Ok(()),
            Some(_) => Err(Stranger::Other),
            None => Err(Stranger::Nobody),
        }
    }

    /// Checks the identity on what a leader sends; a member that has none takes it.
    pub(crate) async fn check_or_join(&self, id: u64) -> Result<(), Stranger> {
        match self.check(id) {
            Err(Stranger::Nobody) => self.set(id).await.map_err(Stranger::Stopped),
            checked => checked,
        }
    }

    async fn set(&self, id: u64) -> Result<(), RaftError> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner).log.clone();
        let mut log = log.ok_or_else(|| RaftError::stopped(&"it was shut down"))?;
        log.set_group(id).await.map_err(|why| RaftError::stopped(&why))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id = Some(id);
        Ok(())
    }

    /// Lets go of the log.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).log = None;
    }
}
