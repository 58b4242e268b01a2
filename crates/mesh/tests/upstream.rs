//! A load balancer in front: one address that asks every node in turn, with a fresh connection for each request, closed by the server. Its ports
//! come again while tasks' kernels still remember them.
//!
//! `SKEP_SOAK_SECONDS=60` asks for a minute, and then nobody may wait for 100 ms either.

mod lab;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::{Lab, Netns, ingress};
use skep_mesh::{Datapath as _, Event};
use skep_model::Protocol;

/// New connections a second that a load balancer is to have, and how many clients share them.
const RATE: u32 = 5000;
const CLIENTS: u32 = 32;
/// Where HAProxy listens.
const FRONT: &str = "127.0.0.1:7000";

/// HAProxy in a namespace, until it is dropped.
struct HaProxy(Child);

impl HaProxy {
    fn start(ns: &Netns, servers: &[SocketAddr], dir: &std::path::Path) -> Self {
        let servers: Vec<_> = servers.iter().enumerate().map(|(n, to)| format!(" server node{n} {to}\n")).collect();
        let config = format!(
            "global\n nbthread 2\ndefaults\n mode http\n option http-server-close\n http-reuse never\n timeout connect 5s\n \
             timeout client 1m\n timeout server 1m\nlisten web\n bind {FRONT}\n balance roundrobin\n{}",
            servers.concat()
        );
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = ns.command(&format!("haproxy -db -q -f {}", file.display()));
        let haproxy = Self(command.stdout(Stdio::null()).spawn().unwrap());
        lab::eventually("HAProxy to listen", || ns.run(|| TcpStream::connect(FRONT)).is_ok());
        haproxy
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_haproxy_with_5000_connections_a_second_waits_for_nobody() {
    let soak = std::env::var("SKEP_SOAK_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    let length = Duration::from_secs(soak.unwrap_or(5));
    let mut lab =
        Lab::sized(3, lab::Attach::Best, skep_mesh::MapSizes { flows: 1 << 20, frontends: 1024, backends: 1024 });
    lab.service(&[ingress(Protocol::Tcp, 8080, 80)], &[1, 2]);
    let nodes: Vec<_> = lab.nodes.iter().map(|node| (node.underlay, 8080).into()).collect();
    let dir = tempfile::tempdir().unwrap();
    let _haproxy = HaProxy::start(&lab.client, &nodes, dir.path());
    let mut waits: Vec<Duration> = lab.client.run(|| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || ask_on_time(n, began, length))).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        })
    });
    waits.sort_unstable();
    let ended = time_waits_ended(&lab);
    let worst = waits[waits.len() - 1];
    println!(
        "{} connections in {length:?}, {ended} by a tuple that was remembered; p50 {:?}, p99 {:?}, worst {worst:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    );
    nobody_waited(&lab);
    assert!(soak.is_none() || worst < Duration::from_millis(100), "somebody waited {worst:?}");
}

/// Connections by a tuple that a task's kernel remembered until then.
fn time_waits_ended(lab: &Lab) -> u64 {
    lab.nodes.iter().map(|n| n.bpf().counters().unwrap().events[&Event::TimeWaitEnded]).sum()
}

/// No SYN was sent twice, and no task's kernel took one for an old connection's.
fn nobody_waited(lab: &Lab) {
    let paws: Vec<_> = lab.tasks.iter().map(|t| tcp_counter(&t.ns, "PAWSTimewait")).collect();
    let drops: Vec<_> = lab.nodes.iter().map(|n| n.bpf().counters().unwrap()).map(|c| (c.drops, c.events)).collect();
    assert_eq!(tcp_counter(&lab.client, "TCPSynRetrans"), 0, "PAWS {paws:?}, {drops:?}");
    assert!(paws.iter().all(|count| *count == 0), "{paws:?}");
}

/// One client's share of the requests, each when it is due, over one connection to the load balancer; how long each answer took from then on.
fn ask_on_time(client: u32, began: Instant, length: Duration) -> Vec<Duration> {
    let mut stream = TcpStream::connect(FRONT).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut waits = Vec::new();
    for turn in 0.. {
        let due = Duration::from_secs(1) * (turn * CLIENTS + client) / RATE;
        if due >= length {
            return waits;
        }
        std::thread::sleep((began + due).saturating_duration_since(Instant::now()));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
        read_answer(&mut answers);
        waits.push((began + due).elapsed());
    }
    waits
}

/// An answer must be the task's.
fn read_answer(from: &mut BufReader<TcpStream>) {
    let (mut line, mut length) = (String::new(), 0);
    from.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        from.read_line(&mut line).unwrap();
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = number.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    assert!(String::from_utf8_lossy(&body).contains("10.99.0.100:"), "the load balancer's own address arrives");
}

/// One that asks as fast as it can and has few ports: they come again within fractions of a second, at tasks whose kernels remember each for a
/// minute. No SYN may be lost to such a memory.
#[test]
fn fresh_connections_to_all_nodes_in_turn_are_never_stalled() {
    let mut lab = Lab::new(3);
    lab.service(&[ingress(Protocol::Tcp, 8080, 80)], &[1, 2]);
    lab.client.sysctl("net/ipv4/ip_local_port_range", "20000 20999");
    let (began, mut asked) = (Instant::now(), 0);
    // On a slow machine it takes longer until it means anything.
    while asked == 0 || time_waits_ended(&lab) < 500 {
        let ends = Instant::now() + Duration::from_secs(5);
        asked += std::thread::scope(|scope| {
            let ask = |n| lab.client.run(|| ask_in_turn(&lab, n, ends));
            let asking: Vec<_> = (0..6).map(|n| scope.spawn(move || ask(n))).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!(began.elapsed() < Duration::from_secs(60), "{asked} in a minute are too few to mean anything");
    }
    println!("{asked} connections, {} of them by a tuple that was remembered", time_waits_ended(&lab));
    nobody_waited(&lab);
}

fn ask_in_turn(lab: &Lab, first: usize, ends: Instant) -> usize {
    let mut asked = 0;
    while Instant::now() < ends {
        let to = lab.nodes[(first + asked) % 3].underlay;
        // All ports may be in use for an instant: the sockets of the other threads are few, but linger a little.
        let mut stream = TcpStream::connect((to, 8080)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("200 OK"));
        asked += 1;
    }
    asked
}

/// One of the counters of TCP in a namespace (proc(5)).
fn tcp_counter(ns: &Netns, name: &str) -> u64 {
    let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let found = names.split(' ').zip(values.split(' ')).find(|(n, _)| *n == name);
    found.map_or(0, |(_, value)| value.parse().unwrap())
}
