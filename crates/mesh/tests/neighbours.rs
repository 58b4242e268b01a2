//! What else there is on a node: further devices and addresses, bridges, tunnels, other people's programs.

mod lab;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use lab::{CLIENT, Lab, Netns, ask_tcp, ask_udp, ingress, is_refused, serve};
use skep_mesh::Datapath;
use skep_model::Protocol;

/// Two nodes, a task on the second; clients ask the first.
fn lab() -> Lab {
    let mut lab = Lab::new(2);
    lab.service(&[Protocol::Tcp, Protocol::Udp].map(|p| ingress(p, 8080, 80)), &[1]);
    lab
}

fn peers(client: &Netns, to: Ipv4Addr) -> [IpAddr; 2] {
    let tcp = client.run(|| ask_tcp(to, 8080)).unwrap_or_else(|error| panic!("tcp {to}: {error}"));
    let udp = client.run(|| ask_udp(to, 8080, 100)).unwrap_or_else(|error| panic!("udp {to}: {error}"));
    [tcp.peer_ip(), udp.peer_ip()]
}

/// A namespace at the other end of a cable to a device of the first node.
fn cable(lab: &Lab, device: &str) -> Netns {
    let far = Netns::new(device);
    let node = &lab.nodes[0].ns;
    node.ip(&format!("link add {device} type veth peer name eth0 netns {}", far.name()));
    node.ip(&format!("link set {device} up"));
    far.ip("link set eth0 up");
    far
}

#[test]
fn a_second_uplink_answers_by_itself() {
    let mut lab = lab();
    let far = cable(&lab, "eth1");
    lab.nodes[0].ns.ip("addr add 10.97.0.1/24 dev eth1");
    far.ip("addr add 10.97.0.2/24 dev eth0");
    far.ip("route add default via 10.97.0.1");
    let (own, client) = (Ipv4Addr::new(10, 97, 0, 1), IpAddr::from([10, 97, 0, 2]));
    lab.nodes[0].more_devices.insert("eth1".into(), vec![own.into()]);
    lab.apply();
    assert_eq!(peers(&far, own), [client; 2]);
    assert_eq!(peers(&far, lab.nodes[0].underlay), [client; 2], "the other uplink's address");
    assert_eq!(peers(&lab.client, lab.nodes[0].underlay), [IpAddr::from(CLIENT); 2]);
}

#[test]
fn an_address_comes_and_goes_while_connections_live() {
    let mut lab = lab();
    let own = Ipv4Addr::new(10, 99, 0, 150);
    let mut kept = lab.client.run(|| TcpStream::connect((lab.nodes[0].underlay, 8080))).unwrap();
    lab.nodes[0].ns.ip(&format!("addr add {own}/24 dev eth0"));
    lab.nodes[0].more_devices.insert("eth0".into(), vec![own.into()]);
    lab.apply();
    assert_eq!(peers(&lab.client, own), [IpAddr::from(CLIENT); 2]);
    lab.nodes[0].more_devices.clear();
    lab.apply();
    assert!(is_refused(&lab.client.run(|| ask_tcp(own, 8080))), "the kernel's own answer while the address is there");
    lab::ask_on(&mut kept).unwrap();
}

/// As docker0 and libvirt's bridges: clients behind a bridge of the node, by its address there and by others.
#[test]
fn clients_behind_a_bridge_of_the_node_ask_by_every_address() {
    let mut lab = lab();
    let far = cable(&lab, "vnet0");
    let node = &lab.nodes[0].ns;
    node.ip("link add virbr0 type bridge");
    node.ip("link set virbr0 up");
    node.ip("link set vnet0 master virbr0");
    node.ip("addr add 10.96.0.1/24 dev virbr0");
    far.ip("addr add 10.96.0.2/24 dev eth0");
    far.ip("route add default via 10.96.0.1");
    let (own, client) = (Ipv4Addr::new(10, 96, 0, 1), IpAddr::from([10, 96, 0, 2]));
    lab.nodes[0].more_devices.insert("virbr0".into(), vec![own.into()]);
    lab.apply();
    for to in [own, lab.nodes[0].underlay] {
        assert_eq!(peers(&far, to), [client; 2], "{to}");
    }
}

