//! Being called by other members.

use serde::Serialize;
use skep_rpc::proto::raft_server::Raft as Service;
use skep_rpc::proto::{RaftMessage, SnapshotPart};
use skep_rpc::{decode, encode};
use tonic::{Request, Response, Status, Streaming};

use crate::types::{Core, Snapshot, SnapshotMeta, Vote};

/// The largest snapshot file that is taken, in bytes.
const SNAPSHOT_LIMIT: usize = 1 << 30;

/// Answers the other members: for [`skep_rpc::Services::raft`].
#[derive(Clone)]
pub struct RaftService {
    pub(crate) core: Core,
    pub(crate) member: u64,
}

impl RaftService {
    /// Refuses what is for another member: it had this address before, or will have it.
    fn check(&self, to: u64) -> Result<(), Status> {
        if to == self.member {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("the member {:x} answers here, not {to:x}", self.member)))
    }
}

fn answer<R: Serialize, E: Serialize>(result: &Result<R, E>) -> Response<RaftMessage> {
    Response::new(RaftMessage { to: 0, payload: encode(result) })
}

#[tonic::async_trait]
impl Service for RaftService {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        self.check(message.to)?;
        Ok(answer(&self.core.append_entries(decode(&message.payload)?).await))
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        self.check(message.to)?;
        Ok(answer(&self.core.vote(decode(&message.payload)?).await))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        self.check(first.to)?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&first.header)?;
        let mut file = first.data.to_vec();
        while let Some(part) = parts.message().await? {
            if file.len() + part.data.len() > SNAPSHOT_LIMIT {
                return Err(Status::resource_exhausted("the snapshot is larger than 1 GiB"));
            }
            file.extend_from_slice(&part.data);
        }
        let snapshot = Snapshot { meta, snapshot: Box::new(file.into()) };
        Ok(answer(&self.core.install_full_snapshot(vote, snapshot).await))
    }
}
