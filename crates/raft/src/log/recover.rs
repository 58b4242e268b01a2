//! Making a group of one out of what one member of a lost group has on its disk.
//!
//! The log gets one more entry, which says that this member is the only one, in a term of its own, and the group gets a new identity,
//! all in one transaction. As the only voter the member then elects itself and so commits everything that is in its log. The
//! former members may come back with any votes and entries: they belong to the old identity and are not listened to.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership};

use super::file::{self, LogFile};
use super::writer::Change;
use crate::types::{Entry, LogId, Vote};
use crate::{RaftConfig, RaftError, snapshot};

/// Rewrites what is on the disk. The member must not be running.
pub(crate) fn rewrite(config: &RaftConfig) -> Result<(), RaftError> {
    let path = config.dir.join("log.redb");
    let nothing = || RaftError::NothingToRecover { path: config.dir.clone() };
    if !path.exists() {
        return Err(nothing());
    }
    let (file, state) = LogFile::open(&path, config.raft_id, config.unlock_key.as_ref())?;
    let found = snapshot::newest(&config.dir, file.vault(), state.purged.map(|id| id.index))?;
    let saved = found.and_then(|found| found.meta.last_log_id);
    let last = state.last.max(saved).ok_or_else(nothing)?;
    let term = state.vote.map_or(0, |vote| vote.leader_id().term).max(last.leader_id.term) + 1;
    let entry = alone(config, term, last.index + 1);

    let mut changes = Vec::new();
    if saved > state.last {
        // It stopped between taking a snapshot and forgetting the entries before.
        let upto = last;
        changes.push(Change::Purge { upto, last: Some(upto) });
    }
    let last = Some(entry.log_id);
    let entries = file::encode(file.vault(), &[entry]).map_err(|why| RaftError::log(&path, &why))?;
    changes.push(Change::Append { entries, last });
    changes.push(Change::Vote(Vote::new(term, config.raft_id)));
    changes.push(Change::Group(rand::random()));
    file.write(&changes)
}

/// The entry that says that this member is the only one.
fn alone(config: &RaftConfig, term: u64, index: u64) -> Entry {
    let id = config.raft_id;
    let nodes = BTreeMap::from([(id, BasicNode::new(config.addr))]);
    let membership = Membership::new(vec![BTreeSet::from([id])], nodes);
    let log_id = LogId::new(CommittedLeaderId::new(term, id), index);
    Entry { log_id, payload: EntryPayload::Membership(membership) }
}
