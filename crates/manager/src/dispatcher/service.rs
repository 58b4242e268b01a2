//! The gRPC service of sessions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use skep_rpc::proto::agent_message::Message;
use skep_rpc::proto::{
    AgentMessage, LeaveRequest, LeaveResponse, LogChunk, ManagerMessage, PublishLogsResponse, dispatcher_server,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Hub;
use super::session::Session;
use crate::plan::lose;

/// Messages on their way to one node.
const OUTBOX: usize = 64;
/// Agents say Hello first, and at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Holds the sessions with nodes. Made by [`crate::Manager::dispatcher`].
pub struct DispatcherService(Arc<Hub>);

impl DispatcherService {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }

    fn leads(&self) -> Result<(), Status> {
        if self.0.leads() { Ok(()) } else { Err(Status::unavailable("this manager does not lead (yet)")) }
    }
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for DispatcherService {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = skep_rpc::peer(&request)?;
        self.leads()?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the node did not say hello"))??;
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a session begins with hello"));
        };
        self.0.hello(&peer, &hello).await?;
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        tokio::spawn(Session::new(self.0.clone(), peer, outbox).run(incoming));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let peer = skep_rpc::peer(&request)?;
        self.0.logs.take(&peer.node, request.into_inner()).await?;
        Ok(Response::new(PublishLogsResponse {}))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let peer = skep_rpc::peer(&request)?;
        self.leads()?;
        // Its session ends first, so that nothing it still says makes it ready again.
        super::lock(&self.0.sessions).open.remove(&peer.node);
        let left = self.0.writer.update(|tables| {
            Ok::<_, Infallible>(((), lose(tables, std::slice::from_ref(&peer.node), "left the swarm")))
        });
        left.await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(LeaveResponse {}))
    }
}
