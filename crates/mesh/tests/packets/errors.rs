//! ICMP errors about packets of flows: they reach whom they concern, and quote what that one sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use skep_mesh::DropReason;

use super::rig::{DROP, FAR_TASK, HERE, NEXT, PROTOCOLS, REDIRECT, Rig, THERE, Via, client, parcel};
use super::wire::{ICMP, ICMPV6, Packet, Seen, TCP, UDP, error, get, sum};

/// A flow of a client: what it asked, and what the task saw.
fn open(rig: &Rig, via: Via, proto: u8, from: SocketAddr, to: SocketAddr) -> (Packet, Packet) {
    let packet = Packet::new(proto, from, to).body(b"quoted");
    let (seen, _) = rig.passes(via, &packet);
    let inner = Packet { from: seen.from, to: seen.to, ..packet.clone() };
    (packet, inner)
}

fn is_error(v6: bool, kind: u8) -> bool {
    if v6 { (1..=4).contains(&kind) } else { [3, 11, 12].contains(&kind) }
}

/// What an error quotes: everything, or only so much of the transport's part.
fn quote(packet: &Packet, transport: Option<usize>) -> Vec<u8> {
    let mut quoted = packet.frame().split_off(14);
    let header = if packet.to.is_ipv4() { 20 } else { 40 };
    quoted.truncate(transport.map_or(usize::MAX, |bytes| header + bytes));
    quoted
}

/// Reads the quoted packet; its own checksums must be right as far as they are in it and can be.
fn quoted(seen: &Seen) -> (SocketAddr, SocketAddr) {
    let ip = &seen.l4[8..];
    let (header, from, to) = if seen.proto == ICMP {
        assert_eq!(sum(&ip[..20]), 0xffff, "the quoted header's checksum");
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        (20, address(12), address(16))
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        (40, address(8), address(24))
    };
    (SocketAddr::new(from, get(ip, header)), SocketAddr::new(to, get(ip, header + 2)))
}

#[test]
fn every_error_about_an_answer_reaches_the_task_and_nothing_else_does() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let from = client(v6, 40_000);
        let (packet, inner) = open(&rig, Via::Uplink, proto, from, SocketAddr::new(rig.own(v6), HERE));
        let router: IpAddr = if v6 { "fd77::1".parse().unwrap() } else { [192, 0, 2, 1].into() };
        for kind in 0..=255 {
            for (sender, size) in [(router, Some(8)), (from.ip(), None), (router, Some(20))] {
                let frame = error(sender, rig.own(v6), kind, 4, &quote(&packet.turned(), size));
                let (verdict, out) = rig.run(Via::Uplink, &frame);
                if !is_error(v6, kind) {
                    assert_eq!((verdict, out), (NEXT, frame), "type {kind}");
                    continue;
                }
                let seen = Seen::right(&out);
                assert_eq!(verdict, REDIRECT, "type {kind}");
                assert_eq!((seen.from.ip(), seen.to.ip()), (sender, inner.to.ip()), "who reports keeps its name");
                assert_eq!(quoted(&seen), (inner.to, inner.from));
                assert_eq!((seen.l4[0], seen.l4[1], &seen.l4[4..8]), (kind, 4, &frame_rest(&frame, v6)[..]));
                assert_eq!(out[..6], rig.lab.tasks[0].ns.mac("eth0"));
                if proto == UDP && size.is_none() {
                    let mut whole = vec![2; 12];
                    whole.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
                    whole.extend(&seen.l4[8..]);
                    assert!(Seen::of(&whole).unwrap().right, "the quoted datagram's checksum");
                }
            }
        }
    }
}

fn frame_rest(frame: &[u8], v6: bool) -> [u8; 4] {
    let at = 14 + if v6 { 40 } else { 20 } + 4;
    frame[at..at + 4].try_into().unwrap()
}

#[test]
fn a_quoted_datagram_without_a_checksum_stays_without() {
    let rig = Rig::new();
    let (packet, _) = open(&rig, Via::Uplink, UDP, client(false, 40_000), SocketAddr::new(rig.own(false), HERE));
    let mut without = quote(&packet.turned(), None);
    without[26..28].fill(0);
    let (_, out) = rig.run(Via::Uplink, &error(packet.from.ip(), packet.to.ip(), 3, 3, &without));
    assert_eq!(Seen::right(&out).l4[8 + 26..8 + 28], [0, 0]);
}

