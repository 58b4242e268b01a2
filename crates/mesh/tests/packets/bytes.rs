//! Packets that are cut, that lie about their lengths, or that have more headers than usual.

use std::net::SocketAddr;

use skep_mesh::DropReason;

use super::rig::{HERE, NEXT, PROTOCOLS, REDIRECT, Rig, Via, client};
use super::wire::{ACK, ETHERNET, Packet, SYN, Seen, TCP, put};

/// The kernel itself refuses to run a program on a frame without a whole IP header.
fn shortest(v6: bool) -> usize {
    if v6 { 54 } else { 34 }
}

fn asking(rig: &Rig, proto: u8, v6: bool) -> Packet {
    Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE))
}

/// A task's packet to a client outside.
fn told(rig: &Rig, proto: u8, v6: bool) -> Packet {
    Packet::new(proto, SocketAddr::new(rig.task_addr(0, v6), 81), client(v6, 40_000))
}

#[test]
fn a_packet_cut_anywhere_is_left_to_the_kernel_and_not_let_out_of_a_task() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let whole = asking(&rig, proto, v6).body(b"0123456789").frame();
        let cut: Vec<_> = (shortest(v6)..whole.len()).map(|length| &whole[..length]).collect();
        for via in [Via::Uplink, Via::Loopback] {
            for (frame, (verdict, out)) in cut.iter().zip(rig.run_all(via, 0, cut.iter().copied())) {
                assert_eq!((verdict, &out[..]), (NEXT, *frame), "{via:?} {proto}, {} bytes", frame.len());
            }
        }
        let whole = told(&rig, proto, v6).body(b"0123456789").frame();
        for length in shortest(v6)..whole.len() {
            rig.is_dropped(Via::Task(0), &whole[..length], DropReason::Malformed, &format!("{proto} {length}"));
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_left_to_the_kernel() {
    let rig = Rig::new();
    for (proto, header) in [(TCP, 20), (super::wire::UDP, 8), (super::wire::SCTP, 13)] {
        let v4 = asking(&rig, proto, false).body(&[0; 30]).frame();
        let total = u16::try_from(v4.len() - ETHERNET).unwrap();
        let mut lies: Vec<Vec<u8>> = vec![];
        for byte in (0..=255).filter(|byte| byte >> 4 != 4 || byte & 15 < 5) {
            lies.push(v4.clone());
            lies.last_mut().unwrap()[14] = byte;
        }
        for length in (0..20 + header).chain(total + 1..total + 4).chain([0x7fff, 0xffff]) {
            lies.push(v4.clone());
            put(lies.last_mut().unwrap(), 16, length);
        }
        let v6 = asking(&rig, proto, true).body(&[0; 30]).frame();
        let payload = u16::try_from(v6.len() - 54).unwrap();
        for byte in (0..=255).filter(|byte| byte >> 4 != 6) {
            lies.push(v6.clone());
            lies.last_mut().unwrap()[14] = byte;
        }
        for length in (0..header).chain(payload + 1..payload + 4).chain([0x7fff, 0xffff]) {
            lies.push(v6.clone());
            put(lies.last_mut().unwrap(), 18, length);
        }
        let seen = rig.run_all(Via::Uplink, 0, lies.iter().map(|lie| &lie[..]));
        for (lie, (verdict, out)) in lies.iter().zip(seen) {
            assert_eq!((verdict, &out), (NEXT, lie), "{proto}");
        }
    }
}

/// Cables pad short frames.
#[test]
fn bytes_behind_the_packet_do_not_count() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let mut frame = asking(&rig, proto, v6).frame();
        frame.extend([0xff; 7]);
        let (verdict, out) = rig.run(Via::Uplink, &frame);
        assert_eq!((verdict, Seen::right(&out).to.port()), (REDIRECT, 80), "{proto}");
    }
}

#[test]
fn ip_options_of_every_length_are_kept() {
    let rig = Rig::new();
    for proto in PROTOCOLS {
        for words in 0..=10 {
            let options: Vec<u8> = [7, 4 * words, 4].into_iter().chain([0; 40]).take(usize::from(words) * 4).collect();
            let packet = Packet { ip_options: options.clone(), ..asking(&rig, proto, false) };
            let (seen, out) = rig.passes(Via::Uplink, &packet);
            assert_eq!((seen.to.port(), &out[34..34 + options.len()]), (80, &options[..]));
        }
    }
}

/// An extension header of that many bytes, without meaning: of padding, or a routing header with no segments left.
fn extension(kind: u8, size: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; size];
    bytes[1] = u8::try_from(size / 8 - 1).unwrap();
    if kind != 43 && size > 2 {
        (bytes[2], bytes[3]) = (1, u8::try_from((size - 4).min(255)).unwrap());
    }
    (kind, bytes)
}

fn chain(kinds: &[(u8, usize)]) -> Vec<(u8, Vec<u8>)> {
    kinds.iter().map(|&(kind, size)| extension(kind, size)).collect()
}

