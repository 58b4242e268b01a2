//! The log and the vote, as openraft wants them kept.
//!
//! One thread writes (see [`writer`]); what it has not written yet is in [`Tail`], so that an entry can be read as soon as it is appended.

#![allow(clippy::result_large_err, reason = "the errors are openraft's own")]

mod file;
pub(crate) mod recover;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogId, RaftLogReader};

use self::file::{LogFile, State};
use self::writer::{Batches, Change, Op, Waiting, Writer};
use crate::RaftError;
use crate::fault::Fault;
use crate::types::{Entry, LogId, StorageError, StorageIoError, Types, Vote};
use crate::vault::{UnlockKey, Vault};

/// How many bytes of entries one message to another member may carry: far below the limit of messages.
const BATCH_BYTES: usize = 4 << 20;

/// What is known of the log without reading the file.
#[derive(Debug, Default)]
struct Tail {
    /// Entries that may not be in the file yet.
    pending: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

/// Whether an entry that does not follow the last one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is: it would be a hole, or overwrite what was not truncated.
    Checked,
    /// It is taken: openraft's own test of storage appends in any order.
    #[cfg(test)]
    Any,
}

/// The log. Clones read the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    file: Arc<LogFile>,
    tail: Arc<RwLock<Tail>>,
    writer: Writer,
    fault: Fault,
    vote: Option<Vote>,
    committed: Option<LogId>,
    group: Option<u64>,
    order: Order,
}

impl LogStore {
    /// Opens the log in `dir`, or makes it, and checks all of it.
    ///
    /// The second value is closed when the file is: when the last clone is gone and the thread has ended.
    pub(crate) fn open(
        dir: &Path,
        member: u64,
        unlock: Option<&UnlockKey>,
        order: Order,
    ) -> Result<(Self, tokio::sync::watch::Receiver<()>), RaftError> {
        let opened = LogFile::open(&dir.join("log.redb"), member, unlock)?;
        Self::on(opened, member, order, |batches| Writer::start(batches).map_err(|why| RaftError::io(dir, &why)))
    }

    /// As [`Self::open`], on a simulated disk that takes as long as `delay` says.
    #[cfg(test)]
    pub(crate) fn simulated(
        disk: impl redb::StorageBackend,
        dir: &Path,
        member: u64,
        delay: impl FnMut() -> std::time::Duration + Send + 'static,
    ) -> Result<(Self, tokio::sync::watch::Receiver<()>), RaftError> {
        let opened = LogFile::simulated(disk, dir, member)?;
        Self::on(opened, member, Order::Checked, |batches| Ok(Writer::start_simulated(batches, delay)))
    }

    fn on(
        (file, state): (LogFile, State),
        member: u64,
        order: Order,
        writer: impl FnOnce(Batches) -> Result<Writer, RaftError>,
    ) -> Result<(Self, tokio::sync::watch::Receiver<()>), RaftError> {
        let closed = file.closed();
        let file = Arc::new(file);
        let tail = Tail { pending: BTreeMap::new(), purged: state.purged, last: state.last };
        let tail = Arc::new(RwLock::new(tail));
        let fault = Fault::default();
        let writer = writer(Batches::new(file.clone(), tail.clone(), fault.clone()))?;
        let State { vote, committed, group, .. } = state;
        let vote = vote.map(|vote| out_of_office(vote, member));
        Ok((Self { file, tail, writer, fault, vote, committed, group, order }, closed))
    }

