//! Calling other members.

#![allow(clippy::result_large_err, reason = "the errors are openraft's own")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory};
use serde::de::DeserializeOwned;
use skep_model::{Node, NodeId};
use skep_rpc::proto::{RaftMessage, SnapshotPart};
use skep_rpc::{NodeIdentity, RaftClient, RpcError, decode, encode, raft_client};
use skep_store::Store;
use tonic::{Code, Request, Status};

use crate::types::{Snapshot, Types, Vote};

/// How long to leave a member alone that could not be reached. Short: it may be back before the next election.
const PAUSE: Duration = Duration::from_millis(200);
/// How much of a snapshot goes into one message.
const PART: usize = 1 << 20;

type Failure<E> = RPCError<u64, BasicNode, E>;

/// Makes a [`Caller`] for each other member.
pub(crate) struct Network {
    pub(crate) identity: NodeIdentity,
    pub(crate) store: Store,
}

impl Network {
    /// The node of a member, as far as the store knows: then no other one is taken for it. That the member has this number is checked with each
    /// message.
    pub(crate) fn node(&self, raft_id: u64) -> Option<NodeId> {
        self.store.view(|tables| {
            let is = |node: &&Arc<Node>| node.manager.as_ref().is_some_and(|manager| manager.raft_id == raft_id);
            tables.all::<Node>().find(is).map(|node| node.id.clone())
        })
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Caller;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Caller {
        Caller { target, client: raft_client(&node.addr, &self.identity, self.node(target)) }
    }
}

/// Calls one other member. The connection is made when it is needed, and again when it was lost.
pub(crate) struct Caller {
    target: u64,
    client: Result<RaftClient, RpcError>,
}

impl Caller {
    fn client(&self) -> Result<RaftClient, Unreachable> {
        self.client.clone().map_err(|why| Unreachable::new(&why))
    }

    fn request(&self, payload: Bytes, option: &RPCOption) -> Request<RaftMessage> {
        let mut request = Request::new(RaftMessage { to: self.target, payload });
        request.set_timeout(option.hard_ttl());
        request
    }

    /// What the other member answered: a result or its own error.
    fn answer<R: DeserializeOwned, E: std::error::Error + DeserializeOwned>(
        &self,
        answer: Result<tonic::Response<RaftMessage>, Status>,
    ) -> Result<R, Failure<E>> {
        let message = answer.map_err(|status| failure(&status))?.into_inner();
        let result: Result<R, E> = decode(&message.payload).map_err(|why| NetworkError::new(&why))?;
        result.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

/// A member that is down, or another one in its place, is left alone for a moment; anything else is tried again at once.
fn failure<E: std::error::Error>(status: &Status) -> Failure<E> {
    match status.code() {
        Code::DeadlineExceeded | Code::Aborted => NetworkError::new(status).into(),
        _ => Unreachable::new(status).into(),
    }
}

impl RaftNetwork<Types> for Caller {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<RaftError<u64>>> {
        let answer = self.client()?.append_entries(self.request(encode(&rpc), &option)).await;
        self.answer(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<RaftError<u64>>> {
        let answer = self.client()?.vote(self.request(encode(&rpc), &option)).await;
        self.answer(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let mut client = self.client()?;
        let first = SnapshotPart { to: self.target, header: encode(&(vote, snapshot.meta)), data: Bytes::new() };
        let parts = futures::stream::iter(std::iter::once(first).chain(parts(*snapshot.snapshot)));
        let mut request = Request::new(parts);
        request.set_timeout(option.hard_ttl());
        let sending = std::pin::pin!(client.install_snapshot(request));
        let answer = match select(sending, std::pin::pin!(cancel)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((closed, _)) => return Err(closed.into()),
        };
        self.answer(answer).map_err(|failure: Failure<Fatal<u64>>| match failure {
            RPCError::Timeout(error) => error.into(),
            RPCError::Unreachable(error) => error.into(),
            RPCError::Network(error) => error.into(),
            RPCError::RemoteError(error) => error.into(),
            RPCError::PayloadTooLarge(error) => NetworkError::from(AnyError::new(&error)).into(),
        })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PAUSE))
    }
}

/// A file cut into messages.
fn parts(mut file: Bytes) -> impl Iterator<Item = SnapshotPart> + Send {
    std::iter::from_fn(move || {
        let data = file.split_to(file.len().min(PART));
        (!data.is_empty()).then(|| SnapshotPart { to: 0, header: Bytes::new(), data })
    })
}
