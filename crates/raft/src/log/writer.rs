//! The one thread that writes the log.
//!
//! It takes everything that waits, writes it in order in one transaction, and only when that is on disk tells those who wait. After an
//! error it writes nothing more: what follows would leave a hole.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, mpsc};

use openraft::storage::LogFlushed;
use tokio::sync::oneshot;

use super::Tail;
use super::file::{Encoded, LogFile};
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
pub(super) struct Writer(mpsc::Sender<Op>);

impl Writer {
    pub(super) fn start(file: Arc<LogFile>, tail: Arc<RwLock<Tail>>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || run(&file, &tail, &receiver))?;
        Ok(Self(sender))
    }

    pub(super) fn send(&self, op: Op) {
        if let Err(mpsc::SendError(op)) = self.0.send(op) {
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

fn run(file: &LogFile, tail: &RwLock<Tail>, queue: &mpsc::Receiver<Op>) {
    let mut batch: Vec<Op> = Vec::new();
    let mut failed: Option<String> = None;
    while let Ok(first) = queue.recv() {
        batch.push(first);
        batch.extend(queue.try_iter().take(BATCH));
        if batch.iter().all(|op| matches!(op.waiting, Waiting::Nobody)) {
            continue;
        }
        if failed.is_none() {
            failed = file.write(batch.iter().map(|op| &op.change)).err().map(|error| error.to_string());
        }
        if failed.is_none() {
            forget_written(tail, &batch);
        }
        for op in batch.drain(..) {
            op.answer(failed.clone().map_or(Ok(()), |why| Err(io::Error::other(why))));
        }
    }
    if failed.is_none() && !batch.is_empty() {
        // At the end what is left is what was committed last; without it the next start finds out by itself.
        if let Err(error) = file.write(batch.iter().map(|op| &op.change)) {
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
