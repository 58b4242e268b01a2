//! Our words for openraft's parameters.

use bytes::Bytes;
use openraft::BasicNode;
use serde::{Deserialize, Serialize};
use skep_model::Version;
use skep_store::Proposal;

/// What applying an entry of the log came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// The entry was not a proposal.
    Nothing,
    /// The proposal made this version.
    Version(Version),
    /// The proposal was planned on another version and changed nothing.
    Outdated,
}

openraft::declare_raft_types!(
    /// The parameters. A snapshot travels as the bytes of its file.
    pub(crate) Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Bytes,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Core = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;
