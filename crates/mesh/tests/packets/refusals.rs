//! What is refused is refused at once, in words that the client's kernel takes for the real thing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use skep_mesh::{DropReason, Event};

use super::rig::{HERE, NOBODY, PROTOCOLS, REDIRECT, Rig, THERE, Via, client};
use super::wire::{ABORT, ACK, FIN, ICMP, ICMPV6, Packet, RST, SCTP, SYN, TCP, UDP, get, word};

const BODY: &[u8] = b"12345";

#[test]
fn a_reset_has_the_numbers_that_make_it_believed() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let asked = SocketAddr::new(rig.own(v6), NOBODY);
        for flags in (0..64).filter(|flags| flags & RST == 0) {
            for options in [&[][..], &[1, 1, 1, 0], &[1; 40]] {
                let mut packet = Packet::new(TCP, client(v6, 40_000), asked).flags(flags).body(BODY);
                (packet.ack, packet.tcp_options) = (0x0908_0706, options.to_vec());
                let (seen, out) = rig.passes(Via::Uplink, &packet);
                assert_eq!((seen.from, seen.to, seen.l4.len()), (asked, packet.from, 20));
                assert_eq!(out.len(), 14 + if v6 { 40 } else { 20 } + 20, "nothing behind it");
                let (seq, ack) = (word(&seen.l4, 4), word(&seen.l4, 8));
                if flags & ACK != 0 {
                    assert_eq!((seen.flags, seq), (RST, packet.ack), "{flags:#x}");
                } else {
                    let consumed = 5 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                    assert_eq!((seen.flags, seq, ack), (RST | ACK, 0, packet.seq + consumed), "{flags:#x}");
                }
            }
        }
        assert_eq!(rig.drops(DropReason::NoBackend) % 96, 0);
    }
    assert_eq!(rig.drops(DropReason::NoBackend), 2 * 32 * 3);
}

#[test]
fn sequence_numbers_wrap_in_a_reset() {
    let rig = Rig::new();
    let packet = Packet::new(TCP, client(false, 1), SocketAddr::new(rig.own(false), NOBODY)).seq(u32::MAX).body(BODY);
    assert_eq!(word(&rig.passes(Via::Uplink, &packet).0.l4, 8), 5);
}

#[test]
fn a_reset_of_nobodys_connection_gets_no_answer_and_opens_nothing() {
    let rig = Rig::new();
    for v6 in [false, true] {
        for port in [NOBODY, HERE, THERE] {
            for (proto, flags) in [(TCP, RST), (TCP, RST | ACK), (TCP, RST | SYN), (SCTP, ABORT)] {
                let packet = Packet::new(proto, client(v6, 1), SocketAddr::new(rig.own(v6), port)).flags(flags);
                assert_eq!(rig.run(Via::Uplink, &packet.frame()).0, super::rig::DROP);
            }
        }
    }
    assert_eq!(rig.flows().keys().count(), 0);
}

#[test]
fn a_datagram_is_refused_by_an_error_that_quotes_it() {
    let rig = Rig::new();
    for (proto, v6) in [(UDP, false), (UDP, true), (SCTP, false), (SCTP, true)] {
        let asked = SocketAddr::new(rig.own(v6), NOBODY);
        for length in [0, 1, 2, 3, 4, 5, 500] {
            let packet = Packet::new(proto, client(v6, 40_000), asked).body(&vec![7; length]);
            let (seen, out) = rig.passes(Via::Uplink, &packet);
            assert_eq!((seen.from.ip(), seen.to.ip()), (asked.ip(), packet.from.ip()));
            let want = match (proto, v6) {
                (UDP, false) => (ICMP, 3, 3),
                (_, false) => (ICMP, 3, 2),
                (_, true) => (ICMPV6, 1, 4),
            };
            assert_eq!((seen.proto, seen.l4[0], seen.l4[1]), want);
            let header = if v6 { 40 } else { 20 };
            assert_eq!(seen.l4[8..], packet.frame()[14..14 + header + 8], "quotes what was sent");
            assert_eq!(out.len(), 14 + header + 8 + header + 8);
        }
    }
}

#[test]
fn packets_with_options_or_extension_headers_get_no_answer() {
    let rig = Rig::new();
    for proto in PROTOCOLS {
        let mut v4 = Packet::new(proto, client(false, 1), SocketAddr::new(rig.own(false), NOBODY));
        v4.ip_options = vec![1, 1, 1, 0];
        let mut v6 = Packet::new(proto, client(true, 1), SocketAddr::new(rig.own(true), NOBODY));
        v6.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
        for packet in [v4, v6] {
            rig.is_dropped(Via::Uplink, &packet.frame(), DropReason::NoBackend, "no answer");
        }
    }
}

