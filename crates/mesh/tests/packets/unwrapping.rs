//! What is taken out of the tunnel's headers where it arrives, and what is left to the tunnel's own device.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_mesh::{DIRECT_VNI, DropReason, FORWARD_VNI, REPLY_VNI, SECOND_CHANCE_VNI};

use super::overlay::{addressed, asked};
use super::rig::{FAR, HERE, NEXT, NOBODY, REDIRECT, Rig, THERE, Via, client, ticks};
use super::wire::{ACK, ETHERNET, ICMP, Packet, SCTP, SYN, Seen, TCP, UDP, get, put, seal, sum};

/// Where headers are in what [`wrapped`] makes.
const IP: usize = ETHERNET;
const UDP_AT: usize = IP + 20;
const VXLAN: usize = UDP_AT + 8;
const WITHIN: usize = VXLAN + 8;

/// A frame in the tunnel, as nodes send it.
fn wrapped(rig: &Rig, from: Ipv4Addr, vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let node = SocketAddr::new(rig.own(false), 4789);
    let body = [&[8, 0, 0, 0, a, b, c, 0], frame].concat();
    let mut out = Packet::new(UDP, SocketAddr::new(from.into(), 0xc123), node).body(&body).frame();
    out[..6].copy_from_slice(&rig.lab.nodes[0].ns.mac("eth0"));
    put(&mut out, UDP_AT + 6, 0);
    out
}

/// A client's packet that the first of the other nodes sends on.
fn forwarded(rig: &Rig, packet: &Packet) -> Vec<u8> {
    let frame = addressed(packet.frame(), rig.task_addr(0, false), 80);
    wrapped(rig, FAR[0], FORWARD_VNI, &frame)
}

fn datagram(port: u16) -> Packet {
    Packet::new(UDP, client(false, port), asked(false, HERE)).body(b"for the task")
}

/// Makes the outer IPv4 header's sum right again.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    put(&mut frame, IP + 10, 0);
    let check = !sum(&frame[IP..IP + 20]);
    put(&mut frame, IP + 10, check);
    frame
}

fn with(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = byte;
    frame
}

/// The packet, if it was taken out of the tunnel's headers; what is left to the device must be as it was.
fn taken(rig: &Rig, segments: u32, frame: &[u8]) -> Option<Seen> {
    let (verdict, out) = rig.run_wrapped(Via::Uplink, segments, [frame]).remove(0);
    if verdict == NEXT {
        assert_eq!(out, frame, "left, and not as it was");
        return None;
    }
    assert_eq!(verdict, REDIRECT);
    Some(Seen::right(&out))
}

/// Makes the notes about what went to the device older by so many ticks.
fn age(rig: &Rig, by: u32) {
    let mut detours = rig.detours();
    for index in 0..detours.len() {
        let then = detours.get(&index, 0).unwrap();
        if then != 0 {
            detours.set(index, then.wrapping_sub(by), 0).unwrap();
        }
    }
}

fn went_by_device(rig: &Rig) -> usize {
    rig.detours().iter().filter(|then| *then.as_ref().unwrap() != 0).count()
}

/// Before Linux 6.3 the device sees to IPv6.
fn takes_ipv6() -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap());
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

#[test]
fn what_a_member_sends_on_reaches_the_task() {
    let rig = Rig::new();
    for (proto, v6) in [TCP, UDP, SCTP].into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        for (n, vni) in (0..).zip([FORWARD_VNI, SECOND_CHANCE_VNI]) {
            let packet = Packet::new(proto, client(v6, 40_000 + n), asked(v6, HERE)).body(b"whole");
            let frame = addressed(packet.frame(), rig.task_addr(0, false), 80);
            let seen = taken(&rig, 0, &wrapped(&rig, FAR[0], vni, &frame));
            assert_eq!(seen.is_some(), !v6 || takes_ipv6(), "{proto} {v6}");
            let Some(seen) = seen else { continue };
            assert_eq!((seen.from, seen.to), (packet.from, SocketAddr::new(rig.task_addr(0, v6), 80)));
            let (_, out) = rig.run_wrapped(Via::Uplink, 0, [&wrapped(&rig, FAR[0], vni, &frame)[..]]).remove(0);
            assert_eq!(get(&out, 12), if v6 { 0x86dd } else { 0x0800 }, "the frame says what is in it");
            assert_eq!(out.len(), frame.len());
        }
    }
}

