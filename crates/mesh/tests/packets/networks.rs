//! What tasks send to each other, to services' own addresses, and to the world outside, packet by packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use skep_mesh::{DropReason, Event, Network, NetworkKind};
use skep_model::{EndpointKey, NetworkId, Prefix6, VirtualIp};

use super::rig::{FAR_TASK, REDIRECT, Rig, Via, client, inside, parcel};
use super::wire::{ACK, FIN, Packet, RST, SYN, Seen, TCP, UDP, error};

const ONE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);
/// Of a task elsewhere.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 13);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 99);

/// Both tasks of the node are on one network, with one elsewhere; nobody knows of another one.
fn rig(kind: NetworkKind) -> Rig {
    rig_with(kind, None, ONE)
}

/// The network may have an IPv6 subnet of its own; the service's address leads to the task at `served`.
fn rig_with(kind: NetworkKind, subnet6: Option<Ipv6Net>, served: Ipv4Addr) -> Rig {
    let mut rig = Rig::new();
    let network = NetworkId::random();
    rig.apply(|desired| {
        let subnet = "10.1.0.0/24".parse().unwrap();
        desired.networks.push(Network { id: network.clone(), number: 4097, subnet, subnet6, kind });
        for (local, addr) in desired.local_tasks.iter_mut().zip([ONE, TWO]) {
            local.networks = vec![(network.clone(), addr)];
        }
        let far = desired.endpoints.iter().find(|e| e.record.addr == FAR_TASK).unwrap().clone();
        let mut more = vec![(far, FAR)];
        for (task, addr) in [(0, ONE), (1, TWO)] {
            let is = |e: &&skep_mesh::LocatedEndpoint| e.key.task == desired.local_tasks[task].task;
            more.push((desired.endpoints.iter().find(is).unwrap().clone(), addr));
        }
        let service = more.iter().find(|(_, addr)| *addr == served).unwrap().0.record.service.clone();
        for (mut endpoint, addr) in more {
            endpoint.key = EndpointKey { network: network.clone(), task: endpoint.key.task };
            endpoint.record.addr = addr;
            desired.endpoints.push(endpoint);
        }
        let service = desired.services.iter_mut().find(|s| s.id == service).unwrap();
        service.virtual_ips = vec![VirtualIp { network: network.clone(), addr: Ipv4Net::new(VIP, 24).unwrap() }];
    });
    rig
}

fn at(address: Ipv4Addr, v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(inside(address, v6), port)
}

#[test]
fn packets_between_tasks_are_not_changed() {
    let rig = rig(NetworkKind::Open);
    for v6 in [false, true] {
        for to in [TWO, FAR] {
            let packets = [
                Packet::new(TCP, at(ONE, v6, 40_000), at(to, v6, 80)).frame(),
                Packet::new(TCP, at(ONE, v6, 80), at(to, v6, 40_000)).flags(ACK).frame(),
                Packet::new(UDP, at(ONE, v6, 80), at(to, v6, 1)).body(&[7; 100]).frame(),
                Packet::new(UDP, at(ONE, v6, 80), at(to, v6, 1)).around(47, &[1; 30]),
                Packet::new(UDP, at(ONE, v6, 80), at(to, v6, 1))
                    .around(if v6 { 58 } else { 1 }, &[8, 0, 0, 0, 1, 2, 3, 4]),
            ];
            for frame in packets {
                let (verdict, out) = rig.run(Via::Task(0), &frame);
                assert_eq!((verdict, &out[12..]), (REDIRECT, &frame[12..]), "{to} {frame:02x?}");
            }
        }
    }
    assert_eq!(rig.flows().keys().count(), 0, "nothing is remembered");
}

