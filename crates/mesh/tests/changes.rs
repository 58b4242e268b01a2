//! What clients notice when services, tasks and nodes change under them: as little as can be.

mod lab;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::{Answer, CLIENT, Lab, ask_on, ask_tcp, ask_udp, ask_udp_on, connect_from, ingress, is_refused};
use skep_mesh::{Datapath, DropReason, Event};
use skep_model::{EndpointState, Protocol, PublishMode, PublishedPort};

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

fn connect(lab: &Lab, to: Ipv4Addr, port: u16) -> TcpStream {
    lab.client.run(|| TcpStream::connect((to, port))).unwrap()
}

fn answer(stream: &mut TcpStream) -> Answer {
    Answer::parse(&ask_on(stream).unwrap())
}

/// Nothing listens on the tasks' port 81.
fn both(published: u16) -> [PublishedPort; 2] {
    [ingress(TCP, published, 80), ingress(UDP, published, 80)]
}

#[test]
fn a_port_is_published_and_taken_back_live() {
    let mut lab = Lab::new(2);
    lab.service(&both(8080), &[1]);
    let to = lab.nodes[0].underlay;
    let mut kept = connect(&lab, to, 8080);
    assert!(is_refused(&lab.client.run(|| ask_tcp(to, 9090))));
    lab.services[0].ports.extend(both(9090));
    lab.apply();
    assert_eq!(lab.client.run(|| ask_tcp(to, 9090)).unwrap().peer_ip(), CLIENT);
    assert_eq!(lab.client.run(|| ask_udp(to, 9090, 9)).unwrap().peer_ip(), CLIENT);
    lab.services[0].ports.truncate(2);
    lab.apply();
    assert!(is_refused(&lab.client.run(|| ask_tcp(to, 9090))));
    assert!(is_refused(&lab.client.run(|| ask_udp(to, 9090, 9))));
    assert_eq!(answer(&mut kept).peer_ip(), CLIENT);
}

#[test]
fn with_nobody_ready_everybody_is_refused_at_once() {
    let mut lab = Lab::new(2);
    lab.service(&both(8080), &[1]);
    lab.service(&both(9090), &[]);
    let other = lab.nodes[1].underlay;
    for (who, ns) in [("client", &lab.client), ("task", &lab.tasks[0].ns), ("node", &lab.nodes[1].ns)] {
        for to in [other, lab.nodes[0].underlay] {
            assert!(is_refused(&ns.run(|| ask_tcp(to, 9090))), "tcp from {who} to {to}");
            assert!(is_refused(&ns.run(|| ask_udp(to, 9090, 100))), "udp from {who} to {to}");
        }
    }
    let loopback = Ipv4Addr::LOCALHOST;
    assert!(is_refused(&lab.nodes[1].ns.run(|| ask_tcp(loopback, 9090))), "tcp over loopback");
    assert!(is_refused(&lab.nodes[1].ns.run(|| ask_udp(loopback, 9090, 100))), "udp over loopback");
    let drops = lab.nodes[1].bpf().counters().unwrap().drops;
    assert!(drops[&DropReason::NoBackend] >= 6, "{drops:?}");
}

#[test]
fn what_a_task_refuses_is_refused_in_the_frontends_name() {
    let mut lab = Lab::new(2);
    lab.service(&[ingress(TCP, 9090, 81), ingress(UDP, 9090, 81)], &[1]);
    for node in &lab.nodes {
        assert!(is_refused(&lab.client.run(|| ask_tcp(node.underlay, 9090))), "tcp {}", node.underlay);
        assert!(is_refused(&lab.client.run(|| ask_udp(node.underlay, 9090, 100))), "udp {}", node.underlay);
        assert!(is_refused(&node.ns.run(|| ask_udp(Ipv4Addr::LOCALHOST, 9090, 100))), "udp on {}", node.underlay);
    }
    assert!(is_refused(&lab.tasks[0].ns.run(|| ask_udp(lab.nodes[0].underlay, 9090, 100))), "udp, hairpin");
}

