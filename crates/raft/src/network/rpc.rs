//! Messages over [`skep_rpc`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_model::{Node, NodeId};
use skep_rpc::proto::{RaftMessage, SnapshotPart};
use skep_rpc::{NodeIdentity, RaftClient, RpcError, raft_client};
use skep_store::Store;
use tonic::{Code, Request, Response, Status};

use super::{Link, Transport, Unanswered};

/// How much of a snapshot goes into one message.
const PART: usize = 1 << 20;

/// Other members' manager ports.
pub(crate) struct Rpc {
    /// What this member proves to them.
    pub(crate) identity: NodeIdentity,
    pub(crate) store: Store,
}

impl Rpc {
    /// The node of a member, as far as the store knows: then no other one is taken for it. That the member has this number is checked with each
    /// message.
    pub(crate) fn node(&self, raft_id: u64) -> Option<NodeId> {
        self.store.view(|tables| {
            let is = |node: &&Arc<Node>| node.manager.as_ref().is_some_and(|manager| manager.raft_id == raft_id);
            tables.all::<Node>().find(is).map(|node| node.id.clone())
        })
    }
}

impl Transport for Rpc {
    type Link = RpcLink;

    fn link(&self, target: u64, addr: &str) -> RpcLink {
        RpcLink { target, client: raft_client(addr, &self.identity, self.node(target)) }
    }
}

/// One other member's manager port. The connection is made when it is needed, and again when it was lost.
pub(crate) struct RpcLink {
    target: u64,
    client: Result<RaftClient, RpcError>,
}

impl RpcLink {
    fn client(&self) -> Result<RaftClient, Unanswered> {
        self.client.clone().map_err(|why| Unanswered::Away(why.to_string()))
    }

    fn request(&self, payload: Bytes, within: Duration) -> Request<RaftMessage> {
        let mut request = Request::new(RaftMessage { to: self.target, payload });
        request.set_timeout(within);
        request
    }
}

fn answer(answer: Result<Response<RaftMessage>, Status>) -> Result<Bytes, Unanswered> {
    answer.map(|answer| answer.into_inner().payload).map_err(|status| match status.code() {
        Code::DeadlineExceeded | Code::Aborted => Unanswered::Late(status.to_string()),
        _ => Unanswered::Away(status.to_string()),
    })
}

impl Link for RpcLink {
    async fn append_entries(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        answer(self.client()?.append_entries(self.request(payload, within)).await)
    }

    async fn vote(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        answer(self.client()?.vote(self.request(payload, within)).await)
    }

    async fn install_snapshot(&mut self, header: Bytes, file: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        let first = SnapshotPart { to: self.target, header, data: Bytes::new() };
        let mut request = Request::new(futures::stream::iter(std::iter::once(first).chain(parts(file))));
        request.set_timeout(within);
        answer(self.client()?.install_snapshot(request).await)
    }
}

/// A file cut into messages.
fn parts(mut file: Bytes) -> impl Iterator<Item = SnapshotPart> + Send {
    std::iter::from_fn(move || {
        let data = file.split_to(file.len().min(PART));
        (!data.is_empty()).then(|| SnapshotPart { to: 0, header: Bytes::new(), data })
    })
}
