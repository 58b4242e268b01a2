//! The one thread that writes the log.
//!
//! It takes everything that waits, writes it in order in one transaction, and only when that is on disk tells those who wait. After an
//! error it writes nothing more: what follows would leave a hole.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use openraft::storage::LogFlushed;
use tokio::sync::{mpsc, oneshot};

use super::Tail;
use super::file::{Encoded, LogFile};
use crate::RaftError;
use crate::fault::Fault;
use crate::types::{LogId, Types, Vote};

/// How many operations go into one transaction at most.
const BATCH: usize = 256;

type Done = oneshot::Sender<io::Result<()>>;

/// A change of the file.
pub(crate) enum Change {
    /// These entries follow; `last` is the last log id then, as in the others.
    Append { entries: Vec<Encoded>, last: Option<LogId> },
    /// The entries from an index on are gone.
    Truncate { from: u64, last: Option<LogId> },
    /// The entries up to an index are gone.
    Purge { upto: LogId, last: Option<LogId> },
    /// Whom the member has voted for.
    Vote(Vote),
    /// The group's identity.
    Group(u64),
    /// What is committed. Not worth a transaction of its own: it is written with the next of the others.
    Committed(LogId),
}

/// Something to write, and who waits for it.
pub(super) struct Op {
    pub(super) change: Change,
    pub(super) waiting: Waiting,
}

/// Who is told when it is on disk.
pub(super) enum Waiting {
    Nobody,
    Openraft(LogFlushed<Types>),
    Caller(Done),
}

impl Op {
    fn answer(self, result: io::Result<()>) {
        match self.waiting {
            Waiting::Nobody => {}
            Waiting::Openraft(callback) => callback.log_io_completed(result),
            // Who does not wait any more has stopped.
            Waiting::Caller(done) => drop(done.send(result)),
        }
    }
}

/// Sends to the thread. The thread ends, after having written everything, when the last clone is gone.
#[derive(Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Op>);

impl Writer {
    pub(super) fn start(mut batches: Batches) -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let run = move || {
            while let Some(first) = receiver.blocking_recv() {
                batches.take(first, &mut receiver);
                batches.write();
            }
            batches.end();
        };
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// Writes in a task instead, each time after as long as `delay` says: for a disk in memory and a clock that tests turn.
    #[cfg(test)]
    pub(super) fn start_simulated(
        mut batches: Batches,
        mut delay: impl FnMut() -> std::time::Duration + Send + 'static,
    ) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(first) = receiver.recv().await {
                tokio::time::sleep(delay()).await;
                batches.take(first, &mut receiver);
                batches.write();
            }
            batches.end();
        });
        Self(sender)
    }

    pub(super) fn send(&self, op: Op) {
        if let Err(mpsc::error::SendError(op)) = self.0.send(op) {
            op.answer(Err(gone()));
        }
    }

    /// Sends and waits until it is on disk.
    pub(super) async fn durable(&self, change: Change) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(Op { change, waiting: Waiting::Caller(done) });
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that writes the log is gone")
}

/// What is written together.
pub(super) struct Batches {
    file: Arc<LogFile>,
    tail: Arc<RwLock<Tail>>,
    fault: Fault,
    waiting: Vec<Op>,
    failed: Option<RaftError>,
}

impl Batches {
    pub(super) fn new(file: Arc<LogFile>, tail: Arc<RwLock<Tail>>, fault: Fault) -> Self {
        Self { file, tail, fault, waiting: Vec::new(), failed: None }
    }

    /// Takes an operation and what has gathered behind it.
    fn take(&mut self, first: Op, behind: &mut mpsc::UnboundedReceiver<Op>) {
        self.waiting.push(first);
        self.waiting.extend(std::iter::from_fn(|| behind.try_recv().ok()).take(BATCH));
    }

    /// Writes what was added and tells those who wait, if anybody does.
    fn write(&mut self) {
        if self.waiting.iter().all(|op| matches!(op.waiting, Waiting::Nobody)) {
            return;
        }
        if self.failed.is_none() {
            let written = self.file.write(self.waiting.iter().map(|op| &op.change));
            self.failed = written.err().map(|error| self.fault.note(error));
        }
        if self.failed.is_none() {
            forget_written(&self.tail, &self.waiting);
        }
        for op in self.waiting.drain(..) {
            op.answer(self.failed.clone().map_or(Ok(()), |why| Err(io::Error::other(why))));
        }
    }

    /// At the end what is left is what was committed last; without it the next start finds out by itself.
    fn end(self) {
        if self.failed.is_none()
            && !self.waiting.is_empty()
            && let Err(error) = self.file.write(self.waiting.iter().map(|op| &op.change))
        {
            tracing::warn!(%error, "cannot note in the log what was committed last");
        }
    }
}

/// Entries that are in the file need not be kept in memory.
fn forget_written(tail: &RwLock<Tail>, batch: &[Op]) {
    let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
    for op in batch {
        let Change::Append { entries, .. } = &op.change else { continue };
        for written in entries {
            // Unless it was truncated and appended anew while this was being written.
            if tail.pending.get(&written.index).is_some_and(|entry| entry.log_id == written.id) {
                tail.pending.remove(&written.index);
            }
        }
    }
}
