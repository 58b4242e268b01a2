//! The maximum segment size that SYNs announce is made one that fits into the overlay, wherever the option is.

use std::net::SocketAddr;

use super::rig::{HERE, Rig, THERE, Via, client};
use super::wire::{ACK, Packet, SYN, TCP, get};

const MSS: [u8; 4] = [2, 4, 5, 180];

fn padded(parts: &[&[u8]]) -> Vec<u8> {
    let mut options = parts.concat();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// Options, and where in them a size is clamped.
fn cases() -> Vec<(Vec<u8>, Option<usize>)> {
    let (stamps, permitted, scale) = ([8, 10, 1, 2, 3, 4, 5, 6, 7, 8], [4, 2], [3, 3, 7]);
    let mut cases = vec![
        (padded(&[&MSS]), Some(0)),
        (padded(&[&MSS, &permitted, &stamps, &[1], &scale]), Some(0)),
        (padded(&[&permitted, &stamps, &[1], &scale, &MSS]), Some(16)),
        (padded(&[&scale, &[1], &MSS]), Some(4)),
        (padded(&[&stamps, &permitted, &MSS, &[1], &scale]), Some(12)),
        // At an odd place, behind the end, in an option that is too short, or too long, or none of its own.
        (padded(&[&[1], &MSS]), None),
        (padded(&[&scale, &MSS]), None),
        (padded(&[&[0], &[1], &MSS]), None),
        (padded(&[&[2, 3, 5, 180]]), None),
        (padded(&[&[2, 5, 5, 180, 1]]), None),
        (padded(&[&[254, 6], &MSS]), None),
        (padded(&[&[254, 0], &MSS]), None),
        (padded(&[&[254, 1], &MSS]), None),
        (padded(&[&[254, 255], &MSS]), None),
        // The smallest that is clamped, and the largest that is not.
        (padded(&[&[2, 4, 0xff, 0xff]]), Some(0)),
        (padded(&[&[2, 4, 0, 0]]), None),
        (vec![], None),
    ];
    for pad in 1..=18 {
        let options = padded(&[&vec![1; pad * 2], &MSS]);
        // After so many options nobody looks any further.
        cases.push((options, (pad * 2 < 16).then_some(pad * 2)));
    }
    cases.push((padded(&[&[1; 35], &[1], &MSS]), None));
    cases
}

#[test]
fn segment_sizes_are_clamped_wherever_they_are() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let fits = if v6 { 1390 } else { 1410 };
        for (n, (options, clamped)) in (0..).zip(cases()) {
            let mut packet = Packet::new(TCP, client(v6, 40_000 + n), SocketAddr::new(rig.own(v6), HERE)).body(b"fast");
            packet.tcp_options.clone_from(&options);
            let (seen, _) = rig.passes(Via::Uplink, &packet);
            let mut want = options.clone();
            if let Some(at) = clamped {
                super::wire::put(&mut want, at + 2, fits);
            }
            assert_eq!(seen.l4[20..20 + options.len()], want, "{options:?}");
            // The task's own SYN likewise.
            let answer = Packet { tcp_options: options.clone(), ..Packet::new(TCP, seen.to, seen.from) };
            let (back, _) = rig.passes(Via::Task(0), &answer.flags(SYN | ACK));
            assert_eq!(back.l4[20..20 + options.len()], want, "{options:?}");
        }
    }
}

#[test]
fn what_fits_and_what_is_no_syn_stays() {
    let rig = Rig::new();
    for (v6, fits) in [(false, 1410), (true, 1390)] {
        for (size, flags, want) in [(fits, SYN, fits), (fits + 1, SYN, fits), (fits + 1, ACK, fits + 1)] {
            let mut packet = Packet::new(TCP, client(v6, 40_000), SocketAddr::new(rig.own(v6), HERE)).flags(flags);
            packet.tcp_options = vec![2, 4, 0, 0];
            super::wire::put(&mut packet.tcp_options, 2, size);
            assert_eq!(get(&rig.passes(Via::Uplink, &packet).0.l4, 22), want, "{size} {flags}");
        }
    }
}

/// The owner of the task does it: the client's packet travels unchanged.
#[test]
fn the_node_that_was_asked_clamps_nothing() {
    let rig = Rig::new();
    let mut packet = Packet::new(TCP, client(false, 40_000), SocketAddr::new(rig.own(false), THERE));
    packet.tcp_options = MSS.to_vec();
    let out = rig.run(Via::Uplink, &packet.frame()).1;
    assert_eq!(out[12..], packet.frame()[12..]);
}
