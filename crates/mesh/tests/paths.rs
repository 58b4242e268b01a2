//! Every way that a client can ask, with real traffic through real devices: who answers, and whom does it see?

mod lab;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use lab::{Answer, CLIENT, Lab, Netns, ask_tcp, ask_udp, ingress, serve};
use skep_model::Protocol;

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Three nodes, tasks on the second and the third, port 8080 of both protocols.
fn lab() -> Lab {
    let mut lab = Lab::new(3);
    lab.service(&BOTH.map(|p| ingress(p, 8080, 80)), &[1, 2]);
    lab
}

fn ask(protocol: Protocol, to: Ipv4Addr) -> Answer {
    match protocol {
        Protocol::Tcp => ask_tcp(to, 8080),
        _ => ask_udp(to, 8080, 10),
    }
    .unwrap_or_else(|error| panic!("{protocol} {to}: {error}"))
}

#[test]
fn a_client_outside_asks_every_address_of_every_node() {
    let lab = lab();
    for protocol in BOTH {
        for node in &lab.nodes {
            for address in [node.underlay, node.second] {
                let answers: Vec<_> = (0..20).map(|_| lab.client.run(|| ask(protocol, address))).collect();
                assert!(answers.iter().all(|a| a.peer_ip() == CLIENT), "{protocol} {address}: {answers:?}");
                let servers: BTreeSet<_> = answers.iter().map(|a| a.server).collect();
                assert_eq!(servers.len(), 2, "{protocol} {address}: both tasks answer");
            }
        }
    }
}

#[test]
fn a_process_of_the_node_asks_loopback_and_own_addresses() {
    let lab = lab();
    for protocol in BOTH {
        for node in &lab.nodes {
            for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3), node.underlay, node.second] {
                for _ in 0..6 {
                    let answer = node.ns.run(|| ask(protocol, address));
                    assert_eq!(answer.peer_ip(), node.overlay, "{protocol} {address}");
                }
            }
        }
    }
}

#[test]
fn a_process_of_a_node_asks_another_node() {
    let lab = lab();
    for protocol in BOTH {
        let answer = lab.nodes[0].ns.run(|| ask(protocol, lab.nodes[1].underlay));
        assert_eq!(answer.peer_ip(), lab.nodes[0].underlay);
    }
}

#[test]
fn a_task_asks_any_node_and_may_be_answered_by_itself() {
    let lab = lab();
    for protocol in BOTH {
        for task in &lab.tasks {
            for node in &lab.nodes {
                let answers: Vec<_> = (0..16).map(|_| task.ns.run(|| ask(protocol, node.underlay))).collect();
                for answer in &answers {
                    let seen = if answer.server == task.addr { lab.nodes[task.node].overlay } else { task.addr };
                    assert_eq!(answer.peer_ip(), seen, "{protocol} {answer:?}");
                }
                assert!(answers.iter().any(|a| a.server == task.addr), "{protocol}: never itself");
                assert!(answers.iter().any(|a| a.server != task.addr), "{protocol}: never the other");
            }
        }
    }
}

#[test]
fn datagrams_of_any_size_pass() {
    let lab = lab();
    for size in [0, 1, 1400, 1472, 1473, 4000, 20_000] {
        for node in &lab.nodes {
            let answer = lab.client.run(|| ask_udp(node.underlay, 8080, size));
            let answer = answer.unwrap_or_else(|error| panic!("{size} bytes to {}: {error}", node.underlay));
            assert_eq!(answer.peer_ip(), CLIENT);
        }
        let answer = lab.nodes[0].ns.run(|| ask_udp(Ipv4Addr::LOCALHOST, 8080, size));
        assert_eq!(answer.unwrap().peer_ip(), lab.nodes[0].overlay);
    }
}

/// Traffic that the mesh has no part in passes as if it were not there.
#[test]
fn other_traffic_of_tasks_and_nodes_is_left_alone() {
    let lab = lab();
    let task = &lab.tasks[0];
    let node = &lab.nodes[task.node];
    serve(&task.ns, task.addr, 8000);
    serve(&node.ns, node.underlay, 9000);
    serve(&node.ns, Ipv4Addr::LOCALHOST, 9000);
    serve(&lab.client, CLIENT, 9000);
    node.ns.sysctl("net/ipv4/ip_forward", "1");
    lab.client.ip(&format!("route add {}/32 via {}", task.addr, node.underlay));
    let peer = |from: &Netns, to: Ipv4Addr, port: u16| {
        let tcp = from.run(|| ask_tcp(to, port)).unwrap_or_else(|error| panic!("tcp {to}:{port}: {error}"));
        let udp = from.run(|| ask_udp(to, port, 3000)).unwrap_or_else(|error| panic!("udp {to}:{port}: {error}"));
        assert_eq!(tcp.peer_ip(), udp.peer_ip());
        tcp.peer_ip()
    };
    assert_eq!(peer(&lab.client, task.addr, 8000), CLIENT, "outside to a task's other port");
    assert_eq!(peer(&task.ns, CLIENT, 9000), task.addr, "task to outside");
    assert_eq!(peer(&task.ns, node.underlay, 9000), task.addr, "task to its node");
    peer(&node.ns, task.addr, 80);
    assert_eq!(peer(&lab.client, node.underlay, 9000), CLIENT, "outside to a port of the node's own");
    assert_eq!(peer(&node.ns, Ipv4Addr::LOCALHOST, 9000), Ipv4Addr::LOCALHOST, "loopback");
}
