//! Being called by other members.

use bytes::Bytes;
use serde::Serialize;
use skep_rpc::proto::raft_server::Raft as Service;
use skep_rpc::proto::{RaftMessage, SnapshotPart};
use skep_rpc::{DecodeError, decode, encode};
use tonic::{Request, Response, Status, Streaming};

use crate::group::{Envelope, Group, Stranger};
use crate::types::{Core, Snapshot, SnapshotMeta, Vote};

/// The largest snapshot file that is taken, in bytes.
const SNAPSHOT_LIMIT: usize = 1 << 30;

/// Why a message is not looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It is for another member, which had this address before or will have it.
    #[error("the member {own:x} answers here, not {to:x}")]
    Misdirected { own: u64, to: u64 },
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Decode(error) => error.into(),
            refused => Self::failed_precondition(refused.to_string()),
        }
    }
}

/// Answers messages, whatever carried them here.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) core: Core,
    pub(crate) member: u64,
    pub(crate) group: Group,
}

impl Answers {
    fn check(&self, to: u64) -> Result<(), Refused> {
        if to == self.member { Ok(()) } else { Err(Refused::Misdirected { own: self.member, to }) }
    }

    pub(crate) async fn append_entries(&self, to: u64, payload: &[u8]) -> Result<Bytes, Refused> {
        self.check(to)?;
        let message: Envelope<_> = decode(payload)?;
        self.group.check_or_join(message.group).await?;
        Ok(answer(&self.core.append_entries(message.body).await))
    }

    pub(crate) async fn vote(&self, to: u64, payload: &[u8]) -> Result<Bytes, Refused> {
        self.check(to)?;
        let message: Envelope<_> = decode(payload)?;
        self.group.check(message.group)?;
        Ok(answer(&self.core.vote(message.body).await))
    }

    pub(crate) async fn install_snapshot(&self, to: u64, header: &[u8], file: Bytes) -> Result<Bytes, Refused> {
        self.check(to)?;
        let message: Envelope<(Vote, SnapshotMeta)> = decode(header)?;
        self.group.check_or_join(message.group).await?;
        let (vote, meta) = message.body;
        let snapshot = Snapshot { meta, snapshot: Box::new(file) };
        Ok(answer(&self.core.install_full_snapshot(vote, snapshot).await))
    }
}

fn answer<R: Serialize, E: Serialize>(result: &Result<R, E>) -> Bytes {
    encode(result)
}

fn reply(payload: Bytes) -> Response<RaftMessage> {
    Response::new(RaftMessage { to: 0, payload })
}

/// Answers the other members: for [`skep_rpc::Services::raft`].
#[derive(Clone)]
pub struct RaftService(pub(crate) Answers);

#[tonic::async_trait]
impl Service for RaftService {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        Ok(reply(self.0.append_entries(message.to, &message.payload).await?))
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        Ok(reply(self.0.vote(message.to, &message.payload).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        // Before a gigabyte is taken for somebody else.
        self.0.check(first.to)?;
        let mut file = first.data.to_vec();
        while let Some(part) = parts.message().await? {
            if file.len() + part.data.len() > SNAPSHOT_LIMIT {
                return Err(Status::resource_exhausted("the snapshot is larger than 1 GiB"));
            }
            file.extend_from_slice(&part.data);
        }
        Ok(reply(self.0.install_snapshot(first.to, &first.header, file.into()).await?))
    }
}
