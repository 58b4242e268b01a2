//! Every way that a client can ask, with real traffic through real devices: who answers, and whom does it see?

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use lab::{Answer, CLIENT, CLIENT6, Lab, Netns, ask_tcp, ask_udp, ask_udp_on, ingress, is_refused, serve};
use skep_mesh::{Datapath, Event};
use skep_model::{Protocol, mesh_ipv6};

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Three nodes, tasks on the second and the third, port 8080 of both protocols.
fn lab() -> Lab {
    let mut lab = Lab::new(3);
    lab.service(&BOTH.map(|p| ingress(p, 8080, 80)), &[1, 2]);
    lab
}

fn ask(protocol: Protocol, to: IpAddr) -> Answer {
    match protocol {
        Protocol::Tcp => ask_tcp(to, 8080),
        _ => ask_udp(to, 8080, 10),
    }
    .unwrap_or_else(|error| panic!("{protocol} {to}: {error}"))
}

/// One of two addresses: the one of the family that was asked by.
fn alike(asked: IpAddr, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
    if asked.is_ipv4() { v4.into() } else { v6.into() }
}

/// An address inside the mesh.
fn inside(asked: IpAddr, address: Ipv4Addr) -> IpAddr {
    alike(asked, address, mesh_ipv6(address))
}

#[test]
fn a_client_outside_asks_every_address_of_every_node() {
    asks_every_address(&lab());
}

#[test]
fn the_underlay_may_be_ipv6() {
    let mut lab = lab();
    for node in &mut lab.nodes {
        node.tunnel6 = true;
    }
    lab.apply();
    asks_every_address(&lab);
}

/// Nodes that may send by themselves, and one that leaves it to the tunnel's device, understand each other.
#[test]
fn streams_arrive_whole_whoever_puts_them_into_the_tunnel() {
    const SIZE: usize = 4 << 20;
    let mut lab = Lab::new(2);
    lab.service(&[ingress(Protocol::Tcp, 8080, 80)], &[1]);
    let sent: Vec<u8> = (0..SIZE).map(|n| (n / 251 + n) as u8).collect();
    let tasks = lab.tasks[0].ns.run(|| TcpListener::bind("[::]:81")).unwrap();
    lab.services[0].ports.push(ingress(Protocol::Tcp, 8081, 81));
    for by_device in [[false, false], [true, false], [false, true]] {
        for (node, by_device) in lab.nodes.iter_mut().zip(by_device) {
            node.by_device = by_device;
        }
        lab.apply();
        for asked in lab.nodes[0].addresses() {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = tasks.accept().unwrap();
                    let mut got = vec![0; SIZE];
                    stream.read_exact(&mut got).unwrap();
                    assert!(got == sent, "to the task");
                    stream.write_all(&got).unwrap();
                });
                let mut stream = lab.client.run(|| TcpStream::connect((asked, 8081))).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut back = stream.try_clone().unwrap();
                scope.spawn(move || {
                    let mut got = vec![0; SIZE];
                    back.read_exact(&mut got).unwrap();
                    assert_eq!(got.len(), SIZE);
                    assert!(got.iter().enumerate().all(|(n, byte)| *byte == (n / 251 + n) as u8), "from the task");
                });
                stream.write_all(&sent).unwrap();
            });
        }
    }
}

/// Policies that let nothing out or in in the clear stand for every other: while there is one, the daemon leaves everything to the device.
#[test]
fn policies_of_ipsec_hold_for_what_the_device_sends_and_gets() {
    let mut lab = Lab::new(2);
    lab.service(&[ingress(Protocol::Udp, 8080, 80)], &[1]);
    lab.nodes[0].by_device = true;
    lab.apply();
    let asked = lab.nodes[0].underlay;
    let answers = |lab: &Lab| lab.client.run(|| ask_udp(asked, 8080, 10).is_ok());
    assert!(answers(&lab));
    lab.nodes[0].ns.ip("xfrm policy add dir out proto udp dport 4789 action block");
    assert!(!answers(&lab), "a packet has gone out in spite of the policy");
    lab.nodes[0].ns.ip("xfrm policy del dir out proto udp dport 4789");
    assert!(answers(&lab));
    lab.nodes[0].ns.ip("xfrm policy add dir in proto udp dport 4789 action block");
    assert!(!answers(&lab), "a packet has come in in spite of the policy");
    lab.nodes[0].ns.ip("xfrm policy del dir in proto udp dport 4789");
    assert!(answers(&lab));
}

