//! A server and its callers, over loopback.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::Stream;
use skep_ca::{JoinToken, NodeKey, new_secret};
use skep_model::{ClusterId, NodeId, Role};
use skep_rpc::proto::dispatcher_server::Dispatcher;
use skep_rpc::proto::membership_server::Membership;
use skep_rpc::proto::raft_server::Raft;
use skep_rpc::proto::{
    self, AgentMessage, Assignments, GossipKeys, Heartbeat, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse,
    LogChunk, ManagerMessage, PublishLogsResponse, RaftMessage, SnapshotPart, Welcome,
};
use skep_rpc::{
    Admitted, Authenticate, MembershipClient, NodeIdentity, Peer, Refusal, RpcError, Services, admitted, dial,
    dispatcher_client, encode, listen, peer, raft_client, serve,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Who is in the swarm of these tests.
#[derive(Clone)]
struct Swarm {
    cluster: ClusterId,
    secret: String,
    worker: NodeIdentity,
    manager: NodeIdentity,
}

impl Swarm {
    fn new() -> Self {
        let identity = || NodeIdentity { node: NodeId::random(), key: NodeKey::random() };
        Self { cluster: ClusterId::random(), secret: new_secret(), worker: identity(), manager: identity() }
    }

    fn token(&self) -> JoinToken {
        JoinToken::new(&self.cluster, &self.secret).unwrap()
    }
}

impl Authenticate for Swarm {
    fn admit(&self, token: &JoinToken) -> Result<Role, Refusal> {
        if token.admits(&self.cluster, &self.secret) { Ok(Role::Worker) } else { Err(Refusal::Token) }
    }

    fn identify(&self, node: &NodeId, key: &NodeKey) -> Result<Role, Refusal> {
        for (known, role) in [(&self.worker, Role::Worker), (&self.manager, Role::Manager)] {
            if *node == known.node {
                return if key.matches(&known.key.digest()) { Ok(role) } else { Err(Refusal::WrongKey) };
            }
        }
        Err(Refusal::UnknownNode)
    }
}

/// Answers with what it learnt of the caller.
#[derive(Clone)]
struct Answers {
    ended: mpsc::Sender<Option<Status>>,
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
        }))
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
struct Server {
    swarm: Swarm,
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), RpcError>>,
    /// How sessions ended.
    ended: mpsc::Receiver<Option<Status>>,
}

impl Server {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    async fn start_at(addr: &str) -> Self {
        let swarm = Swarm::new();
        let listener = listen(addr.parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, ended) = mpsc::channel(8);
        let answers = Answers { ended: sender };
        let services = Services::default().membership(answers.clone()).dispatcher(answers.clone()).raft(answers);
        let authenticate = Arc::new(swarm.clone());
        let serving = tokio::spawn(serve(listener, services, authenticate, async move { drop(stopped.await) }));
        Self { swarm, addr, stop, serving, ended }
    }

    fn at(&self) -> String {
        self.addr.to_string()
    }
}

fn join_request() -> JoinRequest {
    JoinRequest { node_key: NodeKey::random().to_string(), ..JoinRequest::default() }
}

/// A session that says nothing for as long as the sender lives.
async fn session(
    addr: &str,
    identity: &NodeIdentity,
) -> Result<(mpsc::Sender<AgentMessage>, Streaming<ManagerMessage>), RpcError> {
    let mut client = dispatcher_client(addr, identity).await?;
    let (sender, messages) = mpsc::channel(8);
    let opened = client.session(ReceiverStream::new(messages)).await;
    Ok((sender, opened.map_err(|status| RpcError::from_status(addr, &status))?.into_inner()))
}

#[tokio::test]
async fn a_good_token_admits_and_the_manager_sees_where_from() {
    let server = Server::start().await;
    let joined = MembershipClient::join(&server.at(), &server.swarm.token(), join_request()).await.unwrap();
    assert_eq!((joined.role.as_str(), joined.node_addr.as_str()), ("Worker", "127.0.0.1"));
}