#[test]
fn extension_headers_are_walked_over() {
    let rig = Rig::new();
    let chains: [&[(u8, usize)]; 8] = [
        &[(0, 8)],
        &[(43, 24)],
        &[(60, 16)],
        &[(44, 8)],
        &[(0, 8), (60, 8), (43, 8), (60, 8)],
        &[(0, 8), (44, 8), (60, 8)],
        &[(60, 8); 6],
        // The transport header is where the programs' reach ends.
        &[(60, 72)],
    ];
    for (n, kinds) in (0..).zip(chains) {
        for proto in PROTOCOLS {
            let mut packet = asking(&rig, proto, true);
            packet.from.set_port(41_000 + n);
            packet.extensions = chain(kinds);
            if let Some(fragment) = packet.extensions.iter_mut().find(|(kind, _)| *kind == 44) {
                // Atomic (RFC 6946): the header, and nothing else of a fragment.
                fragment.1 = vec![0, 0, 0, 0, 1, 2, 3, 4];
            }
            let (seen, out) = rig.passes(Via::Uplink, &packet);
            assert_eq!((seen.to.port(), out.len()), (80, packet.frame().len()), "{kinds:?}");
            // The task answers with the same.
            let answer = Packet { extensions: packet.extensions.clone(), ..Packet::new(proto, seen.to, seen.from) };
            let (back, _) = rig.passes(Via::Task(0), &answer);
            assert_eq!((back.from, back.to), (packet.to, packet.from), "{kinds:?}");
        }
    }
}

#[test]
fn too_many_or_too_long_extension_headers_are_nobodys() {
    let rig = Rig::new();
    let chains: [&[(u8, usize)]; 5] =
        [&[(60, 8); 7], &[(60, 80)], &[(0, 40), (60, 40)], &[(0, 64), (43, 16)], &[(60, 1024)]];
    for kinds in chains {
        for proto in PROTOCOLS {
            let packet = Packet { extensions: chain(kinds), ..asking(&rig, proto, true) };
            rig.is_left(Via::Uplink, &packet.frame(), &format!("{kinds:?}"));
            let told = Packet { extensions: chain(kinds), ..told(&rig, proto, true) };
            rig.is_dropped(Via::Task(0), &told.frame(), DropReason::NoWayOut, &format!("{kinds:?}"));
        }
    }
    // Authentication, encryption, mobility, none, and one that is not assigned.
    for kind in [51, 50, 135, 59, 253] {
        let packet = Packet { extensions: chain(&[(kind, 8)]), ..asking(&rig, TCP, true) };
        rig.is_left(Via::Uplink, &packet.frame(), &format!("next header {kind}"));
    }
}

#[test]
fn extension_headers_that_lie_are_left_to_the_kernel() {
    let rig = Rig::new();
    for kind in [0, 43, 60] {
        let frame = Packet { extensions: chain(&[(kind, 8)]), ..asking(&rig, TCP, true) }.frame();
        for length in 2..=255 {
            let mut lie = frame.clone();
            lie[55] = length;
            rig.is_left(Via::Uplink, &lie, &format!("{kind} of length {length}"));
        }
        // The payload ends within the extension header, or within the transport's.
        for payload in 0..28 {
            let mut lie = frame.clone();
            put(&mut lie, 18, payload);
            rig.is_left(Via::Uplink, &lie, &format!("{kind} in {payload} bytes"));
        }
        for length in 54..frame.len() {
            rig.is_left(Via::Uplink, &frame[..length], &format!("{kind} cut to {length}"));
        }
    }
}

/// A SYN whose header claims to be shorter or longer than it is passes unharmed: only its own kernel can say what it means.
#[test]
fn a_tcp_header_that_lies_about_its_options_is_carried_and_not_believed() {
    let rig = Rig::new();
    for v6 in [false, true] {
        for words in 0..16 {
            let mut packet = asking(&rig, TCP, v6).flags(SYN);
            packet.from.set_port(42_000 + words);
            let mut l4 = packet.transport();
            l4[12] = u8::try_from(words).unwrap() << 4;
            super::wire::seal(TCP, packet.from.ip(), packet.to.ip(), &mut l4);
            let (verdict, out) = rig.run(Via::Uplink, &packet.around(TCP, &l4));
            let seen = Seen::right(&out);
            assert_eq!((verdict, seen.l4[12], seen.to.port()), (REDIRECT, l4[12], 80));
        }
        // Of a known flow everything passes, whatever its flags say.
        for flags in 0..=255 {
            let mut packet = asking(&rig, TCP, v6).flags(SYN);
            packet.from.set_port(43_000 + u16::from(flags));
            rig.passes(Via::Uplink, &packet);
            let (seen, _) = rig.passes(Via::Uplink, &packet.clone().flags(flags));
            assert_eq!(seen.flags, flags);
            let (seen, _) = rig.passes(Via::Uplink, &packet.flags(ACK));
            assert_eq!(seen.to.port(), 80, "after flags {flags:#x}");
        }
    }
}
