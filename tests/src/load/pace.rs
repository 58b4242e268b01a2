//! How long the client itself was held up, on a machine with more to do than it can: that is not the swarm's doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time that the client had no processor. All connections are made on its one thread, so it is theirs too. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    every: Duration,
    last: Instant,
    held_up: Arc<AtomicU64>,
}

impl Pace {
    /// For a client that does something at this interval.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, last: Instant::now(), held_up: Arc::default() }
    }

    /// The interval is over; or should be, and long ago.
    pub(super) fn keep(&mut self) {
        let now = Instant::now();
        self.note(now - self.last);
        self.last = now;
    }

    fn note(&self, since: Duration) {
        let late = u64::try_from(since.saturating_sub(self.every).as_micros()).unwrap_or(u64::MAX);
        self.held_up.fetch_add(late, Ordering::Relaxed);
    }

    /// For how long it was held up in all.
    pub(super) fn held_up(&self) -> Duration {
        Duration::from_micros(self.held_up.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_counts_and_what_is_early_does_not() {
        let pace = Pace::new(Duration::from_millis(5));
        [5, 105, 1, 5, 25].into_iter().for_each(|ms| pace.note(Duration::from_millis(ms)));
        assert_eq!(pace.held_up(), Duration::from_millis(120));
    }
}