#[test]
fn an_error_may_have_options_and_extension_headers_itself() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let (packet, inner) = open(&rig, Via::Uplink, TCP, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE));
        let plain = error(packet.from.ip(), packet.to.ip(), 3, 0, &quote(&packet.turned(), Some(8)));
        let mut around = packet.clone();
        around.ip_options = vec![1, 1, 1, 0];
        around.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
        let frame = around.around(if v6 { ICMPV6 } else { ICMP }, &plain[14 + if v6 { 40 } else { 20 }..]);
        let (verdict, out) = rig.run(Via::Uplink, &frame);
        let seen = Seen::right(&out);
        assert_eq!((verdict, quoted(&seen)), (REDIRECT, (inner.to, inner.from)));
    }
}

/// The client's port was taken, or its address was one that no task could answer.
#[test]
fn an_error_quotes_what_the_task_saw() {
    let rig = Rig::new();
    let from = client(false, 40_000);
    let second = rig.lab.nodes[0].second.into();
    open(&rig, Via::Uplink, TCP, from, SocketAddr::new(rig.own(false), HERE));
    let (packet, inner) = open(&rig, Via::Uplink, TCP, from, SocketAddr::new(second, HERE));
    assert_ne!(inner.from.port(), from.port());
    let (_, out) = rig.run(Via::Uplink, &error(from.ip(), second, 3, 1, &quote(&packet.turned(), Some(8))));
    assert_eq!(quoted(&Seen::right(&out)), (inner.to, inner.from));
    for v6 in [false, true] {
        let own: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let ways = [(Via::Loopback, own, own), (Via::Task(0), rig.task_addr(0, v6), rig.own(v6))];
        for ((via, from, asked), proto) in ways.into_iter().flat_map(|way| [(way, TCP), (way, UDP)]) {
            let (from, asked) = (SocketAddr::new(from, 41_000), SocketAddr::new(asked, HERE));
            let (packet, inner) = open(&rig, via, proto, from, asked);
            let frame = error(from.ip(), asked.ip(), 3, 3, &quote(&packet.turned(), Some(8)));
            let (verdict, out) = rig.run(via, &frame);
            let seen = Seen::right(&out);
            assert_eq!((verdict, quoted(&seen)), (REDIRECT, (inner.to, inner.from)), "{via:?}");
            assert_eq!((seen.from.ip(), seen.to.ip()), (rig.overlay(v6), inner.to.ip()));
            // And the other way: of what the task says the client sees nothing but the node that it asked.
            let frame = error(inner.to.ip(), inner.from.ip(), 3, 3, &quote(&inner, Some(8)));
            let (verdict, out) = rig.run(Via::Task(0), &frame);
            let seen = Seen::right(&out);
            assert_eq!((verdict, quoted(&seen)), (REDIRECT, (packet.from, packet.to)), "{via:?}");
            assert_eq!((seen.from.ip(), seen.to.ip()), (asked.ip(), from.ip()));
        }
    }
}

#[test]
fn a_tasks_error_comes_in_the_frontends_name() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let (packet, inner) = open(&rig, Via::Uplink, proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE));
        for kind in 0..=255 {
            let frame = error(inner.to.ip(), inner.from.ip(), kind, 3, &quote(&inner, Some(8)));
            let (verdict, out) = rig.run(Via::Task(0), &frame);
            if !is_error(v6, kind) {
                assert_eq!(verdict, DROP, "type {kind}");
                continue;
            }
            let seen = Seen::right(&out);
            assert_eq!((verdict, seen.from.ip(), seen.to.ip()), (REDIRECT, packet.to.ip(), packet.from.ip()));
            assert_eq!(quoted(&seen), (packet.from, packet.to), "{proto} type {kind}");
        }
        let forged = error(rig.task_addr(1, v6), inner.from.ip(), 3, 3, &quote(&inner, Some(8)));
        rig.is_dropped(Via::Task(0), &forged, DropReason::Spoofed, "in another's name");
        rig.is_dropped(Via::Task(1), &forged, DropReason::Spoofed, "about another's flow");
        let strange = error(client(v6, 0).ip(), inner.from.ip(), 0, 0, &quote(&inner, Some(8)));
        rig.is_dropped(Via::Task(0), &strange, DropReason::Spoofed, "an echo reply with another's address");
    }
}

