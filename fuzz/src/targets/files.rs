//! What managers keep on disk and send each other.

use skep_model::{Availability, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp};
use skep_raft::fuzz;
use skep_store::{Change, Proposal, Tables};

pub(super) fn message(bytes: &[u8]) {
    fuzz::message(bytes);
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    fuzz::messages(&proposal())
}

pub(super) fn entry(bytes: &[u8]) {
    fuzz::entry(bytes);
}

pub(super) fn entries() -> Vec<Vec<u8>> {
    fuzz::entries(&proposal())
}

/// The content, for which the checksums are made: else nothing would get past them. And the file itself.
pub(super) fn snapshot(bytes: &[u8]) {
    fuzz::snapshot_file(bytes);
    if let Some(tables) = fuzz::snapshot(bytes) {
        let again = Tables::decode(&tables.encode()).expect("what was written can be read");
        assert_eq!(again.encode(), tables.encode());
    }
}

pub(super) fn snapshots() -> Vec<Vec<u8>> {
    let mut tables = Tables::default();
    tables.apply(proposal()).expect("a proposal for any version fits");
    let mut seeds = fuzz::snapshots(&tables);
    seeds.push(tables.encode());
    seeds
}

pub(super) fn key(bytes: &[u8]) {
    fuzz::key_file(bytes);
}

pub(super) fn keys() -> Vec<Vec<u8>> {
    fuzz::key_files()
}

fn proposal() -> Proposal {
    Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes: vec![Change::from(node())] }
}

pub(super) fn node() -> Node {
    Node {
        id: NodeId::random(),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: NodeSpec { name: None, labels: [].into(), role: Role::Worker, availability: Availability::Active },
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: Some([192, 0, 2, 1].into()),
            port_conflicts: Vec::new(),
            machine_answers: false,
        },
        manager: None,
        overlay_addr: Some([10, 0, 0, 2].into()),
        credential: "ab".repeat(32),
    }
}