/// A connection of a process of the node from a port that is published: its answers are its own.
#[test]
fn a_connection_of_the_node_from_a_published_port_is_left_to_it() {
    let lab = lab();
    serve(&lab.client, CLIENT, 9000);
    let mut own = lab.nodes[0].ns.run(|| lab::connect_from(8080, CLIENT, 9000)).unwrap();
    for _ in 0..3 {
        assert!(lab::ask_on(&mut own).unwrap().ends_with(":8080"));
    }
    assert_eq!(peers(&lab.client, lab.nodes[0].underlay), [IpAddr::from(CLIENT); 2]);
}

/// Clients that a switch keeps on a VLAN of their own: the node's device for it is one more uplink.
#[test]
#[ignore = "needs a kernel with CONFIG_VLAN_8021Q: cargo xtask kernels runs it"]
fn clients_on_a_vlan_are_answered_on_it() {
    let mut lab = lab();
    let far = cable(&lab, "trunk");
    let node = &lab.nodes[0].ns;
    for (ns, cable, own) in [(node, "trunk", 1), (&far, "eth0", 2)] {
        ns.ip(&format!("link add link {cable} name {cable}.7 type vlan id 7"));
        ns.ip(&format!("link set {cable}.7 up"));
        ns.ip(&format!("addr add 10.94.0.{own}/24 dev {cable}.7"));
    }
    far.ip("route add default via 10.94.0.1");
    let (own, client) = (Ipv4Addr::new(10, 94, 0, 1), IpAddr::from([10, 94, 0, 2]));
    // As an agent would: the cable itself is an uplink too.
    lab.nodes[0].more_devices.insert("trunk".into(), vec![]);
    lab.nodes[0].more_devices.insert("trunk.7".into(), vec![own.into()]);
    lab.apply();
    for to in [own, lab.nodes[0].underlay] {
        assert_eq!(peers(&far, to), [client; 2], "{to}");
    }
}

/// Two cables, of which one carries: programs sit on the bond, and nothing notices when the other takes over.
#[test]
#[ignore = "needs a kernel with CONFIG_BONDING: cargo xtask kernels runs it"]
fn clients_behind_a_bond_are_answered_by_whichever_cable_carries() {
    let mut lab = lab();
    let far = Netns::new("bonded");
    let node = &lab.nodes[0].ns;
    far.ip("link add br0 type bridge");
    far.ip("link set br0 up");
    far.ip("addr add 10.93.0.2/24 dev br0");
    node.ip("link add bond0 type bond mode active-backup miimon 10");
    for n in 0..2 {
        node.ip(&format!("link add slave{n} type veth peer name eth{n} netns {}", far.name()));
        node.ip(&format!("link set slave{n} master bond0"));
        far.ip(&format!("link set eth{n} master br0 up"));
    }
    node.ip("link set bond0 up");
    node.ip("addr add 10.93.0.1/24 dev bond0");
    far.ip("route add default via 10.93.0.1");
    let (own, client) = (Ipv4Addr::new(10, 93, 0, 1), IpAddr::from([10, 93, 0, 2]));
    lab.nodes[0].more_devices.insert("bond0".into(), vec![own.into()]);
    lab.apply();
    let active = |lab: &Lab| {
        let shown = lab.nodes[0].ns.ip("-d link show bond0");
        let mut words = shown.split_whitespace().skip_while(|word| *word != "active_slave");
        words.nth(1).unwrap_or_default().to_owned()
    };
    lab::eventually("a cable that carries", || !active(&lab).is_empty());
    let mut kept = far.run(|| TcpStream::connect((own, 8080))).unwrap();
    for _ in 0..2 {
        for to in [own, lab.nodes[0].underlay] {
            assert_eq!(peers(&far, to), [client; 2], "{to}");
        }
        lab::ask_on(&mut kept).unwrap();
        let before = active(&lab);
        far.ip(&format!("link set {} down", before.replace("slave", "eth")));
        lab::eventually("the other cable", || !active(&lab).is_empty() && active(&lab) != before);
        far.ip(&format!("link set {} up", before.replace("slave", "eth")));
    }
}

