//! Who is let in, and to what.

mod rig;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rig::{Server, Swarm, credentials, credentials_since, join_request};
use skep_ca::{JoinToken, RootCa, new_secret};
use skep_model::{NodeId, Role, Timestamp};
use skep_rpc::proto::dispatcher_client::DispatcherClient;
use skep_rpc::proto::{LeaveRequest, RaftMessage};
use skep_rpc::{
    MembershipClient, NodeIdentity, Refusal, RpcError, dial, dial_with_token, dispatcher_client, raft_client,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Every RPC that there is, as paths, from the proto itself.
fn every_rpc() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let files = protox::compile([format!("{root}/skep.proto")], [root]).unwrap();
    let mut paths = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let name = format!("/{}.{}", file.package(), service.name());
            paths.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
        }
    }
    paths
}

/// Calls with an empty message, and says how it begins: most RPCs are satisfied with that, or refuse it themselves.
async fn call(channel: Channel, path: &str, token: Option<&JoinToken>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(token) = token {
        request.metadata_mut().insert("skep-join-token", token.to_string().parse().unwrap());
    }
    let path: PathAndQuery = path.parse().unwrap();
    client.server_streaming(request, path, ProstCodec::<(), ()>::default()).await.map(drop)
}

/// What the gate said: `None` when it let the request through to its service.
fn refused(answer: Result<(), Status>, at: &str) -> Option<Refusal> {
    let status = answer.err()?;
    assert_ne!(status.code(), Code::Unimplemented, "{at}: {}", status.message());
    match RpcError::from_status(at, &status) {
        RpcError::Refused { refusal, .. } => Some(refusal),
        _ => None,
    }
}

