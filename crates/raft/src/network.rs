//! Calling other members, as openraft wants it done.
//!
//! What carries the messages is a [`Transport`]: [`rpc`] in a daemon, and something that can be cut and delayed at will in tests.

#![allow(clippy::result_large_err, reason = "the errors are openraft's own")]

mod pulse;
pub(crate) mod rpc;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_rpc::{decode, encode};

use self::pulse::Ended;
use crate::group::{Envelope, Group};
use crate::reach::Heard;
use crate::types::{Snapshot, Types, Vote};

/// How long to leave a member alone that could not be reached. Short: it may be back before the next election.
const PAUSE: Duration = Duration::from_millis(200);

type Failure<E> = RPCError<u64, BasicNode, E>;

/// Why a message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nobody is there, or another member, or one that does not want it: it is left alone for a moment.
    #[error("{0}")]
    Away(String),
    /// It took too long, or the connection broke: it is tried again at once.
    #[error("{0}")]
    Late(String),
}

/// Carries messages to other members.
pub(crate) trait Transport: Send + Sync + 'static {
    /// The way to one of them.
    type Link: Link;

    /// The way to the member `target`, which answers at `addr`. Nothing is sent yet.
    fn link(&self, target: u64, addr: &str) -> Self::Link;

    /// As [`Self::link`], for something large: other messages must not have to wait behind it.
    fn bulk_link(&self, target: u64, addr: &str) -> Self::Link {
        self.link(target, addr)
    }
}

/// The way to one other member. Each call answers `within` the given time or fails; dropped, it is given up.
pub(crate) trait Link: Send + Sync + 'static {
    fn append_entries(
        &mut self,
        payload: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Unanswered>> + Send;

    fn vote(&mut self, payload: Bytes, within: Duration) -> impl Future<Output = Result<Bytes, Unanswered>> + Send;

    fn install_snapshot(
        &mut self,
        header: Bytes,
        file: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Unanswered>> + Send;
}

/// Makes a [`Caller`] for each other member.
pub(crate) struct Network<T> {
    pub(crate) transport: Arc<T>,
    pub(crate) group: Group,
    pub(crate) heard: Heard,
}

impl<T: Transport> RaftNetworkFactory<Types> for Network<T> {
    type Network = Caller<T>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Caller<T> {
        let link = self.transport.link(target, &node.addr);
        let (transport, addr) = (self.transport.clone(), node.addr.clone());
        Caller { target, addr, transport, link, group: self.group.clone(), heard: self.heard.clone() }
    }
}

/// Calls one other member.
pub(crate) struct Caller<T: Transport> {
    target: u64,
    addr: String,
    transport: Arc<T>,
    link: T::Link,
    group: Group,
    heard: Heard,
}

impl<T: Transport> Caller<T> {
    /// A message with the group's identity on it.
    fn message<B: Serialize>(&self, body: B) -> Result<Bytes, Unreachable> {
        let nowhere = || Unreachable::new(&AnyError::error("this member is in no group yet"));
        let group = self.group.id().ok_or_else(nowhere)?;
        Ok(encode(&Envelope { group, body }))
    }

    /// What the other member answered: a result or its own error.
    fn answer<R: DeserializeOwned, E: std::error::Error + DeserializeOwned>(
        &self,
        answer: Result<Bytes, Unanswered>,
    ) -> Result<R, Failure<E>> {
        let payload = answer.map_err(|why| match why {
            Unanswered::Away(_) => Failure::from(Unreachable::new(&why)),
            Unanswered::Late(_) => NetworkError::new(&why).into(),
        })?;
        self.heard.from(self.target);
        let result: Result<R, E> = decode(&payload).map_err(|why| NetworkError::new(&why))?;
        result.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

impl<T: Transport> RaftNetwork<Types> for Caller<T> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<RaftError<u64>>> {
        let message = self.message(&rpc)?;
        let answer = self.link.append_entries(message, option.hard_ttl()).await;
        self.answer(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<RaftError<u64>>> {
        let message = self.message(&rpc)?;
        let answer = self.link.vote(message, option.hard_ttl()).await;
        self.answer(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let header = self.message((vote, snapshot.meta))?;
        let mut link = self.transport.bulk_link(self.target, &self.addr);
        let sending = link.install_snapshot(header, *snapshot.snapshot, option.hard_ttl());
        let pulse = self.pulse(self.transport.link(self.target, &self.addr), vote);
        let answer = tokio::select! {
            answer = sending => answer,
            ended = pulse => match ended {
                Ended::Outvoted(vote) => return Ok(SnapshotResponse { vote }),
                Ended::Silent => Err(Unanswered::Late("the member does not answer any more".to_owned())),
            },
            closed = cancel => return Err(closed.into()),
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