/// Somebody else's classifier, in the old place and before ours in time: it sees what is not ours, and ours still works.
#[test]
fn another_program_on_the_device_is_left_in_peace() {
    let mut lab = lab();
    let tc = |words: &str| lab.nodes[0].ns.command(&format!("tc {words}"));
    // It is there already where ours sits in it too.
    let _ = tc("qdisc add dev eth0 clsact").status();
    // Classic bytecode: return all ones, which matches everything.
    let mut theirs = tc("filter add dev eth0 ingress protocol all prio 1 bpf da bytecode");
    assert!(theirs.arg("1,6 0 0 4294967295").status().unwrap().success());
    lab.apply();
    serve(&lab.nodes[0].ns, lab.nodes[0].underlay, 9000);
    assert_eq!(peers(&lab.client, lab.nodes[0].underlay), [IpAddr::from(CLIENT); 2]);
    lab.client.run(|| ask_tcp(lab.nodes[0].underlay, 9000)).unwrap();
    let shown = || lab.nodes[0].ns.command("tc filter show dev eth0 ingress").output().unwrap().stdout;
    assert!(String::from_utf8(shown()).unwrap().contains("bytecode"));
    let bpf = lab.nodes[0].bpf.take().unwrap();
    lab.nodes[0].ns.run(|| bpf.close_and_remove()).unwrap();
    let shown = || lab.nodes[0].ns.command("tc filter show dev eth0 ingress").output().unwrap().stdout;
    assert!(String::from_utf8(shown()).unwrap().contains("bytecode"), "leaving takes away what is ours alone");
}

/// A device without Ethernet frames, as WireGuard's: what a client behind it sends and gets are bare packets.
#[test]
fn clients_behind_a_tunnel_without_frames_are_answered() {
    let mut lab = lab();
    let node = &lab.nodes[0].ns;
    node.ip("tuntap add dev tun0 mode tun");
    let mut tunnel = node.run(|| open_tun("tun0"));
    node.ip("addr add 10.95.0.1/24 dev tun0");
    node.ip("link set tun0 up");
    let own = Ipv4Addr::new(10, 95, 0, 1);
    lab.nodes[0].more_devices.insert("tun0".into(), vec![own.into()]);
    lab.apply();
    for to in [own, lab.nodes[0].underlay] {
        tunnel.write_all(&datagram([10, 95, 0, 2], to.octets(), 8080)).unwrap();
        let answer = answer_from(&mut tunnel, to);
        assert_eq!(answer[20..24], [8080_u16.to_be_bytes(), 40_000_u16.to_be_bytes()].concat(), "{to}");
        assert!(String::from_utf8_lossy(&answer[28..]).contains(" 10.95.0.2:"), "{to}: the task sees the client");
    }
    // A port that is not published is the kernel's, which says so in bare packets.
    tunnel.write_all(&datagram([10, 95, 0, 2], own.octets(), 9)).unwrap();
    assert_eq!(answer_from(&mut tunnel, own)[20..22], [3, 3], "ICMP port unreachable");
    lab.services[0].ports.extend([ingress(Protocol::Udp, 9090, 81)]);
    lab.apply();
    tunnel.write_all(&datagram([10, 95, 0, 2], own.octets(), 9090)).unwrap();
    assert_eq!(answer_from(&mut tunnel, own)[20..22], [3, 3], "the task's own refusal");
}

fn open_tun(name: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all bytes zero is a value of this C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap();
    // SAFETY: the request is ours and of the type that this command wants.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    file
}

/// A UDP packet from port 40000 without a UDP checksum.
fn datagram(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let body = b"hello over there";
    let length = u16::try_from(8 + body.len()).unwrap();
    let mut packet = [0x4500, 20 + length, 1, 0, 0x4011, 0].map(u16::to_be_bytes).concat();
    packet.extend([from, to].concat());
    let sum: u32 = packet.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend([40_000, port, length, 0].map(u16::to_be_bytes).concat());
    packet.extend(body);
    packet
}

/// The next packet from an address that is not about multicast or neighbours.
fn answer_from(tunnel: &mut File, from: Ipv4Addr) -> Vec<u8> {
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let mut buffer = vec![0; 2048];
    while std::time::Instant::now() < until {
        match tunnel.read(&mut buffer) {
            Ok(size) if size > 20 && buffer[0] >> 4 == 4 && buffer[12..16] == from.octets() => {
                return buffer[..size].to_vec();
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer from {from}")
}
