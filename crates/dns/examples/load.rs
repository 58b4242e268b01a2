//! Asks a resolver at a fixed rate and says how long answers take: `cargo run --release -p skep-dns --example load -- [RATE] [SECONDS]`.
//!
//! The resolver is in a namespace of its own, as a task's, and has names of ten services with twenty tasks each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use skep_dns::{ADDRESS, Asker, Counters, Named, Ports, Resolver, Scope, Sockets, Target, Unknown, Zone};
use skep_network::Namespace;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// An answer that takes longer counts as lost.
const LOST: Duration = Duration::from_secs(1);

fn zone() -> Zone {
    let mut zone = Zone { name: "app".to_owned(), ..Zone::default() };
    for service in 0..10u8 {
        let target = |task: u8| {
            Arc::new(Target {
                name: format!("service{service}.{task}.app"),
                addresses: vec![Ipv4Addr::new(10, 1, service, task).into()],
                ports: Ports::Same,
                ttl: 1,
                only_for: None,
            })
        };
        let named = Named { targets: (1..=20).map(target).collect() };
        zone.names.insert(format!("tasks.service{service}"), named);
    }
    zone
}

fn question(number: u16) -> Vec<u8> {
    let mut message = Message::new(number, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("tasks.service{}.", number % 10)).expect("a name");
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().expect("a question")
}

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let rate: u32 = words.next().map_or(1000, |word| word.parse().expect("questions a second"));
    let seconds: u32 = words.next().map_or(10, |word| word.parse().expect("seconds"));
    let path: PathBuf = std::env::temp_dir().join(format!("skep-dns-load-{}", std::process::id()));
    let namespace = Namespace::create(&path).expect("run it as root");
    let sockets = Sockets::inside(&path).expect("a fresh namespace has the port");
    let scope = watch::Sender::new(Scope { zones: vec![Arc::new(zone())], own: None });
    let asker = Asker { scope: scope.subscribe(), unknown: Unknown::Deny, counters: Arc::new(Counters::default()) };
    let _resolver = Resolver::start(sockets, asker).expect("a resolver");
    let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let mut asking = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..rate * seconds {
        ticks.tick().await;
        let socket = namespace.run(bind).expect("the namespace").expect("a socket");
        asking.push(tokio::spawn(ask(socket, number as u16)));
    }
    let mut took = Vec::new();
    for asked in asking {
        took.extend(asked.await.expect("no panic"));
    }
    took.sort_unstable();
    Namespace::delete(&path).expect("the namespace");
    let at = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1)));
    println!(
        "{} of {} answered; p50 {:?}, p99 {:?}, the slowest {:?}",
        took.len(),
        rate * seconds,
        at(0.5).unwrap_or(&LOST),
        at(0.99).unwrap_or(&LOST),
        took.last().unwrap_or(&LOST)
    );
}

async fn ask(socket: std::net::UdpSocket, number: u16) -> Option<Duration> {
    socket.set_nonblocking(true).ok()?;
    let socket = UdpSocket::from_std(socket).ok()?;
    let began = Instant::now();
    socket.send_to(&question(number), SocketAddr::from((ADDRESS, 53))).await.ok()?;
    let mut buffer = [0; 1500];
    timeout(LOST, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(began.elapsed())
}