/// Clients on the node itself and in its tasks are answered where they are.
#[test]
fn a_refusal_goes_back_the_way_the_client_came() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let loopback: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        for proto in PROTOCOLS {
            let asked = SocketAddr::new(loopback, NOBODY);
            let packet = Packet::new(proto, SocketAddr::new(loopback, 40_000), asked);
            let (seen, out) = rig.passes(Via::Loopback, &packet);
            assert_eq!((seen.from.ip(), seen.to.ip(), &out[..12]), (loopback, loopback, &[0; 12][..]));
            for own in [rig.own(v6), rig.overlay(v6)] {
                let task = SocketAddr::new(rig.task_addr(0, v6), 40_000);
                let (seen, out) = rig.passes(Via::Task(0), &Packet::new(proto, task, SocketAddr::new(own, NOBODY)));
                assert_eq!((seen.from.ip(), seen.to.ip()), (own, task.ip()));
                assert_eq!(out[..6], rig.lab.tasks[0].ns.mac("eth0"));
            }
        }
    }
}

#[test]
fn a_flow_whose_task_is_gone_is_refused_where_it_stands() {
    let mut rig = Rig::new();
    let asking = |rig: &Rig, proto, v6, port| {
        Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), port)).body(BODY)
    };
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        for port in [HERE, THERE] {
            rig.passes(Via::Uplink, &asking(&rig, proto, v6, port));
        }
    }
    rig.apply(|desired| {
        desired.local_tasks.clear();
        desired.endpoints.clear();
    });
    for v6 in [false, true] {
        for port in [HERE, THERE] {
            let gone = rig.drops(DropReason::BackendGone);
            let mut data = asking(&rig, TCP, v6, port).flags(ACK);
            data.ack = 77;
            let (seen, _) = rig.passes(Via::Uplink, &data);
            assert_eq!((seen.flags, word(&seen.l4, 4)), (RST, 77));
            let (seen, _) = rig.passes(Via::Uplink, &asking(&rig, SCTP, v6, port).flags(super::wire::DATA));
            assert_eq!(get(&seen.l4, 0), if v6 { 0x0104 } else { 0x0302 });
            assert_eq!(rig.drops(DropReason::BackendGone), gone + 2);
            // Of UDP a new task would be chosen; there is none.
            let none = rig.drops(DropReason::NoBackend);
            rig.passes(Via::Uplink, &asking(&rig, UDP, v6, port));
            assert_eq!(rig.drops(DropReason::NoBackend), none + 1);
        }
    }
}

#[test]
fn who_sends_too_much_at_once_is_told_how_much_fits() {
    let rig = Rig::new();
    for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let overhead = if v6 { 40 } else { 20 }
            + match proto {
                TCP => 20,
                UDP => 8,
                _ => 16,
            };
        let sized = |total: usize| {
            let to = SocketAddr::new(rig.own(v6), THERE);
            let mut packet = Packet::new(proto, client(v6, 40_000), to).body(&vec![1; total - overhead]);
            packet.fragment = 0x4000;
            if proto == TCP {
                packet.flags = ACK;
            }
            packet
        };
        let tunneled = rig.run(Via::Uplink, &sized(1450).frame());
        assert_eq!((tunneled.0, &tunneled.1[..4]), (REDIRECT, &[2, 0x73, 0x6b, 1][..]), "just fits");
        let big = sized(1451);
        let (seen, out) = rig.passes(Via::Uplink, &big);
        let want = if v6 { (ICMPV6, 2, 0) } else { (ICMP, 3, 4) };
        assert_eq!((seen.proto, seen.l4[0], seen.l4[1], word(&seen.l4, 4)), (want.0, want.1, want.2, 1450));
        let quoted = if v6 { 40 } else { 20 } + if proto == TCP { 20 } else { 8 };
        assert_eq!(seen.l4[8..], big.frame()[14..14 + quoted]);
        assert_eq!((seen.from.ip(), seen.to.ip()), (big.to.ip(), big.from.ip()));
        assert_eq!(out.len(), 14 + if v6 { 40 } else { 20 } + 8 + quoted);
        // Several segments in one: each of them fits, as their SYN has said.
        let joined = rig.run_all(Via::Uplink, 1400, [&sized(3000).frame()[..]]).remove(0);
        assert_eq!((joined.0, &joined.1[..4]), (REDIRECT, &[2, 0x73, 0x6b, 1][..]));
        if !v6 {
            let mut may_be_cut = big.clone();
            may_be_cut.fragment = 0;
            assert_eq!(rig.run(Via::Uplink, &may_be_cut.frame()).1[..4], [2, 0x73, 0x6b, 1]);
            let options = Packet { ip_options: vec![1, 1, 1, 0], ..big };
            let before = rig.events(Event::TooBig);
            assert_eq!(rig.run(Via::Uplink, &options.frame()).0, super::rig::DROP);
            assert_eq!(rig.events(Event::TooBig), before + 1);
        }
        // Nothing is too big for a task of the node itself.
        let here = Packet { to: SocketAddr::new(rig.own(v6), HERE), ..sized(3000) };
        assert_eq!(rig.passes(Via::Uplink, &here).0.to.port(), 80);
    }
    assert_eq!(rig.events(Event::TooBig), 6 + 3);
}