/// Packets that the tunnel's device of a node has received.
fn received_by_device(node: &lab::Node) -> u64 {
    let all = node.ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let device = all.lines().find_map(|line| line.trim().strip_prefix("skep-vx:")).unwrap();
    device.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The device of the tunnel sees nothing of what is taken out of the tunnel before it, and everything otherwise.
#[test]
fn small_packets_are_taken_out_of_the_tunnel_where_they_arrive() {
    let mut lab = Lab::new(2);
    lab.service(&BOTH.map(|p| ingress(p, 8080, 80)), &[1]);
    let asked = IpAddr::from(lab.nodes[0].underlay);
    let ask_all = |lab: &Lab| {
        let seen = |node: usize| received_by_device(&lab.nodes[node]);
        let before = [seen(0), seen(1)];
        for _ in 0..10 {
            for protocol in BOTH {
                lab.client.run(|| ask(protocol, asked));
            }
        }
        [seen(0) - before[0], seen(1) - before[1]]
    };
    assert_eq!(ask_all(&lab), [0, 0]);
    for (node, other) in [(0, 1), (1, 0)] {
        lab.nodes[node].by_device = true;
        lab.apply();
        let seen = ask_all(&lab);
        assert!(seen[node] > 40, "{seen:?}");
        assert_eq!(seen[other], 0);
        lab.nodes[node].by_device = false;
    }
}

fn asks_every_address(lab: &Lab) {
    for protocol in BOTH {
        for node in &lab.nodes {
            for address in node.addresses() {
                let answers: Vec<_> = (0..20).map(|_| lab.client.run(|| ask(protocol, address))).collect();
                let client = alike(address, CLIENT, CLIENT6);
                assert!(answers.iter().all(|a| a.peer_ip() == client), "{protocol} {address}: {answers:?}");
                let servers: BTreeSet<_> = answers.iter().map(|a| a.server).collect();
                assert_eq!(servers.len(), 2, "{protocol} {address}: both tasks answer");
            }
        }
    }
}

#[test]
fn a_process_of_the_node_asks_by_loopback() {
    let lab = lab();
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv4Addr::new(127, 1, 2, 3).into(), Ipv6Addr::LOCALHOST.into()];
    for protocol in BOTH {
        for node in &lab.nodes {
            for address in loopback {
                for _ in 0..6 {
                    let answer = node.ns.run(|| ask(protocol, address));
                    assert_eq!(answer.peer_ip(), inside(address, node.overlay), "{protocol} {address}");
                }
            }
        }
    }
}

#[test]
fn a_process_of_a_node_asks_any_node_by_any_address() {
    let lab = lab();
    for protocol in BOTH {
        for asking in &lab.nodes {
            for asked in &lab.nodes {
                for address in asked.addresses() {
                    let own = asking.addresses();
                    let answer = asking.ns.run(|| ask(protocol, address));
                    assert!(own.contains(&answer.peer_ip()), "{protocol} {address}: {answer:?}");
                }
            }
        }
    }
}

#[test]
fn a_task_asks_any_node_and_may_be_answered_by_itself() {
    let lab = lab();
    for protocol in BOTH {
        for task in &lab.tasks {
            for node in &lab.nodes {
                for address in [node.underlay.into(), node.second.into(), node.underlay6.into()] {
                    task_asks(&lab, protocol, task, address);
                }
            }
        }
    }
}

fn task_asks(lab: &Lab, protocol: Protocol, task: &lab::Task, address: IpAddr) {
    let answers: Vec<_> = (0..16).map(|_| task.ns.run(|| ask(protocol, address))).collect();
    for answer in &answers {
        let seen = if answer.server == task.addr { lab.nodes[task.node].overlay } else { task.addr };
        assert_eq!(answer.peer_ip(), inside(address, seen), "{protocol} {address} {answer:?}");
    }
    assert!(answers.iter().any(|a| a.server == task.addr), "{protocol} {address}: never itself");
    assert!(answers.iter().any(|a| a.server != task.addr), "{protocol} {address}: never the other");
}

#[test]
fn who_asks_by_ipv6_a_task_that_listens_on_ipv4_is_refused_at_once() {
    let mut lab = lab();
    for task in &lab.tasks {
        serve(&task.ns, task.addr, 81);
    }
    lab.services[0].ports.extend(BOTH.map(|p| ingress(p, 9090, 81)));
    lab.apply();
    for node in &lab.nodes {
        assert!(lab.client.run(|| ask_tcp(node.underlay, 9090)).is_ok());
        assert!(is_refused(&lab.client.run(|| ask_tcp(node.underlay6, 9090))), "tcp");
        assert!(is_refused(&lab.client.run(|| ask_udp(node.underlay6, 9090, 10))), "udp");
    }
}

