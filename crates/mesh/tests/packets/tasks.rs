//! What tasks may send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_mesh::{DropReason, Hook};

use super::rig::{DROP, FAR, HERE, PROTOCOLS, Rig, Via, client, inside};
use super::wire::{ACK, DATA, FIN, INIT_ACK, Packet, RST, SCTP, SYN, TCP, UDP};

#[test]
fn a_task_sends_by_its_own_addresses_only() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let to = client(v6, 443);
        let sends = |from: IpAddr| Packet::new(proto, SocketAddr::new(from, 40_000), to).frame();
        rig.goes_out(Via::Task(0), &sends(rig.task_addr(0, v6)), "its own address");
        let mut others = vec![rig.task_addr(1, v6), rig.overlay(v6), rig.own(v6), client(v6, 0).ip()];
        others.push(inside(FAR[0], v6));
        if v6 {
            // The right last word behind another prefix; one that only looks like IPv4.
            others.push("fd73:6b65:7000:0:0:1:a00:101".parse().unwrap());
            others.push("2001:db8::a00:101".parse().unwrap());
        }
        for from in others {
            rig.is_dropped(Via::Task(0), &sends(from), DropReason::Spoofed, &format!("{from}"));
        }
        // Protocols without ports likewise.
        let raw = |from: IpAddr| Packet::new(proto, SocketAddr::new(from, 0), to).around(47, &[0; 20]);
        let prohibited = if v6 { (1, 1) } else { (3, 13) };
        rig.is_told(Via::Task(0), &raw(rig.task_addr(0, v6)), DropReason::NoWayOut, prohibited);
        rig.is_dropped(Via::Task(0), &raw(rig.task_addr(1, v6)), DropReason::Spoofed, "another's");
    }
    let echo =
        |from| Packet::new(UDP, SocketAddr::new(from, 0), client(false, 0)).around(1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    rig.goes_out(Via::Task(0), &echo(rig.task_addr(0, false)), "a ping");
    rig.is_dropped(Via::Task(0), &echo(rig.task_addr(1, false)), DropReason::Spoofed, "a ping in another's name");
}

#[test]
fn neighbours_are_found_by_link_local_addresses() {
    let rig = Rig::new();
    let [link, all, none, router]: [IpAddr; 4] =
        ["fe80::5", "ff02::1:ff00:1", "::", "fe80::1"].map(|text| text.parse().unwrap());
    let talk = |from, to| {
        Packet::new(UDP, SocketAddr::new(from, 0), SocketAddr::new(to, 0)).around(58, &[135, 0, 0, 0, 0, 0, 0, 0])
    };
    for (from, to) in [(link, all), (link, router), (none, all), (rig.task_addr(0, true), router)] {
        rig.is_left(Via::Task(0), &talk(from, to), &format!("{from} {to}"));
    }
    let outside = client(true, 0).ip();
    for (from, to) in [(link, outside), (none, outside), (link, rig.own(true))] {
        rig.is_dropped(Via::Task(0), &talk(from, to), DropReason::Spoofed, &format!("{from} {to}"));
    }
    for ethertype in [[8, 6], [0x88, 0xcc], [0x81, 0]] {
        let mut frame = talk(link, all);
        frame[12..14].copy_from_slice(&ethertype);
        rig.is_left(Via::Task(0), &frame, "not IP");
    }
}

/// Answers with the task's own address are no answers to anybody outside; the node itself may talk to its tasks directly.
#[test]
fn an_answer_of_no_known_flow_stays_inside() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let task = SocketAddr::new(rig.task_addr(0, v6), 80);
        let says = |proto, to, flags| Packet::new(proto, task, to).flags(flags).frame();
        let outside = client(v6, 40_000);
        for (proto, flags) in
            [(TCP, SYN | ACK), (TCP, ACK), (TCP, FIN | ACK), (TCP, RST), (UDP, 0), (SCTP, INIT_ACK), (SCTP, DATA)]
        {
            rig.is_dropped(
                Via::Task(0),
                &says(proto, outside, flags),
                DropReason::UnknownFlow,
                &format!("{proto} {flags}"),
            );
            for own in [rig.own(v6), rig.overlay(v6)] {
                rig.is_left(Via::Task(0), &says(proto, SocketAddr::new(own, 40_000), flags), "to the node");
            }
        }
        rig.goes_out(Via::Task(0), &says(TCP, outside, SYN), "a connection of its own");
        rig.goes_out(Via::Task(0), &says(SCTP, outside, 1), "an association of its own");
        let link: IpAddr = if v6 { "fe80::1".parse().unwrap() } else { Ipv4Addr::new(169, 254, 1, 1).into() };
        rig.is_left(Via::Task(0), &says(TCP, SocketAddr::new(link, 9), ACK), "to the end of its cable");
        let other = Packet::new(UDP, SocketAddr::new(task.ip(), 53), outside).frame();
        rig.goes_out(Via::Task(0), &other, "from a port that nobody serves on");
    }
}

