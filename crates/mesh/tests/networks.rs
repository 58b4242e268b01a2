//! The swarm's own networks, with real traffic through real devices: tasks that talk to tasks, to services, and to the world outside.

mod lab;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use lab::{CLIENT, CLIENT6, Lab, Netns, ask_tcp, ask_udp, ingress, is_refused, serve, serve_at};
use skep_mesh::{Datapath, DropReason, Event, NetworkKind};
use skep_model::{NetworkId, Protocol, ServiceId, mesh_ipv6};

/// Two nodes with two tasks of one service on each; all but the last are on one network, and the last two on another.
struct Networks {
    lab: Lab,
    service: ServiceId,
    app: NetworkId,
    other: NetworkId,
}

impl Networks {
    fn new() -> Self {
        Self::of(NetworkKind::Open, [None; 2])
    }

    /// Once with IPv6 addresses as on all networks, and once with subnets of their own.
    fn each() -> impl Iterator<Item = Self> {
        [[None; 2], OWN.map(Some)].into_iter().map(|subnets| Self::of(NetworkKind::Open, subnets))
    }

    fn of(kind: NetworkKind, subnets: [Option<&str>; 2]) -> Self {
        let mut lab = Lab::new(2);
        let service = lab.service(&[ingress(Protocol::Tcp, 8080, 80)], &[0, 0, 1, 1]);
        let app = lab.network("10.1.0.0/24", kind);
        subnets[0].iter().for_each(|subnet| lab.own_subnet6(subnet));
        let other = lab.network("10.2.0.0/24", NetworkKind::Internal);
        subnets[1].iter().for_each(|subnet| lab.own_subnet6(subnet));
        for task in [0, 1, 2] {
            lab.join(task, &app);
        }
        for task in [2, 3] {
            lab.join(task, &other);
        }
        lab.apply();
        Self { lab, service, app, other }
    }

    fn addr(&self, task: usize, network: &NetworkId) -> Ipv4Addr {
        self.lab.tasks[task].networks.iter().find(|(id, _)| id == network).unwrap().1
    }

    /// An address on a network, in both families.
    fn both(&self, network: &NetworkId, addr: Ipv4Addr) -> [IpAddr; 2] {
        let network = self.lab.networks.iter().find(|n| n.id == *network).unwrap();
        [addr.into(), network.prefix6().with(addr).into()]
    }

    /// Those of a task.
    fn addrs(&self, task: usize, network: &NetworkId) -> [IpAddr; 2] {
        self.both(network, self.addr(task, network))
    }

    fn drops(&self, node: usize, reason: DropReason) -> u64 {
        self.lab.nodes[node].bpf().counters().unwrap().drops[&reason]
    }
}

/// Subnets of networks' own. The bits between the prefix and what is IPv4's are no zeros of necessity.
const OWN: [&str; 2] = ["2001:db8:1::/64", "fd00:2:3:4:5:6::/96"];

