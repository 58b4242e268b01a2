//! Options of published ports, as new flows feel them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use skep_mesh::{Datapath as _, FrontendKey, Tables, choose};
use skep_model::{Balance, ListenOn, Protocol, PublishMode, PublishOptions, PublishedPort, TaskId};

use super::rig::{FAR, HERE, MIXED, NEXT, PROTOCOLS, REDIRECT, Rig, THERE, Via, client, options, parcel};
use super::wire::{ACK, ICMPV6, Packet, SYN, Seen, TCP, UDP};

const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The programs' clock stands still between two ticks of the machine's, which may be late: this is more than it is ever behind.
const BEHIND: u32 = 2 * 954;

/// Which task a packet for [`MIXED`] is given to.
fn given_to(rig: &Rig, via: Via, packet: &Packet) -> Ipv4Addr {
    let (verdict, out) = rig.run(via, &packet.frame());
    assert_eq!(verdict, REDIRECT, "{via:?} {packet:?}");
    if out[..4] == [2, 0x73, 0x6b, 1] {
        return parcel(&out).0;
    }
    match Seen::right(&out).to.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let octets = address.octets();
            Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])
        }
    }
}

fn chosen(
    tables: &Tables,
    protocol: Protocol,
    port: u16,
    client: SocketAddr,
    passed_over: &BTreeSet<TaskId>,
) -> Ipv4Addr {
    let key = FrontendKey { protocol, port };
    let frontend = &tables.frontends[&key];
    let task = choose(key, frontend, &tables.groups[&frontend.group], client, passed_over).unwrap();
    tables.backends[task].addr
}

/// A service's options of [`MIXED`], of [`HERE`] and of [`THERE`], for every protocol.
fn with(rig: &mut Rig, wanted: &PublishOptions, answers: bool) -> Tables {
    rig.apply(|desired| {
        for service in &mut desired.services {
            let port = service.ports[0].published.get();
            let of = |protocol| {
                let mut options = options(protocol, port, wanted.clone());
                options.answers = answers;
                options
            };
            service.options = ALL.map(of).to_vec();
        }
    })
}

#[test]
fn the_kernel_chooses_as_the_daemon_says() {
    let mut rig = Rig::new();
    let maglev = PublishOptions::default();
    for wanted in [
        maglev.clone(),
        PublishOptions { client_affinity: true, ..maglev.clone() },
        PublishOptions { balance: Balance::LocalFirst, ..maglev },
    ] {
        let mut tables = with(&mut rig, &wanted, true);
        for weight in [1, 5] {
            if weight > 1 {
                tables = rig.apply(|desired| {
                    desired.services.iter_mut().for_each(|s| s.options.clear());
                    desired.endpoints.iter_mut().rev().take(1).for_each(|e| e.record.weight = weight);
                });
            }
            agrees(&rig, &tables);
            rig.forget();
        }
    }
}

fn agrees(rig: &Rig, tables: &Tables) {
    let mut shares: BTreeMap<_, usize> = BTreeMap::new();
    let passed_over = rig.lab.nodes[0].bpf().passed_over().unwrap();
    for (proto, protocol) in PROTOCOLS.into_iter().zip(ALL) {
        for n in 0..200_u16 {
            for v6 in [false, true] {
                // Clients of every network, ports of every size.
                let from: IpAddr = if v6 {
                    Ipv6Addr::new(0x2001, 0xdb8, n, n.swap_bytes(), 7 * n, 0, n << 8, 1).into()
                } else {
                    Ipv4Addr::new(198, 18, ((n * 77) >> 8) as u8, n as u8).into()
                };
                let from = SocketAddr::new(from, 1 + n.wrapping_mul(331));
                let packet = Packet::new(proto, from, SocketAddr::new(rig.own(v6), MIXED));
                let task = given_to(rig, Via::Uplink, &packet);
                assert_eq!(task, chosen(tables, protocol, MIXED, from, &passed_over), "{protocol} {from}");
                *shares.entry(task).or_default() += 1;
            }
        }
    }
    let local_first = tables.frontends[&FrontendKey { protocol: Protocol::Tcp, port: MIXED }].group.clone();
    let everybody = tables.groups[&local_first].ready.len();
    assert_eq!(shares.len(), everybody, "{shares:?}");
}

