//! Which other members answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A member that has not answered for so long counts as out of reach. The leader asks ten times a second.
const WINDOW: Duration = Duration::from_millis(1500);

/// Whether a member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It answered within the last 1.5 seconds.
    Reachable,
    /// It did not.
    Unreachable,
    /// This member does not know: only the leader asks all the others.
    Unknown,
}

/// When each other member answered last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<BTreeMap<u64, Instant>>>);

impl Heard {
    /// The member has just answered.
    pub(crate) fn from(&self, member: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(member, Instant::now());
    }

    /// Whether the member answered lately.
    pub(crate) fn lately(&self, member: u64) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&member).is_some_and(|last| last.elapsed() < WINDOW)
    }
}
