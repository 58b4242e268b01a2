//! A swarm and a server to test with.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::Stream;
use skep_ca::{JoinToken, NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots, new_secret};
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use skep_rpc::proto::dispatcher_server::Dispatcher;
use skep_rpc::proto::membership_server::Membership;
use skep_rpc::proto::raft_server::Raft;
use skep_rpc::proto::{
    self, AgentMessage, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, LogChunk, ManagerMessage,
    PublishLogsResponse, RaftMessage, RenewRequest, RenewResponse, SnapshotPart, Welcome,
};
use skep_rpc::{
    Admitted, Authenticate, NodeIdentity, Peer, Refusal, RpcError, Services, TunnelIo, admitted, encode, listen, peer,
    serve,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

/// Who is in the swarm of these tests.
#[derive(Clone)]
pub(crate) struct Swarm {
    pub(crate) cluster: ClusterId,
    pub(crate) root: RootCa,
    pub(crate) secret: String,
    pub(crate) worker: NodeIdentity,
    pub(crate) manager: NodeIdentity,
    /// It was a member once.
    pub(crate) removed: NodeIdentity,
    /// Other members, and what the managers know that they are.
    pub(crate) others: Arc<Mutex<Vec<(NodeId, Role)>>>,
    /// The join tokens that the server has been shown.
    pub(crate) tokens_seen: Arc<AtomicUsize>,
}

impl Swarm {
    pub(crate) fn new() -> Self {
        let (cluster, root) = (ClusterId::random(), RootCa::generate(Timestamp::now()).unwrap());
        let identity = |role| NodeIdentity::new(credentials(&root, &cluster, &NodeId::random(), role)).unwrap();
        Self {
            secret: new_secret(),
            worker: identity(Role::Worker),
            manager: identity(Role::Manager),
            removed: identity(Role::Worker),
            others: Arc::default(),
            tokens_seen: Arc::default(),
            cluster,
            root,
        }
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken::new(self.root.certificate(), &self.secret).unwrap()
    }

    /// A certificate of this swarm.
    pub(crate) fn credentials(&self, node: &NodeId, role: Role) -> NodeCredentials {
        credentials(&self.root, &self.cluster, node, role)
    }
}

pub(crate) fn credentials(root: &RootCa, cluster: &ClusterId, node: &NodeId, role: Role) -> NodeCredentials {
    credentials_since(root, cluster, node, role, Timestamp::now())
}

/// A certificate that was issued at some other time.
pub(crate) fn credentials_since(
    root: &RootCa,
    cluster: &ClusterId,
    node: &NodeId,
    role: Role,
    issued: Timestamp,
) -> NodeCredentials {
    let keys = NodeKeys::generate().unwrap();
    let identity = PeerIdentity { cluster: cluster.clone(), node: node.clone(), role };
    let chain = root.sign_own(&keys, &identity, issued).unwrap();
    NodeCredentials::new(keys, &chain, Roots::new(vec![root.certificate().clone()]).unwrap()).unwrap()
}

impl Authenticate for Swarm {
    fn admit(&self, token: &JoinToken) -> Result<Role, Refusal> {
        self.tokens_seen.fetch_add(1, Ordering::Relaxed);
        if token.admits(self.root.certificate(), &self.secret) { Ok(Role::Worker) } else { Err(Refusal::Token) }
    }

    fn identify(&self, node: &NodeId) -> Result<Role, Refusal> {
        let known = [(self.worker.node().clone(), Role::Worker), (self.manager.node().clone(), Role::Manager)];
        let others = self.others.lock().unwrap();
        let known = known.iter().chain(others.iter()).find(|(known, _)| known == node);
        known.map(|(_, role)| *role).ok_or(Refusal::UnknownNode)
    }
}

/// Answers with what it learnt of the caller.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) ended: mpsc::Sender<Option<Status>>,
}

#[tonic::async_trait]
impl Membership for Answers {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let Admitted { role, addr } = admitted(&request)?;
        assert!(peer(&request).is_err(), "a token is no identity");
        Ok(Response::new(JoinResponse {
            node_id: String::new(),
            cluster_id: String::new(),
            node_addr: addr.ip().to_string(),
            role: format!("{role:?}"),
            ..JoinResponse::default()
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let Peer { node, role, .. } = peer(&request)?;
        assert!(admitted(&request).is_err(), "a certificate is no token");
        Ok(Response::new(RenewResponse { certificate: format!("{node} {role:?}"), roots: String::new() }))
    }
}

#[tonic::async_trait]
impl Dispatcher for Answers {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let Peer { node, role, addr } = peer(&request)?;
        let ended = self.ended.clone();
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            let end = loop {
                match messages.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                }
            };
            drop(ended.send(end).await);
        });
        let managers = vec![node.to_string(), format!("{role:?}"), addr.ip().to_string()];
        let welcome = proto::manager_message::Message::Welcome(Welcome { heartbeat_ms: 1, managers });
        let first = tokio_stream::once(Ok(ManagerMessage { message: Some(welcome) }));
        Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let mut chunks = request.into_inner();
        while chunks.message().await?.is_some() {}
        Ok(Response::new(PublishLogsResponse {}))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        peer(&request)?;
        Ok(Response::new(LeaveResponse {}))
    }
}

#[tonic::async_trait]
impl Raft for Answers {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let payload = encode(&request.get_ref().payload.len());
        Ok(Response::new(RaftMessage { to: 0, payload }))
    }

    async fn vote(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unavailable("there is no leader"))
    }

    async fn install_snapshot(&self, _: Request<Streaming<SnapshotPart>>) -> Result<Response<RaftMessage>, Status> {
        Err(Status::internal("not asked for here"))
    }
}

/// A running server; it stops when told to, or with the test.
pub(crate) struct Server {
    pub(crate) swarm: Swarm,
    pub(crate) addr: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<Result<(), RpcError>>,
    /// How sessions ended.
    pub(crate) ended: mpsc::Receiver<Option<Status>>,
    /// Tunnels that were opened.
    pub(crate) opened: mpsc::Receiver<TunnelIo>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(addr: &str) -> Self {
        let swarm = Swarm::new();
        let identity = swarm.manager.clone();
        Self::start_as(addr, swarm, identity)
    }

    /// A server that shows some certificate.
    pub(crate) fn start_as(addr: &str, swarm: Swarm, identity: NodeIdentity) -> Self {
        let listener = listen(addr.parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, ended) = mpsc::channel(8);
        let (tunnels, opened) = mpsc::channel(8);
        let answers = Answers { ended: sender };
        let services =
            Services::default().membership(answers.clone()).dispatcher(answers.clone()).raft(answers).api(tunnels);
        let authenticate = Arc::new(swarm.clone());
        let serving =
            tokio::spawn(serve(listener, services, authenticate, identity, async move { drop(stopped.await) }));
        Self { swarm, addr, stop, serving, ended, opened }
    }

    pub(crate) fn at(&self) -> String {
        self.addr.to_string()
    }
}

pub(crate) fn join_request() -> JoinRequest {
    JoinRequest { csr: NodeKeys::generate().unwrap().request().unwrap().into(), ..JoinRequest::default() }
}