#[test]
fn what_a_member_answers_reaches_the_client() {
    let rig = Rig::new();
    for (proto, v6) in [(TCP, false), (UDP, false), (TCP, true)] {
        let asking = Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), THERE));
        rig.passes(Via::Uplink, &asking);
        let answer = asking.turned().flags(SYN | ACK).body(b"answer");
        let seen = taken(&rig, 0, &wrapped(&rig, FAR[0], REPLY_VNI, &answer.frame()));
        assert_eq!(seen.map(|seen| (seen.from, seen.to)), (!v6 || takes_ipv6()).then_some((answer.from, answer.to)));
    }
}

/// What is wrong within is counted, as it is where it comes by the device.
#[test]
fn what_is_within_is_judged_as_ever() {
    let rig = Rig::new();
    let frame = addressed(datagram(40_000).frame(), rig.task_addr(0, false), 80);
    let nobodys = Packet { to: asked(false, NOBODY), ..datagram(40_000) };
    let strange = addressed(nobodys.frame(), [10, 0, 9, 9].into(), 80);
    for (vni, frame, reason) in [
        (REPLY_VNI, &frame, DropReason::UnknownFlow),
        (DIRECT_VNI, &frame, DropReason::UnknownTask),
        (FORWARD_VNI, &with(&frame, ETHERNET, 0x55), DropReason::Malformed),
    ] {
        rig.is_dropped(Via::Uplink, &wrapped(&rig, FAR[0], vni, frame), reason, "within");
    }
    let refused = taken(&rig, 0, &wrapped(&rig, FAR[0], FORWARD_VNI, &strange));
    assert_eq!(refused.map(|seen| seen.to.ip()), Some(FAR[0].into()), "the refusal goes back through the tunnel");
    assert_eq!(rig.drops(DropReason::UnknownTask), 2);
}

#[test]
fn what_may_not_be_the_tunnels_is_left_alone() {
    let rig = Rig::new();
    let good = forwarded(&rig, &datagram(40_000));
    let own = rig.lab.nodes[0].second.octets();
    let stranger = wrapped(&rig, [10, 99, 0, 79].into(), FORWARD_VNI, &good[WITHIN..]);
    let on_port = |port: u16| {
        let mut frame = good.clone();
        put(&mut frame, UDP_AT + 2, port);
        frame
    };
    let elsewhere = summed([&good[..IP + 16], &own, &good[IP + 20..]].concat());
    let mut cases = vec![
        ("another port", on_port(4790)),
        ("another address of the node", elsewhere),
        ("from a stranger", stranger),
        ("from the node itself", wrapped(&rig, rig.lab.nodes[0].underlay, FORWARD_VNI, &good[WITHIN..])),
        ("another tunnel's", wrapped(&rig, FAR[0], FORWARD_VNI - 1, &good[WITHIN..])),
        ("another tunnel's", wrapped(&rig, FAR[0], DIRECT_VNI + 1, &good[WITHIN..])),
        ("no number", with(&good, VXLAN, 0)),
        ("more flags", with(&good, VXLAN, 0x0c)),
        ("more flags", with(&good, VXLAN + 3, 1)),
        ("bits that mean nothing", with(&good, VXLAN + 7, 1)),
        ("not IP within", with(&good, WITHIN + 13, 6)),
        ("a protocol that is not UDP", summed(with(&good, IP + 9, 47))),
    ];
    let mut optional = Packet { ip_options: vec![1; 4], ..datagram(1) };
    optional.from = SocketAddr::new(FAR[0].into(), 0xc123);
    optional.to = SocketAddr::new(rig.own(false), 4789);
    optional.body = good[VXLAN..].to_vec();
    let mut optional = optional.frame();
    optional[..6].copy_from_slice(&good[..6]);
    put(&mut optional, UDP_AT + 4 + 6, 0);
    cases.push(("options", optional));
    let over_ipv6 = SocketAddr::new(rig.own(true), 4789);
    let mut ipv6 = Packet::new(UDP, client(true, 0xc123), over_ipv6).body(&good[VXLAN..]).frame();
    ipv6[..6].copy_from_slice(&good[..6]);
    cases.push(("over IPv6", ipv6));
    for (what, frame) in &cases {
        assert_eq!(taken(&rig, 0, frame), None, "{what}");
    }
    for length in IP + 20..good.len() {
        assert_eq!(taken(&rig, 0, &good[..length]), None, "cut to {length}");
    }
    assert_eq!(went_by_device(&rig), 0, "no flow of the tunnel's is held up by them");
    assert!(taken(&rig, 0, &good).is_some());
}