/// Whom the kernel passes over, the daemon can say, and passes over too.
#[test]
fn the_daemon_knows_who_is_passed_over() {
    let mut rig = Rig::new();
    let tables = with(&mut rig, &PublishOptions::default(), true);
    let passed_over = |rig: &Rig| rig.lab.nodes[0].bpf().passed_over().unwrap();
    assert!(passed_over(&rig).is_empty());
    let asking = |port: u16| Packet::new(TCP, client(false, port), SocketAddr::new(rig.own(false), MIXED));
    let port_of = |task| (40_000..).find(|port| given_to(&rig, Via::Uplink, &asking(*port)) == task).unwrap();
    let then = super::rig::ticks() - BEHIND;
    // One task of this node, and the whole second node, which has two.
    let local = rig.entry_of(TCP, 0, port_of(rig.lab.tasks[1].addr)).slot();
    rig.suspects().set(local, then, 0).unwrap();
    assert_eq!(passed_over(&rig), BTreeSet::from([rig.lab.tasks[1].id.clone()]));
    rig.peers().set(2, [0, then], 0).unwrap();
    assert_eq!(passed_over(&rig).len(), 3);
    rig.forget();
    agrees(&rig, &tables);
    rig.suspects().set(local, then - 10 * 954, 0).unwrap();
    assert_eq!(passed_over(&rig).len(), 2, "for ten seconds");
}

#[test]
fn with_affinity_a_client_keeps_its_task() {
    let mut rig = Rig::new();
    with(&mut rig, &PublishOptions { client_affinity: true, ..PublishOptions::default() }, true);
    for v6 in [false, true] {
        let of = |port: u16, proto| Packet::new(proto, client(v6, port), SocketAddr::new(rig.own(v6), MIXED));
        for proto in PROTOCOLS {
            let tasks: BTreeSet<_> = (1..100).map(|port| given_to(&rig, Via::Uplink, &of(port, proto))).collect();
            assert_eq!(tasks.len(), 1, "{proto}");
        }
    }
}

#[test]
fn local_first_goes_elsewhere_only_when_nobody_is_here() {
    let mut rig = Rig::new();
    with(&mut rig, &PublishOptions { balance: Balance::LocalFirst, ..PublishOptions::default() }, true);
    let local = rig.lab.tasks[1].addr;
    for port in 1..100 {
        let packet = Packet::new(TCP, client(false, port), SocketAddr::new(rig.own(false), MIXED));
        assert_eq!(given_to(&rig, Via::Uplink, &packet), local);
    }
    rig.apply(|desired| {
        let wanted = PublishOptions { balance: Balance::LocalFirst, ..PublishOptions::default() };
        desired.services[2].options = ALL.map(|protocol| options(protocol, MIXED, wanted.clone())).to_vec();
        desired.local_tasks.remove(1);
    });
    let packet = Packet::new(TCP, client(false, 200), SocketAddr::new(rig.own(false), MIXED));
    assert_ne!(given_to(&rig, Via::Uplink, &packet), local);
}

#[test]
fn datagrams_may_be_given_out_one_by_one() {
    let mut rig = Rig::new();
    with(&mut rig, &PublishOptions { balance: Balance::Datagram, ..PublishOptions::default() }, true);
    for v6 in [false, true] {
        let packet = Packet::new(UDP, client(v6, 40_000), SocketAddr::new(rig.own(v6), MIXED));
        let tasks: BTreeSet<_> = (0..200).map(|_| given_to(&rig, Via::Uplink, &packet)).collect();
        assert_eq!(tasks.len(), 4, "one client, every task");
    }
}

