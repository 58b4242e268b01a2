//! What fuzz targets drive: the readers of what is on disk and of what other managers send, behind seals and checksums.

use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use skep_ca::UnlockKey;
use skep_rpc::{decode, encode};
use skep_store::{Proposal, Tables};

use crate::group::Envelope;
use crate::snapshot as snapshots_of;
use crate::types::{Entry, LogId, SnapshotMeta, Types, Vote};
use crate::vault::key_file;

type Append = Envelope<AppendEntriesRequest<Types>>;

/// The messages between managers.
pub fn message(bytes: &[u8]) {
    let _ = decode::<Append>(bytes);
    let _ = decode::<Envelope<VoteRequest<u64>>>(bytes);
    let _ = decode::<Envelope<(Vote, SnapshotMeta)>>(bytes);
}

/// Valid ones.
#[must_use]
pub fn messages(proposal: &Proposal) -> Vec<Vec<u8>> {
    let (vote, last) = (Vote::new(3, 7), LogId::new(openraft::CommittedLeaderId::new(3, 7), 12));
    let body = AppendEntriesRequest::<Types> {
        vote,
        prev_log_id: Some(last),
        entries: vec![an_entry(proposal)],
        leader_commit: Some(last),
    };
    vec![
        encode(&Envelope { group: 1, body }).to_vec(),
        encode(&Envelope { group: 1, body: VoteRequest::new(vote, Some(last)) }).to_vec(),
        encode(&Envelope { group: 1, body: (vote, SnapshotMeta::default()) }).to_vec(),
    ]
}

/// What is under the seal of an entry of the log.
pub fn entry(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Entry>(bytes);
}

/// Valid ones.
#[must_use]
pub fn entries(proposal: &Proposal) -> Vec<Vec<u8>> {
    vec![encode(&an_entry(proposal)).to_vec()]
}

fn an_entry(proposal: &Proposal) -> Entry {
    let log_id = LogId::new(openraft::CommittedLeaderId::new(3, 7), 13);
    Entry { log_id, payload: EntryPayload::Normal(proposal.clone()) }
}

/// The file of a snapshot as it travels.
pub fn snapshot_file(bytes: &[u8]) {
    let _ = snapshots_of::decode(bytes);
}

/// What is in such a file, with a checksum that is right.
#[must_use]
pub fn snapshot(bytes: &[u8]) -> Option<Tables> {
    let file = snapshots_of::pack(bytes).ok()?;
    snapshots_of::decode(&file).ok().map(|(_, tables)| tables)
}

/// A valid file, and what is in it.
#[must_use]
pub fn snapshots(tables: &Tables) -> Vec<Vec<u8>> {
    let meta = SnapshotMeta::default();
    [snapshots_of::encode(&meta, tables).map(Vec::from), snapshots_of::content(&meta, tables)]
        .into_iter()
        .flatten()
        .collect()
}

/// The file of the data key.
pub fn key_file(bytes: &[u8]) {
    key_file::try_all(bytes, &UnlockKey::random());
}

/// Valid ones, open and locked.
#[must_use]
pub fn key_files() -> Vec<Vec<u8>> {
    key_file::examples(&UnlockKey::random())
}
