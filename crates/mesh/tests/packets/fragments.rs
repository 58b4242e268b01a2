//! Fragments: only the first one of a packet has ports.

use std::net::SocketAddr;

use skep_mesh::DropReason;

use super::rig::{DROP, FAR_TASK, HERE, NEXT, NOBODY, REDIRECT, Rig, THERE, Via, client, parcel};
use super::wire::{Packet, SCTP, SYN, TCP, UDP, get, put, sum};

const MORE: u16 = 0x2000;

fn asking(rig: &Rig, proto: u8, v6: bool, port: u16) -> Packet {
    Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), port)).body(b"0123456789abcdef")
}

/// Cuts a packet in two: the first fragment has this many bytes of the transport's part.
fn cut(packet: &Packet, id: u16, first: usize) -> [Vec<u8>; 2] {
    let l4 = packet.transport();
    let offset = u16::try_from(first / 8).unwrap();
    let one = |offset: u16, more: bool, part: &[u8]| {
        let mut packet = Packet { id, fragment: offset | if more { MORE } else { 0 }, ..packet.clone() };
        let field = (offset << 3 | u16::from(more)).to_be_bytes();
        let number = id.to_be_bytes();
        packet.extensions = vec![(44, vec![0, 0, field[0], field[1], 0, 0, number[0], number[1]])];
        packet.around(packet.proto, part)
    };
    [one(0, true, &l4[..first]), one(offset, false, &l4[first..])]
}

/// Both fragments with the translated addresses, put together again: the whole must be right.
fn together(first: &[u8], later: &[u8], v6: bool) -> super::wire::Seen {
    let at = if v6 { 62 } else { 34 };
    let mut whole = first.to_vec();
    whole.extend(&later[at..]);
    if v6 {
        put(&mut whole, 18, get(first, 18) + get(later, 18) - 8);
        put(&mut whole, 56, 0);
    } else {
        assert_eq!((sum(&first[14..34]), sum(&later[14..34])), (0xffff, 0xffff), "both headers");
        put(&mut whole, 16, get(first, 16) + get(later, 16) - 20);
        put(&mut whole, 20, 0);
        put(&mut whole, 24, 0);
        let check = !sum(&whole[14..34]);
        put(&mut whole, 24, check);
    }
    super::wire::Seen::right(&whole)
}

#[test]
fn fragments_follow_their_first_both_ways() {
    let rig = Rig::new();
    for (proto, v6) in [(TCP, false), (TCP, true), (UDP, false), (UDP, true)] {
        for via in [Via::Uplink, Via::Loopback] {
            let packet = asking(&rig, proto, v6, HERE);
            let [first, later] = cut(&packet, 7, 24);
            let (verdict, first) = rig.run(via, &first);
            let (second, later) = rig.run(via, &later);
            assert_eq!((verdict, second), (REDIRECT, REDIRECT), "{via:?} {proto}");
            let seen = together(&first, &later, v6);
            assert_eq!((seen.from, seen.to), (packet.from, SocketAddr::new(rig.task_addr(0, v6), 80)));
            let answer = Packet { body: packet.body.clone(), ..Packet::new(proto, seen.to, seen.from) };
            let [first, later] = cut(&answer, 9, 24);
            let (verdict, first) = rig.run(Via::Task(0), &first);
            let (second, later) = rig.run(Via::Task(0), &later);
            assert_eq!((verdict, second), (REDIRECT, REDIRECT), "{via:?} {proto}");
            let back = together(&first, &later, v6);
            assert_eq!((back.from, back.to), (packet.to, packet.from));
        }
    }
}

#[test]
fn a_fragment_waits_for_its_own_first() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let packet = asking(&rig, UDP, v6, HERE);
        let [first, later] = cut(&packet, 7, 8);
        rig.is_held(Via::Uplink, &later, "before its first");
        assert_eq!(rig.run(Via::Uplink, &first).0, REDIRECT);
        let mut other = packet.clone();
        other.from = client(v6, 40_000);
        rig.is_held(Via::Uplink, &cut(&packet, 8, 8)[1], "another packet's");
        let protocol = Packet { proto: TCP, ..packet.clone() };
        rig.is_held(Via::Uplink, &cut(&protocol, 7, 24)[1], "another protocol's");
        let asked = rig.lab.nodes[0].second;
        if !v6 {
            let other = Packet { to: SocketAddr::new(asked.into(), HERE), ..packet.clone() };
            rig.is_held(Via::Uplink, &cut(&other, 7, 8)[1], "to another address");
        }
        // What a task sends is remembered apart, and its later fragments may be of anything.
        let own = Packet::new(UDP, SocketAddr::new(rig.task_addr(0, v6), 9), client(v6, 9)).body(&[0; 40]);
        rig.is_dropped(Via::Task(0), &cut(&own, 7, 8)[1], DropReason::NoWayOut, "a task's own");
        let forged = Packet { from: client(v6, 7), to: client(v6, 9), ..own };
        rig.is_dropped(Via::Task(0), &cut(&forged, 7, 8)[1], DropReason::Spoofed, "in another's name");
        assert_eq!(rig.run(Via::Uplink, &later).0, REDIRECT, "after all that");
    }
}

