//! A resolver with sockets, and others that it asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::world::{World, query, told, with_room};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A as Address;
use hickory_proto::rr::{RData, Record, RecordType};
use skep_dns::{Asked, Asker, Became, Counters, Forwarder, NodeResolvers, Resolver, Sockets, Unknown, Upstream};
use skep_model::EndpointState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

use RecordType::A;

/// One that answers everybody as `by_udp` and `by_tcp` say.
async fn upstream(by_udp: fn(Message) -> Vec<Message>, by_tcp: fn(Message) -> Message) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            for reply in by_udp(Message::from_vec(&buffer[..length]).unwrap()) {
                udp.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut message = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut message).await.unwrap();
            let reply = by_tcp(Message::from_vec(&message).unwrap()).to_vec().unwrap();
            stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    address
}

fn reply(asked: &Message, addresses: u16) -> Message {
    let mut reply = asked.clone().into_response();
    for n in 0..addresses {
        let [high, low] = n.to_be_bytes();
        let address = RData::A(Address(Ipv4Addr::new(192, 0, high + 2, low)));
        reply.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, address));
    }
    reply
}

fn code(asked: &Message, code: ResponseCode) -> Message {
    let mut reply = reply(asked, 0);
    reply.metadata.response_code = code;
    reply
}

fn no_tcp(_: Message) -> Message {
    panic!("asked by TCP")
}

struct Rig {
    resolver: Resolver,
    address: SocketAddr,
    scope: watch::Sender<skep_dns::Scope>,
    counters: Arc<Counters>,
}

fn rig(world: &World, unknown: Unknown) -> Rig {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = std::net::TcpListener::bind(address).unwrap();
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (scope, seen) = watch::channel(world.scope(&['n'], None));
    let counters = Arc::new(Counters::default());
    let asker = Asker { scope: seen, unknown, counters: counters.clone() };
    Rig { resolver: Resolver::start(Sockets { udp, tcp }, asker).unwrap(), address, scope, counters }
}

fn forward(servers: &[SocketAddr]) -> Unknown {
    let given = servers.iter().map(|address| Upstream { address: *address, netns: None });
    Unknown::Forward(Arc::new(Forwarder::given(given.collect())))
}

impl Rig {
    async fn by_udp(&self, message: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&message.to_vec().unwrap()).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.id, message.id);
        reply
    }

    async fn by_tcp(&self, messages: &[Message]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut replies = Vec::new();
        for message in messages {
            let bytes = message.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
        for _ in messages {
            let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut reply).await.unwrap();
            replies.push(Message::from_vec(&reply).unwrap());
        }
        replies
    }
}

#[tokio::test]
async fn names_are_answered_by_udp_and_tcp_and_follow_the_scope_at_once() {
    let mut world = World::new();
    let rig = rig(&world, Unknown::Deny);
    assert_eq!(told(&rig.by_udp(&query("web", A)).await), ["A 10.1.0.2"]);
    let replies = rig.by_tcp(&[query("web", A), query("tasks.api", A), query("nosuch", A)]).await;
    assert_eq!((told(&replies[0]), told(&replies[1])), (vec!["A 10.1.0.2".into()], vec!["A 10.1.0.21".into()]));
    assert_eq!(replies[2].response_code, ResponseCode::NXDomain);
    for located in world.endpoints.values_mut() {
        Arc::make_mut(&mut located.record).state = EndpointState::Ready;
    }
    rig.scope.send_replace(world.scope(&['n'], None));
    assert_eq!(told(&rig.by_udp(&query("tasks.api", A)).await), ["A 10.1.0.21", "A 10.1.0.22"]);
    let counted = |became| rig.counters.of(Asked::A, became);
    assert_eq!((counted(Became::Records), counted(Became::NoName), counted(Became::Forwarded)), (4, 1, 0));
}

#[tokio::test]
async fn what_is_unknown_is_asked_of_others() {
    let others = upstream(|asked| vec![reply(&asked, 1)], no_tcp).await;
    let rig = rig(&World::new(), forward(&[others]));
    assert_eq!(told(&rig.by_udp(&query("example.org", A)).await), ["A 192.0.2.0"]);
    assert_eq!(told(&rig.by_tcp(&[query("nosuch", A)]).await[0]), ["A 192.0.2.0"]);
    let counted = |became| rig.counters.of(Asked::A, became);
    assert_eq!((counted(Became::Records), counted(Became::Forwarded), counted(Became::Failed)), (0, 2, 0));
}

