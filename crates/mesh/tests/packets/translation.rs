//! Packets that are taken: new flows and the answers of tasks, in both families and all protocols.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use skep_mesh::Event;

use super::rig::{CHANGED, FAR_TASK, HERE, NEXT, PROTOCOLS, REDIRECT, Rig, THERE, Via, client, parcel};
use super::wire::{ACK, INIT_ACK, Packet, SCTP, SYN, Seen, TCP, UDP, put};

/// The task's answer to what it got.
fn answer_to(seen: &Seen) -> Packet {
    let packet = Packet::new(seen.proto, seen.to, seen.from).body(b"answer");
    match seen.proto {
        TCP => packet.flags(SYN | ACK),
        SCTP => packet.flags(INIT_ACK),
        _ => packet,
    }
}

#[test]
fn a_client_is_led_to_the_task_and_the_answer_back() {
    let rig = Rig::new();
    let mac = rig.lab.tasks[0].ns.mac("eth0");
    for (via, v6) in [(Via::Uplink, false), (Via::Uplink, true), (Via::Loopback, false), (Via::Loopback, true)] {
        for proto in PROTOCOLS {
            for length in [0, 1, 2, 3, 64, 555] {
                let asked = SocketAddr::new(rig.own(v6), HERE);
                let from = client(v6, 40_000 + length + if via == Via::Uplink { 0 } else { 1000 });
                let body = vec![0xa5; length.into()];
                let (seen, out) = rig.passes(via, &Packet::new(proto, from, asked).body(&body));
                assert_eq!((seen.from, seen.to), (from, SocketAddr::new(rig.task_addr(0, v6), 80)));
                assert_eq!((&out[..6], seen.l4.ends_with(&body)), (&mac[..], true));
                let (back, out) = rig.passes(Via::Task(0), &answer_to(&seen));
                assert_eq!((back.from, back.to), (asked, from));
                assert!(via == Via::Uplink || out[..12] == [0; 12], "addresses of the loopback device");
            }
        }
    }
}

#[test]
fn who_no_task_could_answer_comes_in_the_nodes_name() {
    let rig = Rig::new();
    let loopback = |v6| if v6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::new(127, 1, 2, 3).into() };
    for v6 in [false, true] {
        for proto in PROTOCOLS {
            // By the loopback device, and a task that asks itself.
            let ways = [(Via::Loopback, loopback(v6), loopback(v6)), (Via::Task(0), rig.task_addr(0, v6), rig.own(v6))];
            for (via, from, asked) in ways {
                let (from, asked) = (SocketAddr::new(from, 41_000), SocketAddr::new(asked, HERE));
                let (seen, _) = rig.passes(via, &Packet::new(proto, from, asked));
                assert_eq!(seen.from.ip(), rig.overlay(v6), "{via:?} {proto}");
                assert_eq!(seen.to, SocketAddr::new(rig.task_addr(0, v6), 80));
                let (back, _) = rig.passes(Via::Task(0), &answer_to(&seen));
                assert_eq!((back.from, back.to), (asked, from), "{via:?} {proto}");
            }
        }
    }
}

#[test]
fn a_task_elsewhere_gets_the_packet_as_it_is() {
    let rig = Rig::new();
    for via in [Via::Uplink, Via::Loopback, Via::Task(0)] {
        for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
            let from = match via {
                Via::Task(task) => SocketAddr::new(rig.task_addr(task, v6), 42_000),
                _ => client(v6, 42_000),
            };
            let packet = Packet::new(proto, from, SocketAddr::new(rig.own(v6), THERE)).frame();
            let (verdict, out) = rig.run(via, &packet);
            assert_eq!((verdict, &out[12..]), (REDIRECT, &packet[12..]), "{via:?} {proto}");
            assert_eq!(parcel(&out), (FAR_TASK, 80));
        }
    }
}

#[test]
fn a_loopback_clients_packet_to_a_task_elsewhere_travels_between_the_nodes_own_addresses() {
    let rig = Rig::new();
    for (v6, proto) in PROTOCOLS.into_iter().flat_map(|proto| [(false, proto), (true, proto)]) {
        let own: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let (from, asked) = (SocketAddr::new(own, 43_000 + u16::from(v6)), SocketAddr::new(own, THERE));
        let (seen, out) = rig.passes(Via::Loopback, &Packet::new(proto, from, asked));
        let overlay = rig.overlay(v6);
        assert_eq!((seen.from.ip(), seen.to, parcel(&out)), (overlay, SocketAddr::new(overlay, THERE), (FAR_TASK, 80)));
    }
    assert_ne!(rig.entry_of(TCP, 2, 43_000).flags() & CHANGED, 0);
}

#[test]
fn checksums_that_are_not_there_stay_away() {
    let rig = Rig::new();
    let to = SocketAddr::new(rig.own(false), HERE);
    for (proto, at, size) in [(UDP, 6, 2), (SCTP, 8, 4)] {
        let mut frame = Packet::new(proto, client(false, 44_000), to).body(b"body").frame();
        frame[34 + at..34 + at + size].fill(0);
        let (verdict, out) = rig.run(Via::Uplink, &frame);
        assert_eq!((verdict, &out[34 + at..34 + at + size]), (REDIRECT, &[0; 4][..size]), "{proto}");
        assert_eq!(Seen::right(&out).to.port(), 80);
    }
}