#[test]
fn clients_outside_the_sources_find_nothing_published() {
    let mut rig = Rig::new();
    let nets = ["10.99.0.0/26", "10.99.0.100/32", "198.18.0.0/15", "fd99::/112", "2001:db8::/32"];
    let sources = nets.map(|net| net.parse().unwrap()).to_vec();
    with(&mut rig, &PublishOptions { sources, ..PublishOptions::default() }, true);
    let clients = [
        ("10.99.0.1", true),
        ("10.99.0.63", true),
        ("10.99.0.64", false),
        ("10.99.0.100", true),
        ("10.99.0.101", false),
        ("198.19.255.255", true),
        ("198.20.0.0", false),
        ("fd99::ffff", true),
        ("fd99::1:0", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::1", false),
        ("::1", false),
        ("127.0.0.1", false),
    ];
    for (address, admitted) in clients {
        let address: IpAddr = address.parse().unwrap();
        for proto in PROTOCOLS {
            for port in [HERE, THERE, MIXED] {
                let to = SocketAddr::new(rig.own(address.is_ipv6()), port);
                let frame = Packet::new(proto, SocketAddr::new(address, 40_000), to).frame();
                let (verdict, out) = rig.run(Via::Loopback, &frame);
                assert_eq!(verdict, if admitted { REDIRECT } else { NEXT }, "{address} {proto} {port}");
                assert!(admitted || out == frame);
            }
        }
    }
}

#[test]
fn a_port_answers_only_on_the_addresses_that_it_listens_on() {
    let mut rig = Rig::new();
    let (first, second) = (rig.own(false), IpAddr::from(rig.lab.nodes[0].second));
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let all = [first, second, rig.own(true), loopback[0], loopback[1]];
    let cases: [(&[&str], &[IpAddr]); 4] = [
        (&["127.0.0.0/8"], &[loopback[0]]),
        (&["::1/128", "127.0.0.1/32"], &loopback),
        (&["10.99.0.1/32", "fd99::/64"], &[first, rig.own(true)]),
        (&["0.0.0.0/0"], &[first, second, loopback[0]]),
    ];
    for (nets, answering) in cases {
        let listen = nets.iter().map(|net| ListenOn::Net(net.parse().unwrap())).collect();
        with(&mut rig, &PublishOptions { listen, ..PublishOptions::default() }, true);
        answers_on(&rig, &all, answering);
    }
    let listen = vec![ListenOn::Interface("eth0".to_owned())];
    with(&mut rig, &PublishOptions { listen, ..PublishOptions::default() }, true);
    answers_on(&rig, &all, &all[..3]);
    let listen = vec![ListenOn::Interface("eth7".to_owned())];
    with(&mut rig, &PublishOptions { listen, ..PublishOptions::default() }, true);
    answers_on(&rig, &all, &[]);
}

fn answers_on(rig: &Rig, all: &[IpAddr], answering: &[IpAddr]) {
    for asked in all {
        for (proto, via) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, Via::Loopback), (proto, Via::Uplink)]) {
            // Who is a stranger's loopback address to us?
            if asked.is_loopback() && via == Via::Uplink {
                continue;
            }
            let from = if asked.is_loopback() { *asked } else { client(asked.is_ipv6(), 0).ip() };
            let frame = Packet::new(proto, SocketAddr::new(from, 40_000), SocketAddr::new(*asked, HERE)).frame();
            let verdict = rig.run(via, &frame).0;
            assert_eq!(verdict, if answering.contains(asked) { REDIRECT } else { NEXT }, "{via:?} {asked} {proto}");
            // The flow must not be known to the next case.
            rig.forget();
        }
    }
}