#[test]
fn a_packet_that_does_not_fit_into_the_overlay_is_answered_with_its_size() {
    let rig = rig(NetworkKind::Open);
    let big = |to| {
        let mut packet = Packet::new(UDP, at(ONE, false, 1), at(to, false, 2)).body(&[0; 1450]);
        packet.fragment = 0x4000;
        packet.frame()
    };
    let (verdict, out) = rig.run(Via::Task(0), &big(FAR));
    let seen = Seen::right(&out);
    assert_eq!((verdict, seen.l4[0], seen.l4[1], &seen.l4[6..8]), (REDIRECT, 3, 4, &1450_u16.to_be_bytes()[..]));
    assert_eq!(rig.run(Via::Task(0), &big(TWO)).1[12..], big(TWO)[12..], "here it fits");
}

#[test]
fn addresses_of_other_networks_are_refused() {
    let rig = rig(NetworkKind::Open);
    for v6 in [false, true] {
        let unreachable = if v6 { [(1, 4), (1, 3)] } else { [(3, 3), (3, 1)] };
        for to in [NOBODY, FAR_TASK, rig.lab.tasks[1].addr, Ipv4Addr::new(10, 0, 99, 1)] {
            for from in [ONE, rig.lab.tasks[0].addr] {
                let packet = |proto| Packet::new(proto, at(from, v6, 40_000), at(to, v6, 81));
                let (verdict, out) = rig.run(Via::Task(0), &packet(TCP).frame());
                let seen = Seen::right(&out);
                assert_eq!((verdict, seen.from, seen.flags), (REDIRECT, at(to, v6, 81), RST | ACK), "{to}");
                rig.is_told(Via::Task(0), &packet(UDP).frame(), DropReason::OtherNetwork, unreachable[0]);
                let other = packet(UDP).around(47, &[0; 20]);
                rig.is_told(Via::Task(0), &other, DropReason::OtherNetwork, unreachable[1]);
            }
        }
        let forged = Packet::new(UDP, at(TWO, v6, 1), at(FAR, v6, 1)).frame();
        rig.is_dropped(Via::Task(0), &forged, DropReason::Spoofed, "another's address");
    }
}

#[test]
fn a_services_own_address_has_all_ports() {
    let rig = rig(NetworkKind::Open);
    for (v6, port) in [(false, 80), (true, 80), (false, 12_345), (true, 53)] {
        for proto in [TCP, UDP] {
            let packet = Packet::new(proto, at(TWO, v6, 40_000), at(VIP, v6, port));
            let (verdict, out) = rig.run(Via::Task(1), &packet.frame());
            let seen = Seen::right(&out);
            assert_eq!((verdict, seen.from), (REDIRECT, packet.from));
            assert_eq!(seen.to, at(ONE, v6, port), "the only task of this service on the network");
            let answer = Packet::new(proto, seen.to, seen.from).flags(SYN | ACK);
            assert_eq!(rig.passes(Via::Task(0), &answer).0.from, packet.to);
        }
        let stranger = Packet::new(TCP, at(rig.lab.tasks[1].addr, v6, 1), at(VIP, v6, port));
        let (_, out) = rig.run(Via::Task(1), &stranger.frame());
        assert_eq!(Seen::right(&out).flags, RST | ACK, "by an address of another network");
    }
}

#[test]
fn what_goes_out_comes_back() {
    let rig = rig(NetworkKind::Open);
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            let task = SocketAddr::new(rig.task_addr(0, v6), 40_000);
            let asks = Packet::new(proto, task, client(v6, 443));
            let out = rig.goes_out(Via::Task(0), &asks.frame(), "asks");
            assert_eq!(rig.goes_out(Via::Task(0), &asks.frame(), "again").from, out.from, "by the same port");
            assert_ne!(
                rig.goes_out(
                    Via::Task(1),
                    &Packet::new(proto, SocketAddr::new(rig.task_addr(1, v6), 40_000), client(v6, 443)).frame(),
                    "another"
                )
                .from,
                out.from
            );
            let answer = Packet::new(proto, out.to, out.from).flags(SYN | ACK).body(b"yes");
            let (seen, _) = rig.passes(Via::Uplink, &answer);
            assert_eq!((seen.from, seen.to), (asks.to, task));
            let stranger = Packet::new(proto, client(v6, 444), out.from).flags(SYN | ACK);
            rig.is_left(Via::Uplink, &stranger.frame(), "from where nobody asked");
            // An error about it, too.
            let sent = Packet::new(proto, out.from, out.to);
            let kind = if v6 { 1 } else { 3 };
            let told = error(client(v6, 0).ip(), out.from.ip(), kind, 3, &sent.frame()[14..]);
            let (verdict, frame) = rig.run(Via::Uplink, &told);
            let seen = Seen::right(&frame);
            assert_eq!((verdict, seen.to.ip()), (REDIRECT, task.ip()));
        }
    }
    assert_eq!(rig.events(Event::WentOut), 8);
}