#[tokio::test]
async fn a_negative_answer_is_passed_on() {
    let others = upstream(|asked| vec![code(&asked, ResponseCode::NXDomain)], no_tcp).await;
    let rig = rig(&World::new(), forward(&[others]));
    assert_eq!(rig.by_udp(&query("nosuch", A)).await.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn forged_answers_are_not_taken() {
    let others = upstream(
        |asked| {
            let (mut id, mut name, mut question) = (reply(&asked, 2), reply(&asked, 2), reply(&asked, 2));
            id.metadata.id ^= 1;
            name.queries = query("example.com", A).queries;
            question.metadata.message_type = hickory_proto::op::MessageType::Query;
            let mut kind = reply(&asked, 2);
            kind.queries[0].set_query_type(RecordType::TXT);
            vec![id, name, question, kind, reply(&asked, 1)]
        },
        no_tcp,
    );
    let rig = rig(&World::new(), forward(&[others.await]));
    assert_eq!(told(&rig.by_udp(&query("example.org", A)).await), ["A 192.0.2.0"]);
}

#[tokio::test]
async fn who_fails_or_declines_or_is_silent_is_passed_over() {
    let silent = upstream(|_| Vec::new(), no_tcp).await;
    let fails = upstream(|asked| vec![code(&asked, ResponseCode::ServFail)], no_tcp).await;
    let declines = upstream(|asked| vec![code(&asked, ResponseCode::Refused)], no_tcp).await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let good = upstream(|asked| vec![reply(&asked, 1)], no_tcp).await;
    let rig = rig(&World::new(), forward(&[nobody, fails, declines, silent, good]));
    let began = Instant::now();
    assert_eq!(told(&rig.by_udp(&query("example.org", A)).await), ["A 192.0.2.0"]);
    assert!(began.elapsed() < Duration::from_secs(4));
    // Who answered is asked first from then on.
    let began = Instant::now();
    assert_eq!(told(&rig.by_udp(&query("example.org", A)).await), ["A 192.0.2.0"]);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nobody_to_ask_is_a_failure_at_once() {
    let began = Instant::now();
    for unknown in [forward(&[]), forward(&[SocketAddr::from(([127, 0, 0, 1], 9))])] {
        let rig = rig(&World::new(), unknown);
        let reply = rig.by_udp(&query("example.org", A)).await;
        assert_eq!((reply.response_code, reply.queries.len()), (ResponseCode::ServFail, 1));
        assert_eq!(rig.counters.of(Asked::A, Became::Failed), 1);
    }
    assert!(began.elapsed() < Duration::from_secs(1));
}

fn only_a_part(asked: &Message) -> Vec<Message> {
    let mut part = reply(asked, 3);
    part.metadata.truncation = true;
    vec![part]
}

#[tokio::test]
async fn what_has_no_room_in_a_datagram_is_asked_by_tcp() {
    let others = upstream(|asked| only_a_part(&asked), |asked| reply(&asked, 600)).await;
    let rig = rig(&World::new(), forward(&[others]));
    assert_eq!(rig.by_tcp(&[query("example.org", A)]).await[0].answers.len(), 600);
    let small = rig.by_udp(&query("example.org", A)).await;
    assert_eq!((small.answers.len(), small.truncation), (0, true));
    let roomy = rig.by_udp(&with_room(query("example.org", A), 16_000)).await;
    assert_eq!((roomy.answers.len(), roomy.truncation), (600, false));
}

#[tokio::test]
async fn single_labels_stay_here_when_a_search_domain_is_to_be_tried() {
    let others = upstream(|asked| vec![reply(&asked, 1)], no_tcp).await;
    let Unknown::Forward(others) = forward(&[others]) else { panic!() };
    let rig = rig(&World::new(), Unknown::ForwardLonger(others));
    let reply = rig.by_udp(&query("nosuch", A)).await;
    assert_eq!((told(&reply), reply.response_code), (vec![], ResponseCode::NoError));
    assert_eq!(told(&rig.by_udp(&query("nosuch.example.org", A)).await), ["A 192.0.2.0"]);
}

#[tokio::test]
async fn the_node_s_resolvers_are_those_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(NodeResolvers::of(&dir.path().join("resolv.conf")));
    let rig = rig(&World::new(), Unknown::Forward(Arc::new(Forwarder::node(node))));
    assert_eq!(rig.by_udp(&query("example.org", A)).await.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_crowd_of_connections_and_rubbish_hurts_nobody() {
    let rig = rig(&World::new(), Unknown::Deny);
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(rig.address).await.unwrap());
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for rubbish in [&[][..], &[0; 11], &[0xff; 4096], &[0; 9000]] {
        socket.send_to(rubbish, rig.address).await.unwrap();
    }
    let mut large = idle.pop().unwrap();
    // Beyond the limit, so it may be closed already.
    let _ = large.write_all(&[0xff; 300]).await;
    assert_eq!(told(&rig.by_udp(&query("web", A)).await), ["A 10.1.0.2"]);
    drop(idle);
}

#[tokio::test]
async fn its_sockets_are_closed_when_it_has_stopped() {
    let others = upstream(|_| Vec::new(), no_tcp).await;
    let rig = rig(&World::new(), forward(&[others]));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query("example.org", A).to_vec().unwrap(), rig.address).await.unwrap();
    let connection = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(told(&rig.by_udp(&query("web", A)).await), ["A 10.1.0.2"]);
    rig.resolver.stop().await;
    std::net::UdpSocket::bind(rig.address).unwrap();
    drop(connection);
}