#[test]
fn who_asks_by_ipv6_a_task_whose_kernel_has_none_is_refused_at_once() {
    let mut lab = lab();
    for task in &mut lab.tasks {
        task.ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        task.ipv6 = false;
    }
    lab.apply();
    for node in &lab.nodes {
        assert!(lab.client.run(|| ask_tcp(node.underlay, 8080)).is_ok());
        // Both the node's own tasks and others'.
        for _ in 0..8 {
            assert!(is_refused(&lab.client.run(|| ask_tcp(node.underlay6, 8080))), "tcp");
            assert!(is_refused(&lab.client.run(|| ask_udp(node.underlay6, 8080, 10))), "udp");
        }
    }
}

/// Datagrams that may be cut up pass at any size: by the client's kernel, by the overlay, by the task's.
#[test]
fn datagrams_of_any_size_pass() {
    let lab = lab();
    for size in [0, 1, 1400, 1472, 1473, 4000, 20_000] {
        for to in lab.nodes.iter().flat_map(|node| [IpAddr::from(node.underlay), node.underlay6.into()]) {
            let answer = lab.client.run(|| ask_udp_on(&may_be_cut(to), size));
            let answer = answer.unwrap_or_else(|error| panic!("{size} bytes to {to}: {error}"));
            assert_eq!(answer.peer_ip(), alike(to, CLIENT, CLIENT6));
        }
        for to in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let node = &lab.nodes[0].ns;
            let socket = node.run(|| may_be_cut(to));
            // Over the loopback device, which carries anything, even IPv6 learns only by asking.
            let told = |error: &std::io::Error| to.is_ipv6() && error.raw_os_error() == Some(libc::EMSGSIZE);
            let answer = match node.run(|| ask_udp_on(&socket, size)) {
                Err(error) if told(&error) => node.run(|| ask_udp_on(&socket, size)),
                answer => answer,
            };
            let answer = answer.unwrap_or_else(|error| panic!("{size} bytes to {to}: {error}"));
            assert_eq!(answer.peer_ip(), inside(to, lab.nodes[0].overlay));
        }
    }
}

/// The later ones wait for the first.
#[test]
fn fragments_may_come_in_any_order() {
    let lab = lab();
    let node = &lab.nodes[0];
    let ends = [(IpAddr::from(CLIENT), IpAddr::from(node.underlay)), (CLIENT6.into(), node.underlay6.into())];
    for (n, order) in (0..).zip([[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]]) {
        for (from, to) in ends {
            let socket = lab.client.run(|| UdpSocket::bind((from, 0))).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let port = socket.local_addr().unwrap().port();
            let fragments = fragments(from, to, (port, 8080), 0x5000 + n);
            lab.client.run(|| order.iter().for_each(|&i| send_raw(to, &fragments[i])));
            let mut answer = vec![0; 4096];
            let read = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{to}, {order:?}: {error}"));
            assert_eq!(read, 3000, "{to}, {order:?}");
        }
    }
}

/// A datagram of 3,000 bytes in three fragments.
fn fragments(from: IpAddr, to: IpAddr, ports: (u16, u16), id: u16) -> [Vec<u8>; 3] {
    let length = 3008_u16;
    let mut datagram = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.resize(length.into(), b'x');
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(from), octets(to)].concat();
    let sum = |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
    let total = sum(&addresses) + 17 + u32::from(length) + sum(&datagram);
    let folded = (total & 0xffff) + (total >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    let mut offset = 0_u16;
    let pieces: Vec<_> = datagram
        .chunks(1200)
        .map(|part| {
            let more = u16::from(usize::from(offset) + part.len() < datagram.len());
            let size = u16::try_from(part.len()).unwrap();
            let mut packet = match to {
                IpAddr::V4(_) => {
                    let words =
                        [0x4500, 20 + size, id, (more << 13) | (offset / 8), 0x4011, 0].map(u16::to_be_bytes).concat();
                    [words, addresses.clone()].concat()
                }
                IpAddr::V6(_) => {
                    let words = [0x6000, 0, 8 + size, 0x2c40].map(u16::to_be_bytes).concat();
                    let extension = [0x1100, offset | more, 0, id].map(u16::to_be_bytes).concat();
                    [words, addresses.clone(), extension].concat()
                }
            };
            packet.extend(part);
            offset += size;
            packet
        })
        .collect();
    pieces.try_into().unwrap()
}