#[tokio::test]
async fn every_rpc_is_for_whom_it_is_for_and_for_nobody_else() {
    let server = Server::start();
    let swarm = &server.swarm;
    let (token, at) = (swarm.token(), server.at());
    let nobody = dial_with_token(&at, &token).await.unwrap();
    let worker = dial(&at, &swarm.worker).await.unwrap();
    let manager = dial(&at, &swarm.manager).await.unwrap();
    let removed = dial(&at, &swarm.removed).await.unwrap();
    let rpcs = every_rpc();
    assert!(rpcs.len() >= 8, "{rpcs:?}");
    for path in &rpcs {
        let asked = async |channel: &Channel, token: Option<&JoinToken>| {
            refused(call(channel.clone(), path, token).await, &format!("{path} (does it have a rule in rules.rs?)"))
        };
        // Nobody, with a token that is good: it opens one door.
        let with_token = asked(&nobody, Some(&token)).await;
        let seen = [
            asked(&nobody, None).await,
            asked(&worker, None).await,
            asked(&manager, None).await,
            asked(&removed, None).await,
        ];
        let (opens, expected) = match path.as_str() {
            "/skep.v1.Membership/Join" => (None, [Some(Refusal::Token); 4]),
            path if path.starts_with("/skep.v1.Raft/") || path == "/skep.v1.Api/Tunnel" => (
                Some(Refusal::NoCertificate),
                [Some(Refusal::NoCertificate), Some(Refusal::NotManager), None, Some(Refusal::UnknownNode)],
            ),
            "/skep.v1.Membership/Renew"
            | "/skep.v1.Dispatcher/Session"
            | "/skep.v1.Dispatcher/PublishLogs"
            | "/skep.v1.Dispatcher/Leave" => {
                (Some(Refusal::NoCertificate), [Some(Refusal::NoCertificate), None, None, Some(Refusal::UnknownNode)])
            }
            other => panic!("{other} is new: say in this test who may call it"),
        };
        assert_eq!((with_token, seen), (opens, expected), "{path}");
    }
    let unknown = call(manager, "/skep.v1.Raft/Surprise", None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert!(unknown.message().contains("no such call"), "{unknown}");
}

#[tokio::test]
async fn the_smaller_of_the_roles_that_certificate_and_managers_say_counts() {
    let server = Server::start();
    let swarm = &server.swarm;
    for (certificate, known, may) in [
        (Role::Worker, Role::Manager, false),
        (Role::Manager, Role::Worker, false),
        (Role::Manager, Role::Manager, true),
    ] {
        let node = NodeId::random();
        swarm.others.lock().unwrap().push((node.clone(), known));
        let identity = NodeIdentity::new(swarm.credentials(&node, certificate)).unwrap();
        let mut client = raft_client(&server.at(), &identity, None).unwrap();
        let answer = client.append_entries(RaftMessage { to: 1, payload: vec![].into() }).await;
        assert_eq!(answer.is_ok(), may, "{certificate:?} {known:?}");
        let said = MembershipClient::renew(&server.at(), &identity, Vec::new()).await.unwrap().certificate;
        assert_eq!(said, format!("{node} {}", if may { "Manager" } else { "Worker" }));
    }
}

/// Calls as somebody, and says why that fails.
async fn trouble(at: &str, identity: &NodeIdentity) -> RpcError {
    let error = match dispatcher_client(at, identity).await {
        Err(error) => error,
        Ok(mut client) => RpcError::from_status(at, &client.leave(LeaveRequest {}).await.unwrap_err()),
    };
    // Connections that are made at the first call say the same.
    let mut lazy = raft_client(at, identity, None).unwrap();
    let status = lazy.vote(RaftMessage { to: 1, payload: vec![].into() }).await.unwrap_err();
    let late = RpcError::from_status(at, &status);
    assert_eq!(std::mem::discriminant(&late), std::mem::discriminant(&error), "{late} / {error}");
    error
}

#[tokio::test]
async fn a_member_of_another_swarm_is_no_member_whichever_way_round() {
    let (server, other) = (Server::start(), Swarm::new());
    // It does not even take the server for one of its managers.
    let error = trouble(&server.at(), &other.worker).await;
    let RpcError::Untrusted { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains("not issued by a root certificate that this node trusts"), "{why}");
    // One that trusts the server is not trusted by it.
    let mine = other.worker.credentials();
    let chain = mine.chain_pem();
    let trusting =
        skep_ca::Roots::from_pem(&(mine.roots().to_pem() + &server.swarm.root.certificate().to_pem())).unwrap();
    let foreign = skep_ca::NodeCredentials::new(mine.keys().clone(), &chain, trusting).unwrap();
    let error = trouble(&server.at(), &NodeIdentity::new(foreign).unwrap()).await;
    assert!(matches!(error, RpcError::Untrusted { .. }), "the swarm is not its own: {error}");
    // Of the same root, but with another swarm's name.
    let named = credentials(&server.swarm.root, &other.cluster, server.swarm.worker.node(), Role::Worker);
    let error = trouble(&server.at(), &NodeIdentity::new(named).unwrap()).await;
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_server_refuses_certificates_of_other_roots_in_words_that_say_so() {
    // The swarm's id, signed by another root: only the server can see that it is wrong.
    let server = Server::start();
    let swarm = &server.swarm;
    let forger = RootCa::generate(Timestamp::now()).unwrap();
    let forged = credentials(&forger, &swarm.cluster, swarm.manager.node(), Role::Manager);
    let roots = skep_ca::Roots::from_pem(&(forged.roots().to_pem() + &swarm.root.certificate().to_pem())).unwrap();
    let forged = skep_ca::NodeCredentials::new(forged.keys().clone(), &forged.chain_pem(), roots).unwrap();
    let error = trouble(&server.at(), &NodeIdentity::new(forged).unwrap()).await;
    assert!(matches!(error, RpcError::NotAccepted { .. }), "{error}");
    assert!(error.to_string().contains("does not accept this node's certificate"), "{error}");
}

#[tokio::test]
async fn clocks_that_disagree_have_their_own_sentence() {
    let server = Server::start();
    let swarm = &server.swarm;
    let hours = |hours: i64| Timestamp::from_second(Timestamp::now().as_second() + hours * 3600).unwrap();
    for issued in [hours(-91 * 24), hours(3)] {
        let (root, cluster) = (&swarm.root, &swarm.cluster);
        // The one that calls.
        let credentials = credentials_since(root, cluster, swarm.worker.node(), Role::Worker, issued);
        let error = trouble(&server.at(), &NodeIdentity::new(credentials).unwrap()).await;
        assert!(matches!(&error, RpcError::Clock { why, .. } if why.contains("this node's")), "{error}");
        assert!(error.to_string().contains("check that the clocks of both are right"), "{error}");
        // The one that answers.
        let credentials = credentials_since(root, cluster, swarm.manager.node(), Role::Manager, issued);
        let identity = NodeIdentity::new(credentials).unwrap();
        let other = Server::start_as("127.0.0.1:0", swarm.clone(), identity);
        let error = trouble(&other.at(), &swarm.worker).await;
        assert!(matches!(&error, RpcError::Clock { why, .. } if why.contains("the other side's")), "{error}");
        let error = MembershipClient::join(&other.at(), &swarm.token(), join_request()).await.unwrap_err();
        assert!(matches!(error, RpcError::Clock { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_worker_does_not_pass_for_a_manager_nor_one_manager_for_another() {
    let swarm = Swarm::new();
    let worker = Server::start_as("127.0.0.1:0", swarm.clone(), swarm.worker.clone());
    let error = trouble(&worker.at(), &swarm.manager).await;
    assert!(matches!(&error, RpcError::Untrusted { why, .. } if why.contains("not a manager")), "{error}");
    let error = MembershipClient::join(&worker.at(), &swarm.token(), join_request()).await.unwrap_err();
    assert!(matches!(&error, RpcError::Untrusted { why, .. } if why.contains("not a manager")), "{error}");
    assert_eq!(swarm.tokens_seen.load(Ordering::Relaxed), 0);

    let manager = Server::start_as("127.0.0.1:0", swarm.clone(), swarm.manager.clone());
    let message = || RaftMessage { to: 1, payload: vec![].into() };
    let mut right = raft_client(&manager.at(), &swarm.manager, Some(swarm.manager.node().clone())).unwrap();
    right.append_entries(message()).await.unwrap();
    let expected = NodeId::random();
    let mut wrong = raft_client(&manager.at(), &swarm.manager, Some(expected.clone())).unwrap();
    let error = RpcError::from_status("it", &wrong.append_entries(message()).await.unwrap_err());
    let RpcError::Untrusted { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains(expected.as_str()) && why.contains(swarm.manager.node().as_str()), "{why}");
}

#[tokio::test]
async fn a_join_token_is_shown_to_no_other_swarm() {
    let (server, other) = (Server::start(), Swarm::new());
    // The right secret, for another root: as if somebody else answered at the address.
    let token = JoinToken::new(other.root.certificate(), &server.swarm.secret).unwrap();
    let error = MembershipClient::join(&server.at(), &token, join_request()).await.unwrap_err();
    let RpcError::Untrusted { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains("not of the swarm that the join token is for"), "{why}");
    // A certificate of the right root beside that of the impostor proves nothing.
    let mine = other.manager.credentials();
    let chain = mine.chain_pem() + &server.swarm.root.certificate().to_pem();
    let impostor = skep_ca::NodeCredentials::new(mine.keys().clone(), &chain, mine.roots().clone()).unwrap();
    let impostor = Server::start_as("127.0.0.1:0", other.clone(), NodeIdentity::new(impostor).unwrap());
    let error = MembershipClient::join(&impostor.at(), &server.swarm.token(), join_request()).await.unwrap_err();
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");
    for seen in [&server.swarm.tokens_seen, &other.tokens_seen] {
        assert_eq!(seen.load(Ordering::Relaxed), 0, "the server was shown the secret");
    }
    MembershipClient::join(&server.at(), &server.swarm.token(), join_request()).await.unwrap();
    assert_eq!(server.swarm.tokens_seen.load(Ordering::Relaxed), 1);
}

/// Passes one connection on, with one bit of the server's `nth` piece of bytes turned. Says what the client said, and whether there was such a piece.
async fn in_the_middle(listener: TcpListener, to: SocketAddr, nth: usize) -> (Vec<u8>, bool) {
    let (mut near, _) = listener.accept().await.unwrap();
    let mut far = TcpStream::connect(to).await.unwrap();
    let (mut forth, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut heard, mut pieces) = (Vec::new(), 0);
    loop {
        let passed = tokio::select! {
            read = near.read(&mut forth) => match read {
                Ok(length @ 1..) => {
                    heard.extend_from_slice(&forth[..length]);
                    far.write_all(&forth[..length]).await
                }
                _ => break,
            },
            read = far.read(&mut back) => match read {
                Ok(length @ 1..) => {
                    if pieces == nth {
                        back[length - 1] ^= 1;
                    }
                    pieces += 1;
                    near.write_all(&back[..length]).await
                }
                _ => break,
            },
        };
        if passed.is_err() {
            break;
        }
    }
    (heard, pieces > nth)
}

#[tokio::test]
async fn somebody_in_the_middle_sees_nothing_and_changes_nothing() {
    let server = Server::start();
    for nth in 0.. {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let middle = tokio::spawn(in_the_middle(listener, server.addr, nth));
        let joined = MembershipClient::join(&at, &server.swarm.token(), join_request()).await;
        let (heard, turned) = middle.await.unwrap();
        let secret = server.swarm.secret.as_bytes();
        assert!(!heard.windows(secret.len()).any(|window| window == secret), "the secret was readable");
        if !turned {
            // All that the server says has been tried, and what is left alone arrives.
            joined.unwrap();
            assert!(nth >= 2, "the handshake and the answer are two pieces at least");
            return;
        }
        // Bytes that come after the whole answer change nothing any more.
        assert!(joined.is_err() || nth > 2, "a turned bit in piece {nth} went unnoticed");
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_connection_on_by_both_sides() {
    let server = Server::start();
    let swarm = &server.swarm;
    let node = NodeId::random();
    swarm.others.lock().unwrap().push((node.clone(), Role::Manager));
    let identity = NodeIdentity::new(swarm.credentials(&node, Role::Worker)).unwrap();
    let role = async |client: &mut skep_rpc::proto::membership_client::MembershipClient<Channel>| {
        client.renew(skep_rpc::proto::RenewRequest::default()).await.map(|answer| answer.into_inner().certificate)
    };
    let mut standing =
        skep_rpc::proto::membership_client::MembershipClient::new(dial(&server.at(), &identity).await.unwrap());
    assert!(role(&mut standing).await.unwrap().ends_with("Worker"));
    identity.replace(swarm.credentials(&node, Role::Manager)).unwrap();
    assert_eq!(identity.role(), Role::Manager);
    assert!(role(&mut standing).await.unwrap().ends_with("Worker"), "what stands goes on");
    let said = MembershipClient::renew(&server.at(), &identity, Vec::new()).await.unwrap().certificate;
    assert!(said.ends_with("Manager"), "{said}");
    // Another node's certificate is no renewal.
    assert!(identity.replace(swarm.credentials(&NodeId::random(), Role::Manager)).is_err());
    assert!(identity.replace(Swarm::new().credentials(&node, Role::Manager)).is_err());
    assert_eq!(identity.role(), Role::Manager);

    // The server gets a root of its own, and then trusts and shows only that.
    let root = RootCa::generate(Timestamp::now()).unwrap();
    swarm.manager.replace(credentials(&root, &swarm.cluster, swarm.manager.node(), Role::Manager)).unwrap();
    assert!(role(&mut standing).await.unwrap().ends_with("Worker"), "what stands goes on");
    let error = trouble(&server.at(), &identity).await;
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");
    identity.replace(credentials(&root, &swarm.cluster, &node, Role::Manager)).unwrap();
    MembershipClient::renew(&server.at(), &identity, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_waits_in_part_only_and_holds_up_nobody() {
    let server = Server::start();
    let channel = dial_with_token(&server.at(), &server.swarm.token()).await.unwrap();
    let wrong = JoinToken::new(server.swarm.root.certificate(), &new_secret()).unwrap();
    let began = Instant::now();
    let calls = (0..200).map(|_| call(channel.clone(), "/skep.v1.Membership/Join", Some(&wrong)));
    let flood = futures::future::join_all(calls);
    let (at, token) = (server.at(), server.swarm.token());
    let good = MembershipClient::join(&at, &token, join_request());
    let (flood, good) = tokio::join!(flood, good);
    good.unwrap();
    let seen: Vec<_> = flood.into_iter().map(|answer| refused(answer, "it")).collect();
    let count = |refusal| seen.iter().filter(|one| **one == Some(refusal)).count();
    assert_eq!(count(Refusal::Token) + count(Refusal::Busy), 200);
    assert!(count(Refusal::Token) >= 64, "{} of 200 waited", count(Refusal::Token));
    assert!(count(Refusal::Busy) > 0, "all 200 waited at a time");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_from_a_manager() {
    let server = Server::start();
    // As a client: a request in plain HTTP/2.
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), plain.read_to_end(&mut answer)).await;
    drop(ended.expect("it should hang up"));
    assert!(answer.len() < 16 && !answer.windows(4).any(|w| w == b"HTTP"), "{answer:?}");
    // As a server.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
        }
    });
    let error = dial(&at, &server.swarm.worker).await.unwrap_err();
    assert!(matches!(&error, RpcError::Unreachable { why, .. } if why.contains("does not speak TLS")), "{error}");
}

#[tokio::test]
async fn the_handshake_has_a_time_limit_and_does_not_hold_up_others() {
    let server = Server::start();
    // The first bytes of a ClientHello, and then nothing.
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    slow.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    let began = Instant::now();
    DispatcherClient::new(dial(&server.at(), &server.swarm.worker).await.unwrap())
        .leave(LeaveRequest {})
        .await
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let mut buffer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut buffer)).await;
    drop(closed.expect("it should be closed"));
}

#[tokio::test]
async fn callers_without_a_certificate_take_no_room_from_members() {
    let server = Server::start();
    let token = server.swarm.token();
    let mut connected = Vec::new();
    let refused = loop {
        match dial_with_token(&server.at(), &token).await {
            Ok(channel) => connected.push(channel),
            Err(error) => break error,
        }
        assert!(connected.len() < 1000, "there should be a limit");
    };
    assert!(matches!(refused, RpcError::Unreachable { .. }), "{refused}");
    let mut member = dispatcher_client(&server.at(), &server.swarm.worker).await.unwrap();
    member.leave(LeaveRequest {}).await.unwrap();
    // Who goes makes room.
    connected.clear();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = MembershipClient::join(&server.at(), &token, join_request()).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test]
async fn no_session_is_resumed_whatever_the_client_would_like() {
    use rustls::HandshakeKind;
    let server = Server::start();
    let verifier = std::sync::Arc::new(skep_ca::TokenVerifier::new(server.swarm.token()));
    // The library's own defaults: it keeps sessions where servers offer them.
    let config = rustls::ClientConfig::builder_with_provider(skep_ca::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    for _ in 0..2 {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let mut stream = connector.connect(skep_ca::manager_name(), stream).await.unwrap();
        // Whatever the server offers comes before what it says first.
        stream.read_u8().await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
}