#[test]
fn an_error_about_an_answer_from_elsewhere_goes_there() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let asked = SocketAddr::new(rig.own(v6), THERE);
        let packet = Packet::new(proto, client(v6, 40_000), asked);
        rig.run(Via::Uplink, &packet.frame());
        let frame = error(packet.from.ip(), asked.ip(), 3, 3, &quote(&packet.turned(), Some(8)));
        let (verdict, out) = rig.run(Via::Uplink, &frame);
        assert_eq!((verdict, parcel(&out), &out[12..]), (REDIRECT, (FAR_TASK, 80), &frame[12..]));
        let own: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let looped = Packet { from: SocketAddr::new(own, 42_000), to: SocketAddr::new(own, THERE), ..packet };
        rig.passes(Via::Loopback, &looped);
        let frame = error(own, own, 3, 3, &quote(&looped.turned(), Some(8)));
        let (verdict, out) = rig.run(Via::Loopback, &frame);
        let overlay = rig.overlay(v6);
        let want = (SocketAddr::new(overlay, THERE), SocketAddr::new(overlay, 42_000));
        assert_eq!((verdict, parcel(&out), quoted(&Seen::right(&out))), (REDIRECT, (FAR_TASK, 80), want));
    }
}

#[test]
fn errors_that_are_cut_or_about_nothing_of_ours_pass_unchanged() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let (packet, inner) = open(&rig, Via::Uplink, UDP, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE));
        let answer = packet.turned();
        let about = |quoted: &[u8]| error(packet.from.ip(), packet.to.ip(), 3, 3, quoted);
        let whole = quote(&answer, None);
        let header = if v6 { 40 } else { 20 };
        // Cut inside, with lengths that agree.
        for length in 0..header + 4 {
            rig.is_left(Via::Uplink, &about(&whole[..length]), &format!("quotes {length} bytes"));
        }
        // Of a datagram the checksum is quoted too, by all that there are; without it the packet cannot be put right.
        for length in header + 4..header + 8 {
            rig.is_dropped(Via::Uplink, &about(&whole[..length]), DropReason::Rewrite, &format!("{length}"));
        }
        let frame = about(&whole);
        let least = if v6 { 54 } else { 34 };
        for length in least..frame.len() {
            rig.is_left(Via::Uplink, &frame[..length], &format!("cut to {length}"));
        }
        let mut spoiled = vec![];
        for (at, byte) in if v6 { [(0, 0x45), (6, 60), (6, 44)] } else { [(0, 0x65), (0, 0x44), (6, 0x1f)] } {
            spoiled.push(whole.clone());
            spoiled.last_mut().unwrap()[at] = byte;
        }
        for proto in [ICMP, ICMPV6, 47, 255] {
            spoiled.push(whole.clone());
            spoiled.last_mut().unwrap()[if v6 { 6 } else { 9 }] = proto;
        }
        spoiled.push(quote(&packet, None));
        spoiled.push(quote(&Packet { from: SocketAddr::new(rig.own(v6), 53), ..answer.clone() }, None));
        for quoted in spoiled {
            rig.is_left(Via::Uplink, &about(&quoted), "nothing of ours");
            rig.is_left(Via::Loopback, &about(&quoted), "nothing of ours");
            let own = error(inner.to.ip(), inner.from.ip(), 3, 3, &quoted);
            rig.is_dropped(Via::Task(0), &own, DropReason::NoWayOut, "a task's, about nothing of ours");
        }
    }
}

#[test]
fn errors_about_flows_of_a_task_that_is_gone_are_left_alone() {
    let mut rig = Rig::new();
    let (packet, _) = open(&rig, Via::Uplink, TCP, client(false, 40_000), SocketAddr::new(rig.own(false), HERE));
    rig.apply(|desired| {
        desired.local_tasks.clear();
        desired.endpoints.clear();
    });
    let frame = error(packet.from.ip(), packet.to.ip(), 3, 3, &quote(&packet.turned(), Some(8)));
    rig.is_left(Via::Uplink, &frame, "the task is gone");
}
