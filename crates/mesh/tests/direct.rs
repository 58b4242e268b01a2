//! Reply direct: the task's node answers the client itself, where it has been proved that it can.

mod lab;

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use lab::{Answer, CLIENT, CLIENT6, Lab, ask_on, ask_tcp, ask_udp, ingress};
use skep_mesh::{Datapath, PROBE_PORT};
use skep_model::Protocol;
use skep_network::send_in_anothers_name;

/// Two nodes that may answer for each other, and a task on the second.
fn lab() -> Lab {
    let mut lab = Lab::new(2);
    for node in &mut lab.nodes {
        node.reply_direct = true;
    }
    lab.service(&[Protocol::Tcp, Protocol::Udp].map(|p| ingress(p, 8080, 80)), &[1]);
    lab
}

/// Packets to clients that passed a node which was asked, and that left a node for clients of others.
fn packets_out(lab: &Lab) -> (u64, u64) {
    let task = &lab.tasks[0].id;
    let asked = lab.nodes[0].bpf().counters().unwrap().backends[task];
    let owner = lab.nodes[1].bpf().counters().unwrap().tasks[task];
    (asked.packets_out, owner.packets_out)
}

#[test]
fn answers_do_not_pass_the_node_that_was_asked() {
    let lab = lab();
    for (to, client) in
        [(IpAddr::from(lab.nodes[0].underlay), IpAddr::from(CLIENT)), (lab.nodes[0].underlay6.into(), CLIENT6.into())]
    {
        let mut stream = lab.client.run(|| TcpStream::connect((to, 8080))).unwrap();
        for _ in 0..10 {
            assert_eq!(Answer::parse(&ask_on(&mut stream).unwrap()).peer_ip(), client);
        }
        assert_eq!(lab.client.run(|| ask_udp(to, 8080, 900)).unwrap().peer_ip(), client);
    }
    let (asked, owner) = packets_out(&lab);
    assert!(asked == 0 && owner > 20, "{asked} by the asked node, {owner} by the owner");
}

#[test]
fn who_is_not_outside_is_answered_through_the_node_that_was_asked() {
    let lab = lab();
    let (asked, asking) = (&lab.nodes[0], &lab.tasks[0].ns);
    assert_eq!(asked.ns.run(|| ask_tcp([127, 0, 0, 1], 8080)).unwrap().peer_ip(), asked.overlay);
    assert_eq!(asked.ns.run(|| ask_tcp(asked.underlay, 8080)).unwrap().peer_ip(), asked.underlay);
    asking.run(|| ask_tcp(asked.underlay, 8080)).unwrap();
    assert!(packets_out(&lab).0 > 4);
}

#[test]
fn without_the_proof_and_without_the_others_will_the_answer_goes_through_the_tunnel() {
    for (asked, owner) in [(false, true), (true, false)] {
        let mut lab = lab();
        lab.nodes[0].reply_direct = asked;
        lab.nodes[1].reply_direct = owner;
        lab.apply();
        lab.client.run(|| ask_tcp(lab.nodes[0].underlay, 8080)).unwrap();
        assert!(packets_out(&lab).0 > 2);
    }
}

/// The underlay stops to let such packets pass: flows that exist go on through the tunnel.
#[test]
fn a_flow_goes_back_to_the_tunnel_when_the_proof_is_gone() {
    let mut lab = lab();
    let mut stream = lab.client.run(|| TcpStream::connect((lab.nodes[0].underlay, 8080))).unwrap();
    ask_on(&mut stream).unwrap();
    assert_eq!(packets_out(&lab).0, 0);
    let mut desired = lab.desired(1);
    desired.node.direct.clear();
    let tables = skep_mesh::compile(&desired);
    let lab::Node { ns, bpf, .. } = &mut lab.nodes[1];
    ns.run(|| bpf.as_mut().unwrap().apply(&tables)).unwrap();
    assert_eq!(Answer::parse(&ask_on(&mut stream).unwrap()).peer_ip(), CLIENT);
    assert!(packets_out(&lab).0 > 0);
}

#[test]
fn a_probe_comes_back_as_a_proof_if_the_other_node_gets_it() {
    let mut lab = lab();
    for tunnel6 in [false, true] {
        for node in &mut lab.nodes {
            node.tunnel6 = tunnel6;
        }
        lab.apply();
        let address = |n: usize| -> IpAddr {
            let node = &lab.nodes[n];
            if tunnel6 { node.underlay6.into() } else { node.underlay.into() }
        };
        let proofs = || lab.nodes[1].bpf().proofs().unwrap();
        assert!(!proofs().contains_key(&address(0)));
        lab.nodes[1].ns.run(|| send_in_anothers_name(address(0), PROBE_PORT, address(1))).unwrap();
        lab::eventually("a proof", || proofs().get(&address(0)).is_some_and(|age| *age < Duration::from_secs(2)));
    }
    // A node that does not want to be answered for sends nothing back.
    lab.nodes[0].reply_direct = false;
    lab.apply();
    let stranger: IpAddr = [10, 99, 0, 77].into();
    lab.nodes[1].ns.run(|| send_in_anothers_name(lab.nodes[0].underlay.into(), PROBE_PORT, stranger)).unwrap();
    assert_eq!(lab.nodes[1].bpf().proofs().unwrap().len(), 2);
}