fn pings(ns: &Netns, to: IpAddr, options: &str) -> bool {
    let mut ping = ns.command(&format!("busybox ping -c 1 -W 2 {options} {to}"));
    ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn tasks_of_one_network_talk_to_each_other_here_and_there() {
    for n in Networks::each() {
        for (from, to) in [(0, 1), (0, 2), (2, 0), (1, 2)] {
            let ns = &n.lab.tasks[from].ns;
            for (own, peer) in n.addrs(from, &n.app).into_iter().zip(n.addrs(to, &n.app)) {
                for _ in 0..3 {
                    let answer = ns.run(|| ask_tcp(peer, 80)).unwrap_or_else(|e| panic!("{from} {to} {peer}: {e}"));
                    assert_eq!(answer.peer_ip(), own, "{from} {to}");
                }
                // With more than fits into one packet, too.
                for length in [10, 4000, 20_000] {
                    let answer =
                        ns.run(|| ask_udp(peer, 80, length)).unwrap_or_else(|e| panic!("{from} {to} {length}: {e}"));
                    assert_eq!(answer.peer_ip(), own, "{from} {to}");
                }
                assert!(pings(ns, peer, ""), "{from} {to} {peer}");
                assert!(pings(ns, peer, "-s 3000"), "{from} {to} {peer}, in pieces");
            }
        }
    }
}

#[test]
fn tasks_that_do_not_listen_refuse_themselves() {
    for n in Networks::each() {
        for to in [1, 2] {
            for peer in n.addrs(to, &n.app) {
                n.lab.tasks[0].ns.run(|| {
                    assert!(is_refused(&ask_tcp(peer, 81)), "{peer}");
                    assert!(is_refused(&ask_udp(peer, 81, 10)), "{peer}");
                });
            }
        }
    }
}

#[test]
fn a_task_that_starts_or_drains_talks_and_is_talked_to() {
    let mut n = Networks::new();
    n.lab.tasks[0].state = skep_model::EndpointState::Starting;
    n.lab.tasks[2].state = skep_model::EndpointState::Draining;
    n.lab.apply();
    let (one, two) = (n.addr(0, &n.app), n.addr(2, &n.app));
    assert!(n.lab.tasks[0].ns.run(|| ask_tcp(two, 80)).is_ok());
    assert!(n.lab.tasks[2].ns.run(|| ask_tcp(one, 80)).is_ok());
}

#[test]
fn nothing_goes_from_one_network_to_another() {
    for n in Networks::each() {
        let [here, there] = [n.addr(2, &n.other), n.addr(3, &n.other)];
        let nobody = Ipv4Addr::new(10, 2, 0, 99);
        let ingress = n.lab.tasks[3].addr;
        let others = [here, there, nobody].into_iter().flat_map(|addr| n.both(&n.other, addr));
        // What would be its addresses on networks without subnets of their own is nobody's, too.
        let plain =
            [ingress, here, n.addr(1, &n.app)].into_iter().flat_map(|addr| [addr.into(), mesh_ipv6(addr).into()]);
        for peer in others.chain(plain).filter(|peer| !n.addrs(1, &n.app).contains(peer)) {
            let before = n.drops(0, DropReason::OtherNetwork);
            n.lab.tasks[0].ns.run(|| {
                assert!(is_refused(&ask_tcp(peer, 80)), "{peer}");
                assert!(is_refused(&ask_udp(peer, 80, 10)), "{peer}");
            });
            assert!(!pings(&n.lab.tasks[0].ns, peer, ""), "{peer}");
            assert!(n.drops(0, DropReason::OtherNetwork) >= before + 3, "{peer}");
        }
        // Who is on both talks to both.
        assert!(n.lab.tasks[2].ns.run(|| ask_tcp(there, 80)).is_ok());
        assert!(n.lab.tasks[3].ns.run(|| ask_tcp(here, 80)).is_ok());
        // But not by the address of one with the other.
        n.lab.tasks[2].ns.run(|| {
            let socket = UdpSocket::bind((n.addr(2, &n.app), 0)).unwrap();
            socket.connect((there, 80)).unwrap();
            assert!(lab::ask_udp_on(&socket, 10).is_err());
        });
    }
}

#[test]
fn a_service_has_an_address_of_its_own() {
    for mut n in Networks::each() {
        let vip = n.lab.own_address(&n.service, &n.app);
        n.lab.apply();
        let tasks: BTreeSet<_> = [0, 1, 2].map(|task| n.addr(task, &n.app)).into();
        for task in [0, 2] {
            let ns = &n.lab.tasks[task].ns;
            for (own, vip) in n.addrs(task, &n.app).into_iter().zip(n.both(&n.app, vip)) {
                let tcp: Vec<_> = (0..30).map(|_| ns.run(|| ask_tcp(vip, 80)).unwrap()).collect();
                let udp: Vec<_> = (0..30).map(|_| ns.run(|| ask_udp(vip, 80, 2000)).unwrap()).collect();
                for answers in [tcp, udp] {
                    let servers: BTreeSet<_> = answers.iter().map(|a| a.server).collect();
                    assert_eq!(servers, tasks, "{task} {vip}");
                    // Who is answered by itself sees its node instead.
                    let seen = |a: &&lab::Answer| tasks.contains(&a.server) && IpAddr::from(a.server) != own;
                    let others = answers.iter().filter(seen).filter(|a| a.server != n.addr(task, &n.app));
                    assert!(others.clone().all(|a| a.peer_ip() == own), "{task} {vip} {answers:?}");
                }
                assert!(pings(ns, vip, ""), "{task} {vip}");
                assert!(is_refused(&ns.run(|| ask_tcp(vip, 81))), "no task listens there");
            }
        }
        let stranger = &n.lab.tasks[3].ns;
        for vip in n.both(&n.app, vip) {
            assert!(is_refused(&stranger.run(|| ask_tcp(vip, 80))), "{vip}");
            assert!(!pings(stranger, vip, ""), "{vip}");
        }
        // When nobody is ready any more.
        n.lab.tasks.iter_mut().for_each(|task| task.state = skep_model::EndpointState::Starting);
        n.lab.apply();
        assert!(is_refused(&n.lab.tasks[0].ns.run(|| ask_tcp(vip, 80))));
    }
}

#[test]
fn a_task_that_ends_ends_its_connections() {
    let mut n = Networks::new();
    let vip = n.lab.own_address(&n.service, &n.app);
    n.lab.tasks[0].state = skep_model::EndpointState::Draining;
    n.lab.tasks[1].state = skep_model::EndpointState::Draining;
    n.lab.apply();
    let two = n.addr(2, &n.app);
    let mut all = [vip, two].map(|to| n.lab.tasks[0].ns.run(|| TcpStream::connect((to, 80)).unwrap()));
    for stream in &mut all {
        assert_eq!(lab::Answer::parse(&lab::ask_on(stream).unwrap()).server, two);
    }
    n.lab.tasks.remove(2);
    n.lab.apply();
    for stream in &mut all {
        let error = lab::ask_on(stream).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

/// The outside world is the lab's client.
#[test]
fn a_task_talks_to_the_world_outside_behind_its_nodes_address() {
    let n = Networks::new();
    let client = &n.lab.client;
    serve(client, CLIENT, 443);
    serve_at(client, CLIENT, CLIENT6.into(), 443);
    let node = &n.lab.nodes[0];
    node.ns.sysctl("net/ipv4/ip_forward", "0");
    for task in [0, 1] {
        let ns = &n.lab.tasks[task].ns;
        for (own, to) in [(IpAddr::from(node.underlay), IpAddr::from(CLIENT)), (node.underlay6.into(), CLIENT6.into())]
        {
            for _ in 0..5 {
                let answer = ns.run(|| ask_tcp(to, 443)).unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(answer.peer_ip(), own);
                assert!(answer.peer.port() >= 61_000, "{answer:?}");
            }
            for length in [10, 4000] {
                let answer = ns.run(|| ask_udp(to, 443, length)).unwrap_or_else(|e| panic!("{to} {length}: {e}"));
                assert_eq!(answer.peer_ip(), own);
            }
            assert!(pings(ns, to, ""), "{to}");
            ns.run(|| {
                assert!(is_refused(&ask_tcp(to, 444)), "{to}");
                assert!(is_refused(&ask_udp(to, 444, 10)), "{to}: an error comes back");
            });
        }
    }
    let nowhere = n.lab.tasks[0].ns.run(|| ask_tcp(Ipv4Addr::new(203, 0, 113, 1), 443)).unwrap_err();
    assert_eq!(nowhere.kind(), std::io::ErrorKind::NetworkUnreachable, "{nowhere}");
}

#[test]
fn a_task_asks_its_own_node() {
    let n = Networks::new();
    let node = &n.lab.nodes[0];
    serve(&node.ns, node.underlay, 443);
    let ns = &n.lab.tasks[0].ns;
    let answer = ns.run(|| ask_tcp(node.underlay, 443)).unwrap();
    assert_eq!(answer.peer_ip(), IpAddr::from(node.underlay));
    assert!(ns.run(|| ask_udp(node.underlay, 443, 100)).is_ok());
    assert!(pings(ns, node.underlay.into(), ""));
    assert!(is_refused(&ns.run(|| ask_tcp(node.underlay, 444))));
    assert!(is_refused(&ns.run(|| ask_udp(node.underlay, 444, 10))));
}

#[test]
fn a_task_of_internal_networks_stays_inside() {
    let n = Networks::of(NetworkKind::Internal, [None; 2]);
    let node = &n.lab.nodes[0];
    serve(&n.lab.client, CLIENT, 443);
    serve(&node.ns, node.underlay, 443);
    let ns = &n.lab.tasks[0].ns;
    let before = n.drops(0, DropReason::NoWayOut);
    for to in [CLIENT, node.underlay] {
        let error = ns.run(|| ask_tcp(to, 443)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{to}: {error}");
        assert!(!pings(ns, to.into(), ""), "{to}");
    }
    assert!(n.drops(0, DropReason::NoWayOut) >= before + 4);
    // Other tasks and published ports are there as ever.
    assert!(ns.run(|| ask_tcp(n.addr(2, &n.app), 80)).is_ok());
    assert!(ns.run(|| ask_tcp(node.underlay, 8080)).is_ok());
}

#[test]
fn who_is_too_far_away_is_told_where_it_got_to() {
    let n = Networks::new();
    let ns = &n.lab.tasks[0].ns;
    serve(&n.lab.client, CLIENT, 443);
    ns.sysctl("net/ipv4/ip_default_ttl", "1");
    let error = ns.run(|| ask_tcp(CLIENT, 443)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
    assert_eq!(n.lab.nodes[0].bpf().counters().unwrap().events[&Event::HopsExceeded], 1);
    // To other tasks there is none on the way, and the node itself is no hop either.
    serve(&n.lab.nodes[0].ns, n.lab.nodes[0].underlay, 443);
    assert!(ns.run(|| ask_tcp(n.lab.nodes[0].underlay, 443)).is_ok());
    assert!(ns.run(|| ask_tcp(n.addr(2, &n.app), 80)).is_ok());
    ns.sysctl("net/ipv4/ip_default_ttl", "2");
    assert!(ns.run(|| ask_tcp(CLIENT, 443)).is_ok());
}

#[test]
fn the_way_out_may_be_narrower_than_what_a_task_sends() {
    let n = Networks::new();
    let far = n.lab.behind_a_router(1300);
    let server = far.run(|| TcpListener::bind("0.0.0.0:443")).unwrap();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            let _ = std::io::Write::write_all(&mut stream, b"all");
        }
    });
    let all = n.lab.tasks[0].ns.run(|| {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect("10.98.0.2:443").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&vec![7; 300_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    assert_eq!(all, "all");
}
