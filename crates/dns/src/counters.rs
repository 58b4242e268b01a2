//! What a node's resolvers have done since its daemon started.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a node's resolvers have done.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Questions for names of the swarm.
    pub answered: u64,
    /// Questions that another resolver was asked.
    pub forwarded: u64,
    /// Of these, those that none has answered.
    pub failed: u64,
    /// Questions that could not be read, and those of a task that asked too many at once.
    pub refused: u64,
}

impl Counters {
    /// What they say now.
    #[must_use]
    pub fn read(&self) -> Counted {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            answered: now(&self.answered),
            forwarded: now(&self.forwarded),
            failed: now(&self.failed),
            refused: now(&self.refused),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