/// Of UDP a sum that comes out as zero is sent as all ones: zero means none.
#[test]
fn a_datagrams_sum_never_becomes_none() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let packet = Packet::new(UDP, client(v6, 44_001), SocketAddr::new(rig.own(v6), HERE));
        // The body that makes the sum of the translated packet zero: found by what two zero bytes give.
        let (seen, _) = rig.passes(Via::Uplink, &packet.clone().body(&[0, 0]));
        let body = seen.l4[6..8].to_vec();
        let (seen, _) = rig.passes(Via::Uplink, &packet.body(&body));
        assert_eq!(seen.l4[6..8], [0xff, 0xff]);
    }
}

#[test]
fn what_is_not_ours_passes_unchanged() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let own = rig.own(v6);
        let stranger: IpAddr = if v6 { "fd99::77".parse().unwrap() } else { [10, 99, 0, 79].into() };
        let mut frames = vec![];
        for proto in PROTOCOLS {
            frames.push(("an unpublished port", Packet::new(proto, client(v6, 1), SocketAddr::new(own, 53)).frame()));
            let to = SocketAddr::new(stranger, HERE);
            frames.push(("another's address", Packet::new(proto, client(v6, 1), to).frame()));
        }
        let packet = Packet::new(TCP, client(v6, 1), SocketAddr::new(own, HERE));
        for proto in [1, 2, 41, 47, 50, 58, 255] {
            frames.push(("another protocol", packet.around(proto, &[0; 40])));
        }
        for ethertype in [[8, 6], [0x81, 0], [0x88, 0xa8], [0x88, 0xcc], [0, 60]] {
            let mut frame = packet.frame();
            frame[12..14].copy_from_slice(&ethertype);
            frames.push(("another ethertype", frame));
        }
        for (what, frame) in frames {
            for via in [Via::Uplink, Via::Loopback] {
                rig.is_left(via, &frame, what);
            }
        }
    }
    let swapped = [(false, [0x86, 0xdd]), (true, [8, 0])];
    for (v6, ethertype) in swapped {
        let mut frame = Packet::new(TCP, client(v6, 1), SocketAddr::new(rig.own(v6), HERE)).frame();
        frame[12..14].copy_from_slice(&ethertype);
        rig.is_left(Via::Uplink, &frame, "a family that lies");
    }
}

/// A process of the node whose own port is a published one asks somebody, and is answered over the loopback device.
#[test]
fn an_answer_to_a_process_that_uses_a_published_port_as_its_own_is_left_alone() {
    let rig = Rig::new();
    for (v6, proto) in [(false, TCP), (true, TCP), (false, SCTP), (true, SCTP)] {
        let [to, from] = [HERE, THERE].map(|port| SocketAddr::new(rig.own(v6), port));
        let frame =
            answer_to(&Seen { from: to, to: from, proto, flags: 0, l4: vec![], right: true, left: false }).frame();
        assert_eq!(rig.run(Via::Loopback, &frame), (NEXT, frame.clone()));
        assert_eq!(rig.run(Via::Uplink, &frame).0, REDIRECT, "from outside it is a client's");
    }
}

/// One client port towards two addresses of the node, and the same task: the task can tell them only by another port.
#[test]
fn a_taken_tuple_gets_another_port_and_the_way_back_is_kept() {
    let rig = Rig::new();
    let second = IpAddr::from(rig.lab.nodes[0].second);
    for proto in PROTOCOLS {
        let from = client(false, 45_000);
        let asked = [rig.own(false), second].map(|own| SocketAddr::new(own, HERE));
        let changed = rig.events(Event::PortChanged);
        let first = rig.passes(Via::Uplink, &Packet::new(proto, from, asked[0])).0;
        let other = rig.passes(Via::Uplink, &Packet::new(proto, from, asked[1])).0;
        assert_eq!((first.from, other.from.ip()), (from, from.ip()), "the address is never changed");
        assert_ne!(other.from.port(), from.port());
        assert!(other.from.port() >= 1024);
        assert_eq!(rig.events(Event::PortChanged), changed + 1);
        for (seen, asked) in [(&first, asked[0]), (&other, asked[1])] {
            let (back, _) = rig.passes(Via::Task(0), &answer_to(seen));
            assert_eq!((back.from, back.to), (asked, from), "{proto}");
        }
        let again = rig.passes(Via::Uplink, &Packet::new(proto, from, asked[1]).flags(ACK)).0;
        assert_eq!(again.from, other.from, "and stays so");
    }
}

#[test]
fn with_every_port_taken_a_flow_is_given_up_and_counted() {
    let rig = Rig::sized(1 << 18);
    let from = client(false, 46_000);
    let packet = Packet::new(UDP, from, SocketAddr::new(rig.own(false), HERE));
    rig.passes(Via::Uplink, &packet);
    let taken = rig.entry_of(UDP, 1, 46_000);
    let mut flows = rig.flows();
    for port in 0..=u16::MAX {
        let mut key = taken.key;
        put(&mut key, 34, port);
        flows.insert(key, taken.value, 0).unwrap();
    }
    let other = Packet { to: SocketAddr::new(rig.lab.nodes[0].second.into(), HERE), ..packet };
    rig.is_dropped(Via::Uplink, &other.frame(), skep_mesh::DropReason::NoPort, "no port is left");
}