#[test]
fn loopback_addresses_are_nobodys_from_outside() {
    let rig = Rig::new();
    for asked in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let frame = Packet::new(TCP, client(asked.is_ipv6(), 40_000), SocketAddr::new(asked, HERE)).frame();
        rig.is_left(Via::Uplink, &frame, "from outside");
        rig.is_left(
            Via::Task(0),
            &Packet::new(TCP, SocketAddr::new(rig.task_addr(0, asked.is_ipv6()), 1), SocketAddr::new(asked, HERE))
                .frame(),
            "of a task",
        );
    }
}

#[test]
fn a_node_that_is_not_to_answer_leaves_clients_alone() {
    let mut rig = Rig::new();
    with(&mut rig, &PublishOptions::default(), false);
    let everybody = |rig: &Rig| {
        for (proto, v6) in PROTOCOLS.into_iter().flat_map(|proto| [(proto, false), (proto, true)]) {
            let to = SocketAddr::new(rig.own(v6), HERE);
            rig.is_left(Via::Uplink, &Packet::new(proto, client(v6, 40_000), to).frame(), "outside");
            rig.is_left(Via::Loopback, &Packet::new(proto, client(v6, 40_000), to).frame(), "loopback");
            let task = SocketAddr::new(rig.task_addr(1, v6), 40_000);
            // A task that asks gets what the node itself has there, by IPv4.
            let (verdict, out) = rig.run(Via::Task(1), &Packet::new(proto, task, to).frame());
            let seen = Seen::right(&out);
            if v6 {
                assert_eq!((verdict, seen.proto, seen.l4[1]), (REDIRECT, ICMPV6, 1));
            } else {
                assert_eq!((verdict, seen.from.ip(), seen.to), (NEXT, rig.own(false), to));
            }
        }
    };
    everybody(&rig);
    // A process of the node listens there.
    rig.apply(|desired| desired.node.taken = ALL.map(|protocol| (protocol, HERE)).into());
    everybody(&rig);
}

#[test]
fn a_host_mode_port_answers_on_its_own_node_alone() {
    let mut rig = Rig::new();
    let number = |n: u16| n.try_into().unwrap();
    rig.apply(|desired| {
        desired.local_tasks[0].host_ports = vec![PublishedPort {
            protocol: Protocol::Tcp,
            target: number(80),
            published: number(5050),
            mode: PublishMode::Host,
        }];
    });
    let task = SocketAddr::new(rig.task_addr(1, false), 40_000);
    let asking = |from, to: IpAddr, port| Packet::new(TCP, from, SocketAddr::new(to, port));
    assert_eq!(rig.passes(Via::Uplink, &asking(client(false, 1), rig.own(false), 5050)).0.to.port(), 80);
    assert_eq!(rig.passes(Via::Task(1), &asking(task, rig.own(false), 5050)).0.to.port(), 80);
    rig.goes_out(Via::Task(1), &asking(task, FAR[0].into(), 5050).frame(), "another node's");
    // In ingress mode any member's address will do, without a detour.
    assert_eq!(rig.passes(Via::Task(1), &asking(task, FAR[0].into(), HERE)).0.to.port(), 80);
    rig.is_left(Via::Uplink, &asking(client(false, 1), FAR[0].into(), HERE).frame(), "for tasks only");
}

#[test]
fn clients_of_the_uplink_may_be_answered_directly_and_others_not() {
    let mut rig = Rig::new();
    rig.apply(|desired| desired.node.reply_direct = true);
    for v6 in [false, true] {
        let direct = |via, from| {
            let packet = Packet::new(TCP, from, SocketAddr::new(rig.own(v6), THERE)).frame();
            rig.run(via, &packet).1[7]
        };
        assert_eq!(direct(Via::Uplink, client(v6, 1)), 1);
        assert_eq!(direct(Via::Loopback, client(v6, 2)), 0);
        assert_eq!(direct(Via::Task(0), SocketAddr::new(rig.task_addr(0, v6), 3)), 0);
    }
}

