//! What the tunnel puts before a packet, and which packets its own device sees to. All other tests see through it, and check its headers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_mesh::{Desired, Way};

use super::rig::{FAR, REDIRECT, Rig, THERE, Via, WRAPPING, client, unwrapped};
use super::wire::{ACK, ETHERNET, Packet, SCTP, TCP, UDP, get, put, sum};

/// A packet that goes to a task elsewhere.
fn away(rig: &Rig, proto: u8, v6: bool, port: u16) -> Packet {
    Packet::new(proto, client(v6, port), SocketAddr::new(rig.own(v6), THERE))
}

fn wrapped(rig: &Rig, frame: &[u8]) -> Vec<u8> {
    let (verdict, out) = rig.run_wrapped(Via::Uplink, 0, [frame]).remove(0);
    assert_eq!(verdict, REDIRECT);
    out
}

/// Whether the frame is as it was, but for its addresses: the device puts the rest before it.
fn is_for_the_device(rig: &Rig, frame: &[u8]) -> bool {
    wrapped(rig, frame)[12..] == frame[12..]
}

#[test]
fn a_packet_leaves_in_a_datagram_from_node_to_node() {
    let rig = Rig::new();
    let (IpAddr::V4(own), far) = (rig.own(false), FAR[0]) else { panic!("an IPv4 underlay") };
    for (proto, v6) in [TCP, UDP, SCTP].into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
        let packet = away(&rig, proto, v6, 40_000).body(b"whole").frame();
        let out = wrapped(&rig, &packet);
        let addresses = [26, 30].map(|at| Ipv4Addr::from(<[u8; 4]>::try_from(&out[at..at + 4]).unwrap()));
        assert_eq!(addresses, [own, far]);
        assert_eq!((out[12], &out[46..49]), (if v6 { 0x86 } else { 0x08 }, &[0x73, 0x6b, 1][..]), "forward");
        assert_eq!(unwrapped(out)[12..], packet[12..], "what is within is as it was");
    }
}

/// Networks spread flows by the ports that they see, and must not spread the packets of one.
#[test]
fn each_flow_has_a_port_of_its_own_and_keeps_it() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let port = |n: u16, flags| get(&wrapped(&rig, &away(&rig, TCP, v6, n).flags(flags).frame()), 34);
        let first: Vec<_> = (40_000..40_064).map(|n| port(n, 2)).collect();
        assert_eq!((40_000..40_064).map(|n| port(n, ACK)).collect::<Vec<_>>(), first);
        let different: BTreeSet<_> = first.iter().collect();
        assert!(different.len() > 56, "{} ports for 64 flows", different.len());
    }
}

/// RFC 6040: what is marked outside may tell the one within.
#[test]
fn congestion_bits_are_told_outside() {
    let rig = Rig::new();
    for (v6, bits) in [false, true].into_iter().flat_map(|v6| (0..4).map(move |bits| (v6, bits))) {
        let mut frame = away(&rig, UDP, v6, 41_000).frame();
        if v6 {
            frame[15] = bits << 4;
        } else {
            // 46: a class that is not told to networks between.
            frame[15] = 46 << 2 | bits;
            put(&mut frame, 24, 0);
            let check = !sum(&frame[ETHERNET..ETHERNET + 20]);
            put(&mut frame, 24, check);
        }
        assert_eq!(wrapped(&rig, &frame)[15], bits);
    }
}

#[test]
fn what_needs_the_tunnels_own_device_goes_by_it() {
    let mut rig = Rig::new();
    let fits = away(&rig, UDP, false, 42_000).body(&[1; 1422]);
    let mut cut = away(&rig, UDP, false, 42_000).body(&[1; 1423]);
    cut.fragment = 0;
    assert_eq!(wrapped(&rig, &fits.frame()).len(), fits.frame().len() + WRAPPING, "straight");
    assert!(is_for_the_device(&rig, &cut.frame()), "only the device cuts up");
    let changes: [fn(&mut Desired); 4] = [
        |desired| desired.devices.ipsec = true,
        |desired| desired.devices.ways.clear(),
        |desired| desired.devices.ways.values_mut().for_each(|way| way.mtu = 1499),
        |desired| {
            let Some(IpAddr::V4(far)) = desired.members.last().map(|m| m.underlay) else { return };
            let narrow = Way { device: 1, mtu: 1400, source: desired.node.underlay };
            desired.devices.ways.extend(FAR.map(|addr| (ipnet::IpNet::new(addr.into(), 32).unwrap(), narrow)));
            assert!(FAR.contains(&far));
        },
    ];
    for change in changes {
        rig.apply(change);
        assert!(is_for_the_device(&rig, &fits.frame()));
        rig.apply(|_| ());
        assert!(!is_for_the_device(&rig, &fits.frame()));
    }
}

/// Segments that are one packet for now, in a test of no protocol that the kernel would cut up behind something: the device may know.
#[test]
fn what_the_kernel_would_not_cut_up_goes_by_the_device() {
    let rig = Rig::new();
    let frame = away(&rig, TCP, false, 43_000).flags(ACK).body(&[1; 2900]).frame();
    for segments in [1400, 1411] {
        let (verdict, out) = rig.run_wrapped(Via::Uplink, segments, [&frame[..]]).remove(0);
        assert_eq!((verdict, &out[12..]), (REDIRECT, &frame[12..]), "of {segments} bytes");
    }
}