/// RFC 1858: a first fragment that is too short for its header.
#[test]
fn a_first_fragment_without_a_whole_header_is_left_to_the_kernel() {
    let rig = Rig::new();
    for v6 in [false, true] {
        for (proto, sizes) in [(TCP, &[8, 16][..]), (UDP, &[]), (SCTP, &[8])] {
            for &size in sizes {
                let [first, later] = cut(&asking(&rig, proto, v6, HERE), 70 + u16::from(proto), size);
                rig.is_left(Via::Uplink, &first, "too short");
                rig.is_held(Via::Uplink, &later, "and its follower waits");
            }
        }
    }
}

#[test]
fn fragments_of_unpublished_ports_and_of_icmp_are_nobodys() {
    let rig = Rig::new();
    for v6 in [false, true] {
        for frame in cut(&asking(&rig, UDP, v6, 53), 5, 8) {
            rig.is_left(Via::Uplink, &frame, "unpublished");
        }
        let mut icmp = asking(&rig, UDP, v6, HERE);
        icmp.fragment = MORE;
        icmp.extensions = vec![(44, vec![0, 0, 0, 1, 0, 0, 0, 5])];
        let frame = icmp.around(if v6 { 58 } else { 1 }, &[3; 40]);
        rig.is_left(Via::Uplink, &frame, "a fragment of an error");
    }
}

#[test]
fn a_fragment_is_refused_without_an_answer() {
    let rig = Rig::new();
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            let [first, later] = cut(&asking(&rig, proto, v6, NOBODY), 7, 24);
            for frame in [first, later] {
                rig.is_dropped(Via::Uplink, &frame, DropReason::NoBackend, "nobody answers to half a packet");
            }
        }
    }
}

#[test]
fn a_syn_in_a_first_fragment_is_clamped() {
    let rig = Rig::new();
    let mut packet = asking(&rig, TCP, false, HERE).flags(SYN);
    packet.tcp_options = vec![2, 4, 0x20, 0];
    let [first, later] = cut(&packet, 7, 24);
    let first = rig.run(Via::Uplink, &first).1;
    let later = rig.run(Via::Uplink, &later).1;
    assert_eq!(get(&together(&first, &later, false).l4, 22), 1410);
}

/// More packets in pieces at once than are remembered: the oldest are forgotten, nothing else happens.
#[test]
fn the_memory_for_fragments_is_bounded() {
    let rig = Rig::new();
    let packet = asking(&rig, UDP, false, HERE);
    let firsts: Vec<_> = (0..5000).map(|id| cut(&packet, id, 8)[0].clone()).collect();
    let verdicts = rig.run_all(Via::Uplink, 0, firsts.iter().map(|frame| &frame[..]));
    assert!(verdicts.iter().all(|(verdict, _)| *verdict == REDIRECT));
    assert!(rig.fragments().keys().count() <= 2048);
    let later = cut(&packet, 4999, 8)[1].clone();
    assert_eq!(rig.run(Via::Uplink, &later).0, REDIRECT, "the newest is remembered");
    assert!([NEXT, DROP].contains(&rig.run(Via::Uplink, &cut(&packet, 0, 8)[1]).0), "the oldest is not");
}

/// The checksum of an association's packet can be changed for other ports only by who knows how long all of the packet is.
#[test]
fn a_fragment_of_an_association_is_dropped_where_its_ports_would_change() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let [first, _] = cut(&asking(&rig, SCTP, v6, HERE), 7, 24);
        rig.is_dropped(Via::Uplink, &first, DropReason::Rewrite, "its checksum would be wrong");
        // The node that was asked changes nothing.
        for frame in cut(&asking(&rig, SCTP, v6, THERE), 8, 24) {
            let (verdict, out) = rig.run(Via::Uplink, &frame);
            assert_eq!((verdict, parcel(&out), &out[12..]), (REDIRECT, (FAR_TASK, 80), &frame[12..]));
        }
    }
}