/// What is suspected, and what clears it, by hand: times are the kernel's.
#[test]
fn who_does_not_answer_is_passed_over_until_it_does() {
    let rig = Rig::new();
    let asking =
        |port: u16, flags| Packet::new(TCP, client(false, port), SocketAddr::new(rig.own(false), MIXED)).flags(flags);
    let local = rig.lab.tasks[1].addr;
    let ports = 40_000..40_200;
    let first: BTreeMap<u16, Ipv4Addr> =
        ports.clone().map(|port| (port, given_to(&rig, Via::Uplink, &asking(port, SYN)))).collect();
    // Of the second node's two tasks one is silent, and nothing was ever heard of the node.
    let silent = Ipv4Addr::new(10, 0, 2, 3);
    let second_node = [silent, Ipv4Addr::new(10, 0, 2, 4)];
    let mut again = first.iter().filter(|(_, task)| **task == silent).map(|(&port, _)| {
        let entry = rig.entry_of(TCP, 0, port);
        (port, entry, given_to(&rig, Via::Uplink, &asking(port, SYN)))
    });
    let (port, entry, task) = again.find(|(_, _, task)| !second_node.contains(task)).unwrap();
    assert!(task == local || task == Ipv4Addr::new(10, 0, 2, 2), "{task}");
    assert!(rig.events(skep_mesh::Event::ChosenAgain) >= 1);
    assert_eq!(rig.entry_of(TCP, 0, port).tries(), 1);
    assert_ne!(rig.suspects().get(&entry.slot(), 0).unwrap(), 0);
    // How many of 200 new connections each task gets.
    let spread = |base: u16| {
        let mut shares: BTreeMap<_, usize> = BTreeMap::new();
        for n in 0..200 {
            *shares.entry(given_to(&rig, Via::Uplink, &asking(base + n, SYN))).or_default() += 1;
        }
        shares
    };
    let shares = spread(41_000);
    let to_node: usize = second_node.iter().filter_map(|task| shares.get(task)).sum();
    assert_eq!(to_node, 0, "all of the node is passed over: {shares:?}");
    assert!(rig.events(skep_mesh::Event::Suspected) > 50);
    // Ten seconds later everybody is given another chance.
    let earlier = |rig: &Rig| {
        let (mut suspects, mut peers) = (rig.suspects(), rig.peers());
        let all: Vec<_> = (0..16).map(|n| (n, suspects.get(&n, 0).unwrap())).filter(|(_, then)| *then > 0).collect();
        all.iter().for_each(|(n, then)| suspects.set(*n, then - 11 * 954, 0).unwrap());
        for n in 0..4 {
            let [heard, suspected] = peers.get(&n, 0).unwrap();
            peers.set(n, [heard, suspected.saturating_sub(11 * 954)], 0).unwrap();
        }
    };
    earlier(&rig);
    assert_eq!(spread(42_000).len(), 4);
    // Somebody on the node answers: then only the silent task itself is passed over.
    let (&other, _) = first.iter().find(|(_, task)| **task == Ipv4Addr::new(10, 0, 2, 4)).unwrap();
    given_to(&rig, Via::Uplink, &asking(other, ACK));
    let (&port, _) = first.iter().find(|(p, task)| **p != port && **task == silent).unwrap();
    given_to(&rig, Via::Uplink, &asking(port, SYN));
    let shares = spread(43_000);
    assert!(shares.get(&silent).is_none_or(|count| *count <= 5), "only the silent one: {shares:?}");
    assert!(shares[&second_node[1]] > 20, "{shares:?}");
    // And as soon as it answers somebody, it is as good as any.
    let (&answered, _) = first.iter().filter(|(_, task)| **task == silent).nth(2).unwrap();
    assert_eq!(given_to(&rig, Via::Uplink, &asking(answered, ACK)), silent, "an old connection stays");
    assert_eq!(rig.suspects().get(&entry.slot(), 0).unwrap(), 0);
    assert_eq!(spread(44_000).len(), 4);
}