#[test]
fn a_task_asks_published_ports_of_every_node_here() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let mut asked = vec![rig.own(v6), rig.overlay(v6), inside(Ipv4Addr::new(10, 0, 0, 77), v6)];
        if !v6 {
            asked.extend([FAR[0], FAR[1], rig.lab.nodes[0].second].map(IpAddr::from));
        }
        for (n, to) in (0..).zip(asked) {
            let from = SocketAddr::new(rig.task_addr(1, v6), 40_000 + n);
            let packet = Packet::new(proto, from, SocketAddr::new(to, HERE));
            let (seen, _) = rig.passes(Via::Task(1), &packet);
            assert_eq!((seen.from, seen.to), (from, SocketAddr::new(rig.task_addr(0, v6), 80)), "{to}");
            let answer = Packet::new(proto, seen.to, seen.from).flags(if proto == TCP { SYN | ACK } else { INIT_ACK });
            let (back, out) = rig.passes(Via::Task(0), &answer);
            assert_eq!((back.from, back.to), (packet.to, from), "{to}");
            assert_eq!(out[..6], rig.lab.tasks[1].ns.mac("eth0"));
        }
        let elsewhere = Packet::new(proto, SocketAddr::new(rig.task_addr(1, v6), 1), client(v6, HERE)).frame();
        rig.goes_out(Via::Task(1), &elsewhere, "the same port of somebody outside");
    }
}

/// One task cannot use another's flow, although it knows everything about it.
#[test]
fn a_tasks_flows_are_its_own() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let packet = Packet::new(TCP, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE));
        let (seen, _) = rig.passes(Via::Uplink, &packet);
        let answer = Packet::new(TCP, seen.to, seen.from).flags(ACK).frame();
        rig.is_dropped(Via::Task(1), &answer, DropReason::Spoofed, "another's flow");
        let asks = Packet::new(TCP, SocketAddr::new(rig.task_addr(1, v6), 40_001), SocketAddr::new(rig.own(v6), HERE));
        rig.passes(Via::Task(1), &asks);
        rig.is_dropped(Via::Task(0), &asks.clone().flags(ACK).frame(), DropReason::Spoofed, "another's as a client");
    }
}

/// A client outside that has a task's address is not mistaken for it.
#[test]
fn the_client_of_a_hairpin_that_is_gone_gets_nothing() {
    let mut rig = Rig::new();
    let asks =
        Packet::new(TCP, SocketAddr::new(rig.task_addr(1, false), 40_000), SocketAddr::new(rig.own(false), HERE));
    let (seen, _) = rig.passes(Via::Task(1), &asks);
    rig.apply(|desired| {
        desired.local_tasks.remove(1);
    });
    let answer = Packet::new(TCP, seen.to, seen.from).flags(SYN | ACK).frame();
    rig.is_dropped(Via::Task(0), &answer, DropReason::UnknownTask, "to a task that is gone");
}

#[test]
fn who_is_not_in_a_tunnel_is_not_believed_to_be() {
    let mut rig = Rig::new();
    let tables = rig.apply(|_| ());
    let overlay = *tables.hooks.iter().find(|(_, hook)| **hook == Hook::Overlay).unwrap().0;
    let node = &rig.lab.nodes[0];
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let frame = Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE)).frame();
        let run = |frame: &[u8]| node.ns.run(|| node.bpf().test_run_on("from_overlay", overlay, 0, frame)).unwrap().0;
        assert_eq!(run(&frame), DROP);
    }
}