/// Any bit of the outer headers decides, but for who has sent the frame and the port that tells flows from each other.
#[test]
fn a_wrong_bit_outside_is_never_taken() {
    let rig = Rig::new();
    let means_nothing = |at: &usize| (6..12).contains(at) || (UDP_AT..UDP_AT + 2).contains(at);
    // By the last byte of the number one kind of packet becomes another, and is judged as that. Those that are taken come first: each is of a
    // flow of its own, but others that go to the device hold up whoever shares their place.
    let (nothing, all): (Vec<_>, Vec<_>) = (0..WITHIN).filter(|at| *at != VXLAN + 6).partition(means_nothing);
    let bits = nothing.into_iter().chain(all).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    for (port, (at, bit)) in (40_000..).zip(bits) {
        let good = forwarded(&rig, &datagram(port));
        let frame = with(&good, at, good[at] ^ 1 << bit);
        let (verdict, out) = rig.run_wrapped(Via::Uplink, 0, [&frame[..]]).remove(0);
        let taken = verdict == REDIRECT;
        assert_eq!(taken, means_nothing(&at), "bit {bit} of byte {at}: {verdict}");
        assert!(taken || out == frame, "bit {bit} of byte {at}: left, and not as it was");
    }
}

#[test]
fn what_is_not_plain_goes_to_the_device() {
    let rig = Rig::new();
    let good = forwarded(&rig, &datagram(40_000));
    let mut sealed = good.clone();
    seal(UDP, FAR[0].into(), rig.own(false), &mut sealed[UDP_AT..]);
    let part = Packet { fragment: 0x2000, ..datagram(40_000) };
    let later = Packet { fragment: 8, ..datagram(40_000) };
    let cases = [
        ("a wrong sum", with(&good, IP + 10, good[IP + 10] ^ 1)),
        ("a sum of all", sealed),
        ("the first part", summed(with(&good, IP + 6, 0x20))),
        ("a mark of congestion", summed(with(&good, IP + 1, 3))),
        ("for another machine", with(&good, 5, good[5] ^ 1)),
        ("for all machines", [&[0xff; 6], &good[6..]].concat()),
        ("longer than it says", [&good[..], &[0; 4]].concat()),
        ("a datagram that is shorter", {
            let mut frame = good.clone();
            let length = get(&frame, UDP_AT + 4) - 1;
            put(&mut frame, UDP_AT + 4, length);
            frame
        }),
        ("a first fragment within", forwarded(&rig, &part)),
        ("a later fragment within", forwarded(&rig, &later)),
    ];
    for (what, frame) in &cases {
        assert_eq!(taken(&rig, 0, frame), None, "{what}");
        assert_eq!(went_by_device(&rig), 1, "{what}: its flow is noted");
        age(&rig, 17);
        assert!(taken(&rig, 0, &good).is_some(), "{what}");
        let mut detours = rig.detours();
        (0..detours.len()).for_each(|index| detours.set(index, 0, 0).unwrap());
    }
    // Later parts have no headers of the tunnel's; whatever they are, they are not taken for any.
    let later = summed(with(&good, IP + 7, 8));
    assert_ne!(rig.run_wrapped(Via::Uplink, 0, [&later[..]]).remove(0).0, REDIRECT);
    assert_eq!(went_by_device(&rig), 0);
}

