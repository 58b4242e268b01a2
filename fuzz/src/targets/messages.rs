//! Messages between nodes, and the objects in them.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_model::{GossipKey, GossipKeys, Node, OwnerTable, ServiceSpec, Timestamp};
use skep_rpc::{decode, encode, proto};
use skep_store::{Change, Proposal};

/// A number for the kind, and the bytes.
pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => object::<GossipKeys>(bytes),
        1 => object::<OwnerTable>(bytes),
        2 => object::<Node>(bytes),
        3 => object::<ServiceSpec>(bytes),
        4 => object::<Proposal>(bytes),
        _ => every_message(bytes),
    }
}

/// What is read is written, and read as the same.
fn message<M: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(read) = M::decode(bytes) {
        assert!(M::decode(&read.encode_to_vec()[..]).is_ok_and(|again| again == read));
    }
}

fn object<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(read) = decode::<T>(bytes) {
        let written = encode(&read);
        let again = decode::<T>(&written).expect("what was written can be read");
        assert_eq!(encode(&again), written);
    }
}

fn every_message(bytes: &[u8]) {
    const READERS: &[fn(&[u8])] = &[
        message::<proto::JoinRequest>,
        message::<proto::JoinResponse>,
        message::<proto::RenewRequest>,
        message::<proto::RenewResponse>,
        message::<proto::AgentMessage>,
        message::<proto::ManagerMessage>,
        message::<proto::LogRequest>,
        message::<proto::LogChunk>,
        message::<proto::PublishLogsResponse>,
        message::<proto::LeaveRequest>,
        message::<proto::LeaveResponse>,
        message::<proto::TunnelData>,
        message::<proto::RaftMessage>,
        message::<proto::SnapshotPart>,
    ];
    READERS.iter().for_each(|read| read(bytes));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let keys =
        GossipKeys { keys: vec![GossipKey { id: 1, secret: [7; 32] }], primary: 1, rotated: Timestamp::UNIX_EPOCH };
    let payload = encode(&keys);
    let raft = proto::RaftMessage { to: 7, payload: payload.clone() };
    let part = proto::SnapshotPart { data: payload.clone(), ..proto::SnapshotPart::default() };
    let node = super::files::node();
    let proposal = Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes: vec![Change::from(node.clone())] };
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        of(0, &payload),
        of(1, &encode(&OwnerTable::default())),
        of(2, &encode(&node)),
        of(3, &encode(&super::api::service())),
        of(4, &encode(&proposal)),
        of(5, &raft.encode_to_vec()),
        of(5, &part.encode_to_vec()),
    ]
}