#[test]
fn a_connection_that_nobody_knows_is_reset() {
    let rig = rig(NetworkKind::Open);
    let task = SocketAddr::new(rig.task_addr(0, false), 40_000);
    for flags in [ACK, FIN | ACK] {
        let (verdict, out) = rig.run(Via::Task(0), &Packet::new(TCP, task, client(false, 443)).flags(flags).frame());
        assert_eq!((verdict, Seen::right(&out).flags & RST), (REDIRECT, RST));
    }
    let away = SocketAddr::new(IpAddr::from([203, 0, 113, 1]), 443);
    rig.is_told(Via::Task(0), &Packet::new(UDP, task, away).frame(), DropReason::NoRoute, (3, 0));
}

#[test]
fn who_may_not_go_out_is_told_so() {
    let rig = rig(NetworkKind::Internal);
    for v6 in [false, true] {
        let prohibited = if v6 { (1, 1) } else { (3, 13) };
        for to in [client(v6, 443), SocketAddr::new(rig.own(v6), 443)] {
            for proto in [TCP, UDP] {
                let packet = Packet::new(proto, SocketAddr::new(rig.task_addr(0, v6), 40_000), to);
                rig.is_told(Via::Task(0), &packet.frame(), DropReason::NoWayOut, prohibited);
            }
        }
    }
}

#[test]
fn the_last_hop_is_the_nodes() {
    let rig = rig(NetworkKind::Open);
    for v6 in [false, true] {
        let mut frame = Packet::new(UDP, SocketAddr::new(rig.task_addr(0, v6), 40_000), client(v6, 33_434)).frame();
        if v6 {
            frame[21] = 1;
        } else {
            frame[22] = 1;
            super::wire::put(&mut frame, 24, 0);
            let check = !super::wire::sum(&frame[14..34]);
            super::wire::put(&mut frame, 24, check);
        }
        let (verdict, out) = rig.run(Via::Task(0), &frame);
        let seen = Seen::right(&out);
        assert_eq!((verdict, seen.from.ip(), seen.l4[0]), (REDIRECT, rig.own(v6), if v6 { 3 } else { 11 }));
    }
    assert_eq!(rig.events(Event::HopsExceeded), 2);
}

/// The tunnel key of one task to another says no more than the packet does.
#[test]
fn through_the_tunnel_goes_the_packet_alone() {
    let rig = rig(NetworkKind::Open);
    let (_, out) = rig.run(Via::Task(0), &Packet::new(UDP, at(ONE, false, 1), at(FAR, false, 2)).frame());
    assert_eq!(parcel(&out), (Ipv4Addr::UNSPECIFIED, 0));
}

/// Networks' own IPv6 subnets; the bits between the prefix and what is IPv4's need not be zeros.
const OWN: [&str; 2] = ["2001:db8:9::/64", "fd00:1:2:3:4:5::/96"];

fn own_rigs(served: Ipv4Addr) -> impl Iterator<Item = (Rig, Prefix6)> {
    let nets = OWN.map(|net| net.parse::<Ipv6Net>().unwrap());
    nets.into_iter().map(move |net| (rig_with(NetworkKind::Open, Some(net), served), Prefix6::of(net).unwrap()))
}