    /// The last index that is gone from the log's beginning.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.read_tail(|tail| tail.purged.map(|id| id.index))
    }

    /// What everything is sealed with.
    pub(crate) fn vault(&self) -> &Vault {
        self.file.vault()
    }

    /// Where the first error is noted.
    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The identity of the group that the log belongs to, as it was when the log was opened.
    pub(crate) fn group(&self) -> Option<u64> {
        self.group
    }

    /// Writes the identity of the group that the log belongs to from now on.
    pub(crate) async fn set_group(&mut self, group: u64) -> io::Result<()> {
        self.group = Some(group);
        self.writer.durable(Change::Group(group)).await
    }

    /// The last log id, of an entry or of what is gone.
    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<LogId> {
        self.read_tail(|tail| tail.last)
    }

    fn read_tail<R>(&self, read: impl FnOnce(&Tail) -> R) -> R {
        read(&self.tail.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_tail<R>(&self, change: impl FnOnce(&mut Tail) -> R) -> R {
        change(&mut self.tail.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entries from `start` to before `end`, at most `limit` bytes of them but at least one.
    async fn entries(&self, start: u64, end: u64, limit: usize) -> Result<Vec<Entry>, StorageError> {
        if start >= end {
            return Ok(Vec::new());
        }
        // First what is pending, then the file: an entry that is not pending any more is in the file by then.
        let pending: Vec<_> = self.read_tail(|tail| tail.pending.range(start..end).map(|(_, e)| e.clone()).collect());
        let rest = pending.first().map_or(end, |first| first.log_id.index);
        if rest <= start {
            return Ok(pending);
        }
        let file = self.file.clone();
        let reading = tokio::task::spawn_blocking(move || file.entries(start..rest, limit));
        let read = reading.await.map_err(|e| StorageIoError::read_logs(AnyError::new(&e)))?;
        let (mut entries, complete) = read.map_err(|e| StorageIoError::read_logs(AnyError::new(&e)))?;
        if complete {
            entries.extend(pending);
        }
        Ok(entries)
    }
}

/// The vote of a member that led as that of a candidate; another one as it is.
///
/// openraft would let a member that led when it stopped lead on when it starts, with what it had noted as committed, which may be less than it
/// had acknowledged: a read that it confirms then is outdated. Standing for election it leads with an entry of a new term, and what
/// is before that entry is committed and applied with it.
fn out_of_office(vote: Vote, member: u64) -> Vote {
    Vote { committed: vote.committed && vote.leader_id.voted_for() != Some(member), ..vote }
}

/// A range of openraft's as start and end, the end excluded.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = bounds(&range);
        self.entries(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.entries(start, end, BATCH_BYTES).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        Ok(self.read_tail(|tail| LogState { last_purged_log_id: tail.purged, last_log_id: tail.last }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.writer.durable(Change::Vote(*vote)).await.map_err(|e| StorageIoError::write_vote(AnyError::new(&e)))?;
        self.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        // Not waited for: after a crash an older one only means that the rest is found out again.
        if let Some(committed) = committed {
            self.writer.send(Op { change: Change::Committed(committed), waiting: Waiting::Nobody });
        }
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded =
            file::encode(self.file.vault(), &entries).map_err(|e| StorageIoError::write_logs(AnyError::new(&e)))?;
        self.change_tail(|tail| {
            for entry in entries {
                let (id, after) = (entry.log_id, tail.last);
                if self.order == Order::Checked && after.is_some_and(|last| last.index + 1 != id.index) {
                    let hole =
                        format!("entry {} after {} would leave a hole", id.index, after.unwrap_or_default().index);
                    return Err(StorageIoError::write_log_entry(id, AnyError::error(hole)));
                }
                tail.last = after.max(Some(*entry.get_log_id()));
                tail.pending.insert(id.index, entry);
            }
            Ok(())
        })?;
        let last = self.read_tail(|tail| tail.last);
        let change = Change::Append { entries: encoded, last };
        self.writer.send(Op { change, waiting: Waiting::Openraft(callback) });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let before = log_id.index.checked_sub(1);
        let kept = match before {
            Some(index) => self.entries(index, index + 1, usize::MAX).await?.pop().map(|entry| entry.log_id),
            None => None,
        };
        let last = self.change_tail(|tail| {
            tail.pending.split_off(&log_id.index);
            tail.last = kept.or(tail.purged);
            tail.last
        });
        let truncated = self.writer.durable(Change::Truncate { from: log_id.index, last }).await;
        Ok(truncated.map_err(|e| StorageIoError::write_logs(AnyError::new(&e)))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let last = self.change_tail(|tail| {
            tail.pending = tail.pending.split_off(&(log_id.index + 1));
            tail.purged = Some(log_id);
            tail.last = tail.last.max(Some(log_id));
            tail.last
        });
        let purged = self.writer.durable(Change::Purge { upto: log_id, last }).await;
        Ok(purged.map_err(|e| StorageIoError::write_logs(AnyError::new(&e)))?)
    }
}
