//! Messages over [`skep_rpc`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use skep_model::{Node, NodeId};
use skep_rpc::proto::{RaftMessage, SnapshotPart};
use skep_rpc::{NodeIdentity, RaftClient, RpcError, raft_client};
use skep_store::Store;
use tonic::{Code, Request, Response, Status};

use super::{Link, Transport, Unanswered};

/// How much of a snapshot goes into one message.
const PART: usize = 1 << 20;

/// A connection that answered within this time is used for other calls too: who asks a majority whether it still leads has no time to
/// connect. An older one may be dead, and it takes seconds until that is known.
const PROVEN: Duration = Duration::from_millis(500);

/// Other members' manager ports.
pub(crate) struct Rpc {
    /// What this member proves to them.
    identity: NodeIdentity,
    store: Store,
    proven: Proven,
}

/// The connections that answered last, by member.
type Proven = Arc<Mutex<BTreeMap<u64, Answered>>>;

/// A connection that has answered.
struct Answered {
    addr: String,
    client: RaftClient,
    at: Instant,
}

impl Rpc {
    pub(crate) fn new(identity: NodeIdentity, store: Store) -> Self {
        Self { identity, store, proven: Proven::default() }
    }

    /// The node of a member, as far as the store knows: then no other one is taken for it. That the member has this number is checked with each
    /// message.
    pub(crate) fn node(&self, raft_id: u64) -> Option<NodeId> {
        self.store.view(|tables| {
            let is = |node: &&Arc<Node>| node.manager.as_ref().is_some_and(|manager| manager.raft_id == raft_id);
            tables.all::<Node>().find(is).map(|node| node.id.clone())
        })
    }

    fn client(&self, target: u64, addr: &str) -> Result<RaftClient, RpcError> {
        raft_client(addr, &self.identity, self.node(target))
    }

    fn proven(&self, target: u64, addr: &str) -> Option<RaftClient> {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |answered: &&Answered| answered.addr == addr && answered.at.elapsed() < PROVEN;
        proven.get(&target).filter(fits).map(|answered| answered.client.clone())
    }
}

impl Transport for Rpc {
    type Link = RpcLink;

    fn link(&self, target: u64, addr: &str) -> RpcLink {
        let client = self.proven(target, addr).map_or_else(|| self.client(target, addr), Ok);
        RpcLink { target, addr: addr.to_owned(), client, proven: self.proven.clone() }
    }

    fn bulk_link(&self, target: u64, addr: &str) -> RpcLink {
        let client = self.client(target, addr);
        // Nobody is told of it.
        RpcLink { target, addr: addr.to_owned(), client, proven: Proven::default() }
    }
}

/// One other member's manager port. The connection is made when it is needed, and again when it was lost.
pub(crate) struct RpcLink {
    target: u64,
    addr: String,
    client: Result<RaftClient, RpcError>,
    proven: Proven,
}

impl RpcLink {
    fn client(&self) -> Result<RaftClient, Unanswered> {
        self.client.clone().map_err(|why| Unanswered::Away(why.to_string()))
    }

    /// What came of a call, and if it was answered a note of that.
    fn answered(&self, client: RaftClient, answer: Result<Response<RaftMessage>, Status>) -> Result<Bytes, Unanswered> {
        if answer.is_ok() {
            let answered = Answered { addr: self.addr.clone(), client, at: Instant::now() };
            self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(self.target, answered);
        }
        result(answer)
    }

    fn request(&self, payload: Bytes, within: Duration) -> Request<RaftMessage> {
        let mut request = Request::new(RaftMessage { to: self.target, payload });
        request.set_timeout(within);
        request
    }
}

fn result(answer: Result<Response<RaftMessage>, Status>) -> Result<Bytes, Unanswered> {
    answer.map(|answer| answer.into_inner().payload).map_err(|status| match status.code() {
        Code::DeadlineExceeded | Code::Aborted => Unanswered::Late(status.to_string()),
        _ => Unanswered::Away(status.to_string()),
    })
}

impl Link for RpcLink {
    async fn append_entries(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        let mut client = self.client()?;
        let answer = client.append_entries(self.request(payload, within)).await;
        self.answered(client, answer)
    }

    async fn vote(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        let mut client = self.client()?;
        let answer = client.vote(self.request(payload, within)).await;
        self.answered(client, answer)
    }

    async fn install_snapshot(&mut self, header: Bytes, file: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        let first = SnapshotPart { to: self.target, header, data: Bytes::new() };
        let mut request = Request::new(futures::stream::iter(std::iter::once(first).chain(parts(file))));
        request.set_timeout(within);
        result(self.client()?.install_snapshot(request).await)
    }
}

/// A file cut into messages.
fn parts(mut file: Bytes) -> impl Iterator<Item = SnapshotPart> + Send {
    std::iter::from_fn(move || {
        let data = file.split_to(file.len().min(PART));
        (!data.is_empty()).then(|| SnapshotPart { to: 0, header: Bytes::new(), data })
    })
}