#[test]
fn tasks_have_the_addresses_of_a_subnet_of_their_networks_own() {
    for (rig, prefix) in own_rigs(ONE) {
        let at = |addr: Ipv4Addr, port: u16| SocketAddr::new(prefix.with(addr).into(), port);
        for to in [TWO, FAR] {
            for packet in [
                Packet::new(TCP, at(ONE, 40_000), at(to, 80)).frame(),
                Packet::new(UDP, at(ONE, 80), at(to, 1)).around(47, &[1; 30]),
            ] {
                let (verdict, out) = rig.run(Via::Task(0), &packet);
                assert_eq!((verdict, &out[12..]), (REDIRECT, &packet[12..]), "{to}");
            }
        }
        // Nobody has the addresses of networks without subnets, nor those that would go with another network's.
        let (ingress, plain) = (rig.lab.tasks[1].addr, inside);
        for to in [plain(TWO, true), plain(FAR, true), prefix.with(ingress).into(), prefix.with(NOBODY).into()] {
            let packet = Packet::new(UDP, at(ONE, 1), SocketAddr::new(to, 1));
            rig.is_told(Via::Task(0), &packet.frame(), DropReason::OtherNetwork, (1, 4));
        }
        for from in [plain(ONE, true), prefix.with(rig.lab.tasks[0].addr).into(), prefix.with(TWO).into()] {
            let packet = Packet::new(UDP, SocketAddr::new(from, 1), at(FAR, 1)).frame();
            rig.is_dropped(Via::Task(0), &packet, DropReason::Spoofed, "not its own");
        }
        // The way out is by the node's address.
        let out = rig.goes_out(Via::Task(0), &Packet::new(UDP, at(ONE, 1), client(true, 53)).frame(), "asks");
        let (seen, _) = rig.passes(Via::Uplink, &Packet::new(UDP, out.to, out.from));
        assert_eq!((seen.from, seen.to), (client(true, 53), at(ONE, 1)));
    }
}

#[test]
fn a_services_own_address_is_in_the_subnet_too() {
    for (rig, prefix) in own_rigs(ONE) {
        let at = |addr: Ipv4Addr, port: u16| SocketAddr::new(prefix.with(addr).into(), port);
        for proto in [TCP, UDP] {
            let packet = Packet::new(proto, at(TWO, 40_000), at(VIP, 80));
            let (seen, _) = rig.passes(Via::Task(1), &packet);
            assert_eq!((seen.from, seen.to), (packet.from, at(ONE, 80)));
            assert_eq!(rig.passes(Via::Task(1), &packet).0.to, at(ONE, 80), "again, by its entry");
            let answer = Packet::new(proto, seen.to, seen.from).flags(SYN | ACK);
            assert_eq!(rig.passes(Via::Task(0), &answer).0.from, packet.to);
            // Its error comes back as one of the service.
            let got = Packet::new(proto, packet.from, seen.to).frame();
            let told = error(prefix.with(ONE).into(), prefix.with(TWO).into(), 1, 4, &got[14..]);
            let (verdict, out) = rig.run(Via::Task(0), &told);
            assert_eq!((verdict, Seen::right(&out).from.ip()), (REDIRECT, at(VIP, 0).ip()));
        }
        let plain = Packet::new(TCP, at(TWO, 1), SocketAddr::new(inside(VIP, true), 80));
        assert_eq!(Seen::right(&rig.run(Via::Task(1), &plain.frame()).1).flags, RST | ACK, "nobody's address");
    }
    for (rig, prefix) in own_rigs(FAR) {
        // Another node is told by which prefix its task was asked, and nothing is rewritten.
        let at = |addr: Ipv4Addr, port: u16| SocketAddr::new(prefix.with(addr).into(), port);
        let packet = Packet::new(TCP, at(ONE, 40_001), at(VIP, 80));
        let (seen, out) = rig.passes(Via::Task(0), &packet);
        assert_eq!((seen.from, seen.to, parcel(&out)), (packet.from, packet.to, (FAR, 80)));
        assert_eq!(out[7] & 2, 2, "by its own prefix");
    }
}