/// Sends a packet whose IP header is in it.
fn send_raw(to: IpAddr, packet: &[u8]) {
    use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointer is passed, and what is returned is owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW)) };
    let address = SockaddrStorage::from(std::net::SocketAddr::new(to, 0));
    sendto(socket.as_raw_fd(), packet, &address, MsgFlags::empty()).unwrap();
}

/// A socket whose datagrams do not say "do not fragment"; for IPv6, where only the sender cuts up, it does so at the smallest size.
fn may_be_cut(to: IpAddr) -> UdpSocket {
    use std::os::fd::AsRawFd;
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    let (level, option, value) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280),
    };
    let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the pointer is to an integer of ours of the size that is said.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    socket.connect((to, 8080)).unwrap();
    socket
}

/// RFC 1191 and RFC 8201: who may not be cut up is told the size, and keeps to it.
#[test]
fn a_datagram_that_is_too_big_for_the_overlay_is_answered_with_the_size() {
    let lab = lab();
    let node = &lab.nodes[0];
    for to in [IpAddr::from(node.underlay), node.underlay6.into()] {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = lab.client.run(|| UdpSocket::bind((any, 0))).unwrap();
        socket.connect((to, 8080)).unwrap();
        let size = if to.is_ipv4() { 1472 } else { 1452 };
        let first = ask_udp_on(&socket, size).unwrap_err();
        assert_eq!(first.raw_os_error(), Some(libc::EMSGSIZE), "{to}: {first}");
        assert_eq!(
            ask_udp_on(&socket, size).unwrap().peer_ip(),
            alike(to, CLIENT, CLIENT6),
            "{to}: cut up from now on"
        );
        let route = lab.client.ip(&format!("route get {to}"));
        assert!(route.contains("mtu 1450"), "{to}: {route}");
    }
    assert_eq!(node.bpf().counters().unwrap().events[&Event::TooBig], 2);
}

/// A router on the way back to the client has a smaller MTU than anybody knows: the task's kernel learns of it through the mesh.
#[test]
fn a_smaller_mtu_on_the_way_to_the_client_is_learnt_by_the_task() {
    let mut lab = Lab::new(2);
    lab.service(&[ingress(Protocol::Tcp, 9090, 81)], &[1]);
    let far = lab.behind_a_router(1300);
    for node in &lab.nodes {
        for to in [IpAddr::from(node.underlay), node.underlay6.into()] {
            let any: IpAddr = if to.is_ipv4() { lab.tasks[0].addr.into() } else { mesh_ipv6(lab.tasks[0].addr).into() };
            let server = lab.tasks[0].ns.run(|| TcpListener::bind((any, 81))).unwrap();
            let sender = std::thread::spawn(move || server.accept().unwrap().0.write_all(&[7; 300_000]));
            let mut stream = far.run(|| TcpStream::connect((to, 9090))).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{to}, after {}: {error}", bytes.len()));
            assert_eq!(bytes.len(), 300_000);
            sender.join().unwrap().unwrap();
        }
    }
    let learnt = lab.tasks[0].ns.ip("route show cache") + &lab.tasks[0].ns.ip("-6 route show cache");
    assert_eq!(learnt.matches("mtu 1300").count(), 2, "{learnt}");
}

/// Traffic that the mesh has no part in passes as if it were not there.
#[test]
fn tasks_go_out_behind_their_node_and_other_traffic_of_nodes_is_left_alone() {
    let lab = lab();
    let task = &lab.tasks[0];
    let node = &lab.nodes[task.node];
    serve(&node.ns, node.underlay, 9000);
    serve(&node.ns, Ipv4Addr::LOCALHOST, 9000);
    serve(&lab.client, CLIENT, 9000);
    let peer = |from: &Netns, to: Ipv4Addr, port: u16| {
        let tcp = from.run(|| ask_tcp(to, port)).unwrap_or_else(|error| panic!("tcp {to}:{port}: {error}"));
        let udp = from.run(|| ask_udp(to, port, 3000)).unwrap_or_else(|error| panic!("udp {to}:{port}: {error}"));
        assert_eq!(tcp.peer_ip(), udp.peer_ip());
        tcp.peer_ip()
    };
    assert_eq!(peer(&task.ns, CLIENT, 9000), node.underlay, "task to outside, behind its node");
    assert_eq!(peer(&task.ns, node.underlay, 9000), node.underlay, "task to its node");
    peer(&node.ns, task.addr, 80);
    assert_eq!(peer(&lab.client, node.underlay, 9000), CLIENT, "outside to a port of the node's own");
    assert_eq!(peer(&node.ns, Ipv4Addr::LOCALHOST, 9000), Ipv4Addr::LOCALHOST, "loopback");
}