#[test]
fn a_connection_to_a_task_that_is_gone_is_reset() {
    let mut lab = Lab::new(2);
    lab.service(&both(8080), &[1]);
    let mut streams: Vec<_> = lab.nodes.iter().map(|n| connect(&lab, n.underlay, 8080)).collect();
    for stream in &mut streams {
        answer(stream);
    }
    lab.tasks.clear();
    lab.apply();
    for stream in &mut streams {
        assert_eq!(ask_on(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_connection_to_a_dead_node_is_reset_and_new_ones_avoid_it() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let to = lab.nodes[0].underlay;
    let mut on_second: Vec<_> = (0..16).map(|_| connect(&lab, to, 8080)).collect();
    on_second.retain_mut(|stream| answer(stream).server == lab.tasks[0].addr);
    assert!(!on_second.is_empty());
    lab.nodes[1].alive = false;
    lab.apply_on(0).unwrap();
    assert_eq!(ask_on(&mut on_second[0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    for _ in 0..16 {
        assert_eq!(lab.client.run(|| ask_tcp(to, 8080)).unwrap().server, lab.tasks[1].addr);
    }
}

#[test]
fn udp_goes_elsewhere_when_its_task_is_not_ready_any_more() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let to = lab.nodes[0].underlay;
    let socket = lab.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect((to, 8080)).unwrap();
    let first = ask_udp_on(&socket, 9).unwrap().server;
    let chosen = lab.tasks.iter().position(|t| t.addr == first).unwrap();
    lab.tasks[chosen].state = EndpointState::Draining;
    lab.apply();
    assert_ne!(ask_udp_on(&socket, 9).unwrap().server, first);
}

#[test]
fn draining_keeps_old_connections_and_takes_no_new_ones() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let mut streams: Vec<_> = (0..16).map(|n| connect(&lab, lab.nodes[n % 3].underlay, 8080)).collect();
    let before: Vec<_> = streams.iter_mut().map(|s| answer(s).server).collect();
    lab.tasks[0].state = EndpointState::Draining;
    lab.apply();
    let after: Vec<_> = streams.iter_mut().map(|s| answer(s).server).collect();
    assert_eq!(before, after);
    for node in &lab.nodes {
        for _ in 0..8 {
            assert_eq!(lab.client.run(|| ask_tcp(node.underlay, 8080)).unwrap().server, lab.tasks[1].addr);
        }
    }
    let open = lab.nodes[1].bpf().flow_table().unwrap().open_flows(&lab.tasks[0].id).unwrap();
    assert_eq!(open, before.iter().filter(|s| **s == lab.tasks[0].addr).count() as u64);
    drop(streams);
    let patience = Instant::now() + Duration::from_secs(5);
    while lab.nodes[1].bpf().flow_table().unwrap().open_flows(&lab.tasks[0].id).unwrap() > 0 {
        assert!(Instant::now() < patience, "closed connections still count as open");
        std::thread::yield_now();
    }
}

/// The node that the client asks has heard nothing: the owner passes the flow on.
#[test]
fn an_owner_gives_new_flows_a_second_chance() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let to = lab.nodes[0].underlay;
    lab.tasks[0].state = EndpointState::Draining;
    lab.apply_on(1).unwrap();
    for _ in 0..16 {
        let answer = lab.client.run(|| ask_tcp(to, 8080)).unwrap();
        assert_eq!((answer.server, answer.peer_ip()), (lab.tasks[1].addr, CLIENT.into()), "draining");
        let answer = lab.client.run(|| ask_udp(to, 8080, 3000)).unwrap();
        assert_eq!((answer.server, answer.peer_ip()), (lab.tasks[1].addr, CLIENT.into()), "draining");
    }
    lab.tasks.remove(0);
    lab.apply_on(1).unwrap();
    for _ in 0..16 {
        assert_eq!(lab.client.run(|| ask_tcp(to, 8080)).unwrap().server, lab.tasks[0].addr, "gone");
    }
}

/// The node that was asked learns from the answer who has the flow, and does not end it with the task that had not taken it.
#[test]
fn a_flow_that_was_passed_on_lives_as_long_as_what_it_talks_to() {
    let mut lab = Lab::new(4);
    lab.service(&both(8080), &[1, 2]);
    let to = lab.nodes[0].underlay;
    lab.tasks[0].state = EndpointState::Draining;
    lab.apply_on(1).unwrap();
    let mut streams: Vec<_> = (0..16).map(|_| connect(&lab, to, 8080)).collect();
    let loopback = lab.nodes[0].ns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))).unwrap();
    streams.push(loopback);
    assert!(lab.nodes[1].bpf().counters().unwrap().events[&Event::SecondChance] > 0);
    lab.tasks.remove(0);
    lab.apply();
    lab.nodes[1].alive = false;
    lab.apply();
    let other = lab.tasks[0].addr;
    for stream in &mut streams {
        assert_eq!(answer(stream).server, other);
    }
    // The number of the one that is gone becomes somebody else's.
    let service = lab.services[0].id.clone();
    lab.task(&service, 3);
    lab.apply();
    for stream in &mut streams {
        assert_eq!(answer(stream).server, other);
    }
    lab.tasks.clear();
    lab.apply();
    for stream in &mut streams {
        assert_eq!(ask_on(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// The node that was asked has heard nothing: one of the two tasks is gone, the other is to stop. That is still better than a refusal.
#[test]
fn a_second_chance_may_be_one_that_is_to_stop_when_there_is_nobody_else() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let to = lab.nodes[0].underlay;
    lab.tasks[1].state = EndpointState::Draining;
    let gone = lab.tasks.remove(0);
    lab.apply_on(1).unwrap();
    lab.apply_on(2).unwrap();
    for _ in 0..16 {
        assert_eq!(lab.client.run(|| ask_tcp(to, 8080)).unwrap().server, lab.tasks[0].addr);
    }
    drop(gone);
}

/// Two nodes that each believe the other's task to be ready: packets must not go round in circles.
#[test]
fn a_second_chance_is_the_last() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    for (node, task) in [(1, 0), (2, 1)] {
        lab.tasks[task].state = EndpointState::Draining;
        lab.apply_on(node).unwrap();
        lab.tasks[task].state = EndpointState::Ready;
    }
    for _ in 0..16 {
        assert_eq!(lab.client.run(|| ask_tcp(lab.nodes[0].underlay, 8080)).unwrap().peer_ip(), CLIENT);
    }
}

#[test]
fn one_client_port_may_be_used_towards_every_address_at_once() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[2]);
    let addresses = || lab.nodes.iter().flat_map(|n| [n.underlay, n.second]);
    for port in 20_000..20_005 {
        let mut streams: Vec<_> =
            addresses().map(|to| lab.client.run(|| connect_from(port, to, 8080)).unwrap()).collect();
        let mut seen: Vec<_> = streams.iter_mut().map(|s| answer(s).peer).collect();
        assert!(seen.iter().all(|peer| peer.ip() == CLIENT), "the address is never changed: {seen:?}");
        assert!(seen.iter().any(|peer| peer.port() == port), "the first keeps its port: {seen:?}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6, "the task can tell them apart: {seen:?}");
    }
}

#[test]
fn host_mode_answers_on_its_node_only_and_with_its_own_task() {
    let mut lab = Lab::new(3);
    lab.service(&both(8080), &[1, 2]);
    let number = |n: u16| n.try_into().unwrap();
    let port = PublishedPort { protocol: TCP, target: number(80), published: number(8081), mode: PublishMode::Host };
    let shadow = PublishedPort { published: number(8080), ..port };
    lab.tasks[0].host_ports = vec![port, shadow];
    lab.apply();
    let (own, other) = (lab.nodes[1].underlay, lab.nodes[2].underlay);
    assert_eq!(lab.client.run(|| ask_tcp(own, 8081)).unwrap().peer_ip(), CLIENT);
    assert!(is_refused(&lab.client.run(|| ask_tcp(other, 8081))));
    for _ in 0..8 {
        assert_eq!(lab.client.run(|| ask_tcp(own, 8080)).unwrap().server, lab.tasks[0].addr);
    }
    assert_eq!(lab.nodes[1].ns.run(|| ask_tcp(Ipv4Addr::LOCALHOST, 8081)).unwrap().server, lab.tasks[0].addr);
}

#[test]
fn traffic_is_counted_per_backend_and_task() {
    let mut lab = Lab::new(2);
    lab.service(&both(8080), &[1]);
    for _ in 0..5 {
        lab.client.run(|| ask_tcp(lab.nodes[0].underlay, 8080)).unwrap();
    }
    let asked = lab.nodes[0].bpf().counters().unwrap();
    let (key, _) = asked.ports.iter().find(|(key, _)| key.protocol == TCP).unwrap();
    let traffic = asked.backends[&lab.tasks[0].id];
    assert_eq!((key.port, traffic.flows), (8080, 5));
    assert!(traffic.packets_in >= 15 && traffic.packets_out >= 10 && traffic.bytes_out > 500, "{traffic:?}");
    let owner = lab.nodes[1].bpf().counters().unwrap();
    assert_eq!(owner.tasks[&lab.tasks[0].id].flows, 5);
}