#[tokio::test]
async fn every_address_means_both_families_and_one_address_means_that_one() {
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let server = Server::start_at(everywhere).await;
        for (host, seen) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            let at = format!("{host}:{}", server.addr.port());
            let joined = MembershipClient::join(&at, &server.swarm.token(), join_request()).await.unwrap();
            assert_eq!(joined.node_addr, seen, "{at}, listening on {everywhere}");
        }
    }
    let server = Server::start_at("[::1]:0").await;
    assert!(server.addr.ip().is_loopback());
    MembershipClient::join(&server.at(), &server.swarm.token(), join_request()).await.unwrap();
    let taken = listen(server.addr).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_wrong_token_is_refused_in_known_words_slowly_but_within_a_second() {
    let server = Server::start().await;
    let wrong = JoinToken::new(&server.swarm.cluster, &new_secret()).unwrap();
    let began = Instant::now();
    let error = MembershipClient::join(&server.at(), &wrong, join_request()).await.unwrap_err();
    assert_eq!(error, RpcError::Refused { addr: server.at(), refusal: Refusal::Token });
    assert!(error.to_string().contains("A valid join token is necessary to join this cluster"), "{error}");
    assert!((200..1000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_session_knows_its_node() {
    let server = Server::start().await;
    let (_sender, mut messages) = session(&server.at(), &server.swarm.worker).await.unwrap();
    let first = messages.message().await.unwrap().unwrap().message.unwrap();
    let proto::manager_message::Message::Welcome(welcome) = first else { panic!("{first:?}") };
    assert_eq!(welcome.managers, [server.swarm.worker.node.to_string(), "Worker".into(), "127.0.0.1".into()]);
}

#[tokio::test]
async fn without_the_right_identity_nothing_is_answered() {
    let server = Server::start().await;
    let stranger = NodeIdentity { node: NodeId::random(), key: NodeKey::random() };
    let thief = NodeIdentity { node: server.swarm.worker.node.clone(), key: NodeKey::random() };
    for (identity, refusal) in [(stranger, Refusal::UnknownNode), (thief, Refusal::WrongKey)] {
        let error = session(&server.at(), &identity).await.unwrap_err();
        assert_eq!(error, RpcError::Refused { addr: server.at(), refusal });
    }
    // With nothing at all, and on a path that no service has.
    let channel = dial(&server.at()).await.unwrap();
    let mut nobody = proto::dispatcher_client::DispatcherClient::new(channel.clone());
    let status = nobody.leave(LeaveRequest {}).await.unwrap_err();
    assert_eq!(status.message(), Refusal::UnknownNode.to_string());
    let mut nobody = proto::membership_client::MembershipClient::new(channel);
    let status = nobody.join(join_request()).await.unwrap_err();
    assert_eq!(status.message(), Refusal::Token.to_string());
}

#[tokio::test]
async fn only_managers_take_part_in_agreeing() {
    let server = Server::start().await;
    let call = |identity: NodeIdentity| {
        let at = server.at();
        async move {
            let message = RaftMessage { to: 1, payload: vec![0; 3].into() };
            let answer = raft_client(&at, &identity).unwrap().append_entries(message).await;
            answer.map_err(|status| RpcError::from_status(&at, &status))
        }
    };
    assert_eq!(call(server.swarm.manager.clone()).await.unwrap().into_inner().payload, "3");
    let error = call(server.swarm.worker.clone()).await.unwrap_err();
    assert_eq!(error, RpcError::Refused { addr: server.at(), refusal: Refusal::NotManager });
}

#[tokio::test]
async fn large_messages_pass_and_larger_ones_do_not() {
    let server = Server::start().await;
    let mut client = raft_client(&server.at(), &server.swarm.manager).unwrap();
    let message = |size: usize| RaftMessage { to: 1, payload: vec![0; size].into() };
    let answer = client.append_entries(message(20 << 20)).await.unwrap().into_inner();
    assert_eq!(answer.payload, (20 << 20).to_string());
    assert!(client.append_entries(message(65 << 20)).await.is_err());
}

#[tokio::test]
async fn a_manager_without_a_leader_is_told_from_one_that_is_away() {
    let server = Server::start().await;
    let mut client = raft_client(&server.at(), &server.swarm.manager).unwrap();
    let status = client.vote(RaftMessage { to: 1, payload: vec![].into() }).await.unwrap_err();
    let error = RpcError::from_status(&server.at(), &status);
    assert!(matches!(error, RpcError::NoLeader { .. }), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = MembershipClient::join(&free, &server.swarm.token(), join_request()).await.unwrap_err();
    assert!(matches!(&error, RpcError::Unreachable { addr, .. } if *addr == free), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let mut client = raft_client(&free, &server.swarm.manager).unwrap();
    let status = client.vote(RaftMessage { to: 1, payload: vec![].into() }).await.unwrap_err();
    let error = RpcError::from_status(&free, &status);
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn stopping_does_not_wait_for_sessions() {
    let mut server = Server::start().await;
    let (_sender, mut messages) = session(&server.at(), &server.swarm.worker).await.unwrap();
    messages.message().await.unwrap();
    let began = Instant::now();
    server.stop.send(()).unwrap();
    server.serving.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let end = tokio::time::timeout(Duration::from_secs(3), messages.message()).await.expect("it should end");
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    assert!(server.ended.recv().await.is_some());
    assert!(TcpStream::connect(server.addr).await.is_err(), "the port should be closed");
}

/// Passes bytes on in both directions until it is told to swallow them, as a cable does that is cut.
async fn cable(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let cut = Arc::new(AtomicBool::new(false));
    let state = cut.clone();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = TcpStream::connect(to).await.unwrap().into_split();
        for (mut from, mut to) in [(near_read, far_write), (far_read, near_write)] {
            let cut = state.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut buffer).await {
                    if !cut.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
                // An end does not pass either.
                std::future::pending::<()>().await;
            });
        }
    });
    (addr, cut)
}

#[tokio::test]
async fn a_silent_peer_is_noticed_from_both_sides() {
    let mut server = Server::start().await;
    let (addr, cut) = cable(server.addr).await;
    let (sender, mut messages) = session(&addr.to_string(), &server.swarm.worker).await.unwrap();
    messages.message().await.unwrap();
    let heartbeat = proto::agent_message::Message::Heartbeat(Heartbeat {});
    sender.send(AgentMessage { message: Some(heartbeat) }).await.unwrap();
    cut.store(true, Ordering::Relaxed);
    let limit = Duration::from_secs(8);
    let near = tokio::time::timeout(limit, messages.message()).await.expect("the client should notice");
    assert!(near.is_err(), "{near:?}");
    // To the service a session that breaks is one that ends.
    let far = tokio::time::timeout(limit, server.ended.recv()).await.expect("the server should notice");
    assert!(far.is_some());
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_sent_away() {
    use tokio::io::AsyncReadExt;
    let server = Server::start().await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut buffer)).await;
    assert!(matches!(read.expect("it should be closed"), Ok(0) | Err(_)));
}

#[test]
fn the_nodes_key_does_not_show_in_debug_output() {
    let request = join_request();
    assert!(!format!("{request:?}").contains(&request.node_key[..8]));
    let keys = Assignments { gossip_keys: Some(GossipKeys { keys: encode(&"hush") }), ..Assignments::default() };
    assert!(!format!("{keys:?}").contains("hush"));
    let chunk = LogChunk { subscription: 77, lines: Vec::new() };
    assert!(format!("{chunk:?}").contains("77"), "other messages show themselves");
}