#[test]
fn extension_headers_within_are_the_devices() {
    let rig = Rig::new();
    let packet = Packet::new(UDP, client(true, 40_000), asked(true, HERE));
    for kind in [0, 43, 44, 60] {
        let packet = Packet { extensions: vec![(kind, vec![0; 8])], ..packet.clone() };
        assert_eq!(taken(&rig, 0, &forwarded(&rig, &packet)), None, "{kind}");
        assert!(went_by_device(&rig) > 0);
    }
}

/// Segments that are one packet for now go to the device, and nothing of their flow may overtake them.
#[test]
fn a_flow_keeps_its_order() {
    let rig = Rig::new();
    let segments = |port| Packet::new(TCP, client(false, port), asked(false, HERE)).flags(ACK).body(&[1; 2800]);
    let small = |port| forwarded(&rig, &Packet { flags: SYN, body: vec![], ..segments(port) });
    assert!(taken(&rig, 0, &small(40_000)).is_some());
    assert_eq!(taken(&rig, 1400, &forwarded(&rig, &segments(40_000))), None);
    assert_eq!(went_by_device(&rig), 1);
    age(&rig, 17);
    assert!(taken(&rig, 0, &small(40_000)).is_some());
    // Right behind what goes to the device, if the test itself is not held up for too long.
    let marked = summed(with(&small(40_000), IP + 1, 3));
    let right_behind = |port| {
        let frames = [marked.clone(), small(port)];
        rig.run_wrapped(Via::Uplink, 0, frames.iter().map(|frame| &frame[..])).remove(1).0
    };
    assert!((0..50).any(|_| right_behind(40_000) == NEXT));
    let overtaking = (40_001..40_033).filter(|port| right_behind(*port) == REDIRECT).count();
    assert!(overtaking > 30, "{overtaking} of 32 other flows are not held up");
    let noted = rig.detours().iter().map(|then| then.unwrap()).max().unwrap();
    assert!(ticks().wrapping_sub(noted) < 10_000);
}

#[test]
fn only_what_comes_where_it_is_sent_to_is_taken() {
    let mut rig = Rig::new();
    let good = forwarded(&rig, &datagram(40_000));
    rig.apply(|desired| desired.devices.ipsec = true);
    assert_eq!(taken(&rig, 0, &good), None, "policies of IPsec");
    rig.apply(|desired| desired.devices.ways.clear());
    assert_eq!(taken(&rig, 0, &good), None, "no way back");
    rig.apply(|desired| desired.devices.ways.values_mut().for_each(|way| way.device = 1));
    assert_eq!(taken(&rig, 0, &good), None, "by another device");
    rig.apply(|desired| desired.members.retain(|m| m.underlay != IpAddr::from(FAR[0])));
    assert_eq!(taken(&rig, 0, &good), None, "no member any more");
    rig.apply(|_| ());
    assert!(taken(&rig, 0, &good).is_some());
    assert_eq!(went_by_device(&rig), 0);
}

/// Errors about answers come through the tunnel too.
#[test]
fn errors_within_are_taken() {
    let rig = Rig::new();
    let packet = datagram(40_000);
    assert!(taken(&rig, 0, &forwarded(&rig, &packet)).is_some());
    let about = super::wire::error(packet.from.ip(), packet.to.ip(), 3, 1, &packet.turned().frame()[14..]);
    let frame = addressed(about, rig.task_addr(0, false), 80);
    let seen = taken(&rig, 0, &wrapped(&rig, FAR[0], FORWARD_VNI, &frame)).unwrap();
    assert_eq!((seen.proto, seen.to.ip()), (ICMP, rig.task_addr(0, false)));
}
