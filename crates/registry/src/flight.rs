//! A pull under way: what has happened so far for whoever asks later, and one outcome for all who wait.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use skep_runtime::images::{Digest, Held};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::error::RegistryError;

/// What comes of a pull.
pub type Outcome = Result<Arc<Held>, Arc<RegistryError>>;

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// The store has it.
    Exists,
    /// It will be downloaded.
    Queued,
    /// It comes.
    Downloading {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is there, and is what it should be.
    Downloaded,
    /// It is unpacked.
    Extracting {
        /// Compressed bytes that are done.
        done: u64,
        /// Compressed bytes in all.
        total: u64,
    },
    /// It is in the store.
    Complete,
}

/// What happens during a pull, in the order of happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The registry has the image.
    Found {
        /// `library/nginx`.
        repository: String,
        /// The tag or digest that was asked for.
        wanted: String,
    },
    /// A layer is further than before.
    Layer {
        /// The first digits of its digest.
        id: String,
        /// How far.
        state: LayerState,
    },
    /// The image is in the store, under this digest of the registry's.
    Pulled {
        /// The digest.
        digest: Digest,
        /// Whether the store had it under the same name before.
        news: News,
    },
}

/// Whether a pull has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The store had the image under this name.
    UpToDate,
    /// It is new, or the name is.
    Newer,
}

#[derive(Debug, Default)]
struct Told {
    /// Of each layer the newest.
    events: Vec<PullEvent>,
    listeners: Vec<UnboundedSender<PullEvent>>,
}

/// What has happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Told>>);

impl Log {
    pub(crate) fn tell(&self, event: PullEvent) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        let same = |before: &&mut PullEvent| match (&**before, &event) {
            (PullEvent::Layer { id: before, .. }, PullEvent::Layer { id, .. }) => before == id,
            _ => false,
        };
        match told.events.iter_mut().find(same) {
            Some(before) => *before = event,
            None => told.events.push(event),
        }
    }

    pub(crate) fn layer(&self, id: &str, state: LayerState) {
        self.tell(PullEvent::Layer { id: id.to_owned(), state });
    }

    fn listen(&self) -> UnboundedReceiver<PullEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &told.events {
            // The receiver is in this function.
            let _ = sender.send(event.clone());
        }
        told.listeners.push(sender);
        receiver
    }
}

/// A pull that others may join.
pub(crate) struct Flight {
    log: Log,
    /// `None` when it ended before anybody could join.
    outcome: Option<WeakShared<BoxFuture<'static, Outcome>>>,
}

impl Flight {
    /// Begins one. It goes on as long as somebody waits for it.
    pub(crate) fn begin(log: Log, work: BoxFuture<'static, Outcome>) -> (Self, Pulling) {
        let outcome = work.shared();
        let events = log.listen();
        (Self { log, outcome: outcome.downgrade() }, Pulling { events, outcome, ended: None })
    }

    /// Joins it; `None` when it has ended or nobody waits for it any more.
    pub(crate) fn join(&self) -> Option<Pulling> {
        let outcome = self.outcome.as_ref()?.upgrade().filter(|outcome| outcome.peek().is_none())?;
        Some(Pulling { events: self.log.listen(), outcome, ended: None })
    }
}

/// A pull as somebody waits for it. When nobody does any more, it ends.
pub struct Pulling {
    events: UnboundedReceiver<PullEvent>,
    outcome: Shared<BoxFuture<'static, Outcome>>,
    ended: Option<Outcome>,
}

impl Pulling {
    /// What happens next; `None` when the pull has ended.
    pub async fn next(&mut self) -> Option<PullEvent> {
        if self.ended.is_none() {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Some(event),
                outcome = &mut self.outcome => self.ended = Some(outcome),
            }
        }
        self.events.try_recv().ok()
    }

    /// What has come of it. The image is held as long as the result lives.
    ///
    /// # Errors
    /// Why it could not be pulled.
    pub async fn outcome(self) -> Outcome {
        match self.ended {
            Some(outcome) => outcome,
            None => self.outcome.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(id: &str, state: LayerState) -> PullEvent {
        PullEvent::Layer { id: id.to_owned(), state }
    }

    #[tokio::test]
    async fn whoever_joins_later_is_told_what_has_happened() {
        let log = Log::default();
        log.layer("a", LayerState::Queued);
        log.layer("b", LayerState::Queued);
        log.layer("a", LayerState::Complete);
        let work = async { Err(Arc::new(RegistryError::BrokenOff("test".into()))) };
        let (flight, mut first) = Flight::begin(log.clone(), work.boxed());
        assert_eq!(first.next().await, Some(layer("a", LayerState::Complete)));
        let mut second = flight.join().unwrap();
        log.layer("b", LayerState::Exists);
        for expected in
            [layer("a", LayerState::Complete), layer("b", LayerState::Queued), layer("b", LayerState::Exists)]
        {
            assert_eq!(second.next().await, Some(expected));
        }
        assert_eq!(second.next().await, None);
        assert!(second.outcome().await.is_err());
        assert!(flight.join().is_none(), "it has ended, and another try is another flight");
    }
}
