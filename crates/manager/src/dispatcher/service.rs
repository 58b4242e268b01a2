//! The gRPC service of sessions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Node, NodeId, NodeState, Role};
use skep_rpc::proto::agent_message::Message;
use skep_rpc::proto::{
    AgentMessage, LeaveRequest, LeaveResponse, LogChunk, ManagerMessage, PublishLogsResponse, dispatcher_server,
};
use skep_store::{Change, Tables};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Hub;
use super::session::Session;
use crate::group::{Group, may_go};

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
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for DispatcherService {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = skep_rpc::peer(&request)?;
        self.0.leads()?;
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
        self.0.leads()?;
        // Its session ends first, so that nothing it still says makes it ready again.
        super::lock(&self.0.sessions).open.remove(&peer.node);
        let group = self.0.group.as_ref();
        let left = self.0.writer.update(|tables| Ok::<_, Infallible>(((), leave(tables, group, &peer.node))));
        left.await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(LeaveResponse {}))
    }
}

/// What becomes of a node that leaves by itself. A manager takes its leave of the managers too, if they can do without it: what cannot be
/// changed any more then would be of no use to anybody.
fn leave(tables: &Tables, group: &dyn Group, id: &NodeId) -> Vec<Change> {
    let Some(before) = tables.get::<Node>(id) else { return Vec::new() };
    let mut node = Node::clone(before);
    node.status.state = NodeState::Down;
    "left the swarm".clone_into(&mut node.status.message);
    if node.spec.role == Role::Manager && may_go(tables, group, &node).is_ok() {
        node.spec.role = Role::Worker;
    }
    if node == **before { Vec::new() } else { vec![node.into()] }
}
