//! A server and its callers, over loopback.

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rig::{Server, join_request};
use skep_ca::{JoinToken, new_secret};
use skep_rpc::proto::{self, AgentMessage, Assignments, GossipKeys, Heartbeat, LogChunk, ManagerMessage, RaftMessage};
use skep_rpc::{MembershipClient, NodeIdentity, Refusal, RpcError, dispatcher_client, encode, listen, raft_client};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

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
    let server = Server::start();
    let joined = MembershipClient::join(&server.at(), &server.swarm.token(), join_request()).await.unwrap();
    assert_eq!((joined.role.as_str(), joined.node_addr.as_str()), ("Worker", "127.0.0.1"));
}

#[tokio::test]
async fn every_address_means_both_families_and_one_address_means_that_one() {
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let server = Server::start_at(everywhere);
        for (host, seen) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            let at = format!("{host}:{}", server.addr.port());
            let joined = MembershipClient::join(&at, &server.swarm.token(), join_request()).await.unwrap();
            assert_eq!(joined.node_addr, seen, "{at}, listening on {everywhere}");
        }
    }
    let server = Server::start_at("[::1]:0");
    assert!(server.addr.ip().is_loopback());
    MembershipClient::join(&server.at(), &server.swarm.token(), join_request()).await.unwrap();
    let taken = listen(server.addr).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_wrong_token_is_refused_in_known_words_slowly_but_within_a_second() {
    let server = Server::start();
    let wrong = JoinToken::new(server.swarm.root.certificate(), &new_secret()).unwrap();
    let began = Instant::now();
    let error = MembershipClient::join(&server.at(), &wrong, join_request()).await.unwrap_err();
    assert_eq!(error, RpcError::Refused { addr: server.at(), refusal: Refusal::Token });
    assert!(error.to_string().contains("A valid join token is necessary to join this cluster"), "{error}");
    assert!((200..1000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_session_knows_its_node() {
    let server = Server::start();
    let (_sender, mut messages) = session(&server.at(), &server.swarm.worker).await.unwrap();
    let first = messages.message().await.unwrap().unwrap().message.unwrap();
    let proto::manager_message::Message::Welcome(welcome) = first else { panic!("{first:?}") };
    assert_eq!(welcome.managers, [server.swarm.worker.node().to_string(), "Worker".into(), "127.0.0.1".into()]);
}

#[tokio::test]
async fn large_messages_pass_and_larger_ones_do_not() {
    let server = Server::start();
    let mut client = raft_client(&server.at(), &server.swarm.manager, None).unwrap();
    let message = |size: usize| RaftMessage { to: 1, payload: vec![0; size].into() };
    let answer = client.append_entries(message(20 << 20)).await.unwrap().into_inner();
    assert_eq!(answer.payload, (20 << 20).to_string());
    assert!(client.append_entries(message(65 << 20)).await.is_err());
}

#[tokio::test]
async fn a_manager_without_a_leader_is_told_from_one_that_is_away() {
    let server = Server::start();
    let mut client = raft_client(&server.at(), &server.swarm.manager, None).unwrap();
    let status = client.vote(RaftMessage { to: 1, payload: vec![].into() }).await.unwrap_err();
    let error = RpcError::from_status(&server.at(), &status);
    assert!(matches!(error, RpcError::NoLeader { .. }), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = MembershipClient::join(&free, &server.swarm.token(), join_request()).await.unwrap_err();
    assert!(matches!(&error, RpcError::Unreachable { addr, .. } if *addr == free), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let mut client = raft_client(&free, &server.swarm.manager, None).unwrap();
    let status = client.vote(RaftMessage { to: 1, payload: vec![].into() }).await.unwrap_err();
    let error = RpcError::from_status(&free, &status);
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn stopping_does_not_wait_for_sessions() {
    let mut server = Server::start();
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
    let mut server = Server::start();
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
    let server = Server::start();
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut buffer)).await;
    assert!(matches!(read.expect("it should be closed"), Ok(0) | Err(_)));
}

#[test]
fn keys_do_not_show_in_debug_output() {
    let keys = Assignments { gossip_keys: Some(GossipKeys { keys: encode(&"hush") }), ..Assignments::default() };
    assert!(!format!("{keys:?}").contains("hush"));
    let chunk = LogChunk { subscription: 77, lines: Vec::new() };
    assert!(format!("{chunk:?}").contains("77"), "other messages show themselves");
}