/// A time that is past, but not for the packets before. 20 ms are more than the steps of the programs' clock.
fn a_moment_after_what_was_sent() -> u32 {
    let sent = super::rig::ticks();
    while super::rig::ticks() < sent + 40 {
        thread::yield_now();
    }
    sent + 20
}

/// A node falls silent, and the answer to somebody else was its last word, after the SYN that it left unanswered.
#[test]
fn who_waited_once_is_not_sent_to_the_same_node_again() {
    let rig = Rig::new();
    let asking =
        |port: u16, flags| Packet::new(TCP, client(false, port), SocketAddr::new(rig.own(false), MIXED)).flags(flags);
    let second_node = [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)];
    let waiting: Vec<u16> = (40_000..40_200)
        .filter(|port| second_node.contains(&given_to(&rig, Via::Uplink, &asking(*port, SYN))))
        .collect();
    assert!(waiting.len() > 60, "about half of them: {}", waiting.len());
    let later = a_moment_after_what_was_sent();
    let mut unlucky = 0;
    for port in waiting {
        let (mut suspects, mut peers) = (rig.suspects(), rig.peers());
        (0..16).for_each(|slot| suspects.set(slot, 0, 0).unwrap());
        (0..4).for_each(|n| peers.set(n, [later, 0], 0).unwrap());
        let task = given_to(&rig, Via::Uplink, &asking(port, SYN));
        unlucky += usize::from(second_node.contains(&task));
    }
    // Of sixteen places of the table that are tried, all can be the silent node's: for one flow in 65,000.
    assert!(unlucky <= 1, "{unlucky} were sent to the silent node again");
}

/// With one node alone left the other tasks of the silent one's node are better than the silent one.
#[test]
fn with_no_other_node_another_task_of_the_same_one_is_asked() {
    let rig = Rig::new();
    let asking =
        |port: u16, flags| Packet::new(TCP, client(false, port), SocketAddr::new(rig.own(false), MIXED)).flags(flags);
    let second_node = [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)];
    let port = (40_000..).find(|port| given_to(&rig, Via::Uplink, &asking(*port, SYN)) == second_node[0]).unwrap();
    let other = (41_000..).find(|port| given_to(&rig, Via::Uplink, &asking(*port, SYN)) == second_node[1]).unwrap();
    let better = rig.entry_of(TCP, 0, other).slot();
    let (mut suspects, mut peers) = (rig.suspects(), rig.peers());
    let later = a_moment_after_what_was_sent();
    (0..16).filter(|slot| *slot != better).for_each(|slot| suspects.set(slot, later, 0).unwrap());
    (0..4).for_each(|n| peers.set(n, [later, 0], 0).unwrap());
    assert_eq!(given_to(&rig, Via::Uplink, &asking(port, SYN)), second_node[1]);
}

#[test]
fn datagrams_leave_a_suspect_and_when_all_are_suspects_somebody_is_taken() {
    let rig = Rig::new();
    let asking = |port: u16| Packet::new(UDP, client(true, port), SocketAddr::new(rig.own(true), MIXED));
    let silent = Ipv4Addr::new(10, 0, 2, 2);
    let port = (40_000..).find(|port| given_to(&rig, Via::Uplink, &asking(*port)) == silent).unwrap();
    let slot = rig.entry_of(UDP, 0, port).slot();
    let mut suspects = rig.suspects();
    let then = super::rig::ticks() - BEHIND;
    suspects.set(slot, then, 0).unwrap();
    assert_ne!(given_to(&rig, Via::Uplink, &asking(port)), silent);
    for slot in 0..16 {
        suspects.set(slot, then, 0).unwrap();
    }
    let all: BTreeSet<_> = (41_000..41_200).map(|port| given_to(&rig, Via::Uplink, &asking(port))).collect();
    assert_eq!(all.len(), 4, "with nobody better the first choice stands");
}
