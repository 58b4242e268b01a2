//! What other nodes send: real VXLAN, spoken by members that are sockets of the test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use skep_mesh::{DropReason, Event, FORWARD_VNI, REPLY_VNI, SECOND_CHANCE_VNI};
use skep_model::EndpointState;

use super::lab::{Netns, eventually};
use super::rig::{FAR, FAR_TASK, HERE, MIXED, NOBODY, Rig, THERE, Via, captured, client, parcel, wire};
use super::wire::{ACK, Packet, RST, SYN, Seen, TCP, UDP, error, get, put, word};

/// Every test, with packets taken out of the tunnel where they arrive, and with all of them going to its own device.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod straight {
            $(#[test]
            fn $test() {
                super::$test(&mut super::Rig::new());
            })*
        }

        mod by_device {
            $(#[test]
            fn $test() {
                super::$test(&mut super::Rig::by_device());
            })*
        }
    };
}

both_ways! {
    a_task_answers_the_client_of_another_node_through_it,
    strangers_and_other_tunnels_are_not_heard,
    packets_that_are_cut_are_counted_and_not_delivered,
    a_parcel_for_nobody_is_refused_in_the_members_name,
    a_new_flow_for_a_task_that_takes_none_is_passed_on_once,
    a_flow_that_is_passed_on_to_the_node_that_was_asked_is_its_own,
    an_answer_is_taken_from_the_one_who_was_asked,
    answers_for_clients_on_the_loopback_device_come_between_the_nodes_own_addresses,
    fragments_come_through_the_tunnel_in_their_order,
    errors_about_a_tasks_answers_reach_it_from_the_member_that_was_asked,
}

/// A node that is only a socket.
pub struct Member {
    socket: UdpSocket,
    node: SocketAddr,
    _ns: Netns,
}

impl Member {
    pub fn new(rig: &Rig, address: Ipv4Addr) -> Self {
        let ns = rig.lab.another_client(address.octets()[3]);
        let socket = ns.run(|| UdpSocket::bind((address, 4789))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        without_sums(&socket);
        Self { socket, node: (rig.lab.nodes[0].underlay, 4789).into(), _ns: ns }
    }

    /// A frame in the tunnel, as it is.
    pub fn send(&self, vni: u32, frame: &[u8]) {
        let [_, a, b, c] = vni.to_be_bytes();
        let mut datagram = vec![8, 0, 0, 0, a, b, c, 0];
        datagram.extend(frame);
        self.socket.send_to(&datagram, self.node).unwrap();
    }

    /// A client's packet for port 80 of a task.
    pub fn forward(&self, vni: u32, packet: &Packet, task: IpAddr) {
        self.send(vni, &addressed(packet.frame(), task, 80));
    }

    /// The next frame that the node sends here.
    fn receive(&self) -> (u32, Vec<u8>) {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("nothing came back");
        (word(&buffer, 4) >> 8, buffer[8..length].to_vec())
    }

    /// Takes everything that has come.
    pub fn drain(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// The next answer for a client.
    pub fn answer(&self) -> Seen {
        let (vni, frame) = self.receive();
        assert_eq!(vni, REPLY_VNI, "{frame:02x?}");
        let seen = Seen::of(&frame).unwrap();
        assert!(seen.right || seen.left, "{seen:02x?}");
        seen
    }
}

/// As nodes send: what is within has sums of its own.
fn without_sums(socket: &UdpSocket) {
    use std::os::fd::AsRawFd;
    let (on, size) = (1_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap());
    // SAFETY: the pointer is to an integer of ours of the size that is said.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, (&raw const on).cast(), size)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Writes a parcel onto a frame.
pub fn addressed(mut frame: Vec<u8>, task: IpAddr, target: u16) -> Vec<u8> {
    let IpAddr::V4(task) = task else { panic!("parcels name tasks by IPv4 addresses: {task}") };
    let [a, b, c, d] = task.octets();
    let [x, y] = target.to_be_bytes();
    frame[..12].copy_from_slice(&[2, 0x73, 0x6b, 1, x, y, 2, 0, a, b, c, d]);
    frame
}

/// The published address by which a member was asked.
pub fn asked(v6: bool, port: u16) -> SocketAddr {
    let address: IpAddr = if v6 { "fd99::77".parse().unwrap() } else { FAR[0].into() };
    SocketAddr::new(address, port)
}

fn a_task_answers_the_client_of_another_node_through_it(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    let task = rig.task_addr(0, false);
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            let packet =
                Packet::new(proto, client(v6, 40_000), asked(v6, HERE)).body(&vec![7; usize::from(proto == UDP) * 9]);
            member.forward(FORWARD_VNI, &packet, task);
            let seen = member.answer();
            assert_eq!((seen.from, seen.to, seen.proto), (packet.to, packet.from, proto));
            assert!(proto == UDP || seen.flags == SYN | ACK);
        }
    }
    // One client port by another address of the same node, and by another node: the task can tell them apart.
    let other = Member::new(rig, FAR[1]);
    let changed = rig.events(Event::PortChanged);
    for (member, to) in [(&member, [10, 99, 0, 177]), (&other, [10, 99, 0, 78])] {
        let packet = Packet::new(UDP, client(false, 40_000), SocketAddr::new(to.into(), HERE)).body(b"once more");
        for _ in 0..2 {
            member.forward(FORWARD_VNI, &packet, task);
            let seen = member.answer();
            assert_eq!((seen.from, seen.to), (packet.to, packet.from));
        }
    }
    assert_eq!(rig.events(Event::PortChanged), changed + 2);
}

fn strangers_and_other_tunnels_are_not_heard(rig: &Rig) {
    let (member, stranger) = (Member::new(rig, FAR[0]), Member::new(rig, [10, 99, 0, 79].into()));
    let task = rig.task_addr(0, false);
    let packet = Packet::new(UDP, client(false, 40_000), asked(false, HERE)).body(b"hello");
    for vni in [FORWARD_VNI, SECOND_CHANCE_VNI] {
        let before = rig.drops(DropReason::NotAMember);
        stranger.forward(vni, &packet, task);
        eventually("the stranger is counted", || rig.drops(DropReason::NotAMember) == before + 1);
    }
    let before = rig.drops(DropReason::UnknownFlow);
    stranger.forward(REPLY_VNI, &packet, task);
    eventually("the stranger is counted", || rig.drops(DropReason::UnknownFlow) == before + 1);
    // A stranger's errors are dropped too, whatever they are about.
    stranger.send(FORWARD_VNI, &error(packet.from.ip(), packet.to.ip(), 3, 3, &packet.turned().frame()[14..]));
    for vni in [0, 1, FORWARD_VNI - 1, SECOND_CHANCE_VNI + 1, 0xff_ffff] {
        member.forward(vni, &packet, task);
    }
    assert_eq!(rig.flows().keys().count(), 0);
    // What is not answered was not taken: the answer to the last one comes first.
    member.forward(FORWARD_VNI, &Packet { from: client(false, 40_001), ..packet.clone() }, task);
    assert_eq!(member.answer().to.port(), 40_001);
    // A flow of one member is not another's to go on with, nor are a client's answers to take from anybody.
    let known = Packet { from: client(false, 40_001), ..packet };
    stranger.forward(FORWARD_VNI, &known, task);
    eventually("the stranger is counted", || rig.drops(DropReason::NotAMember) == 3);
}

fn packets_that_are_cut_are_counted_and_not_delivered(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    for v6 in [false, true] {
        for proto in [TCP, UDP, super::wire::SCTP] {
            let frame = Packet::new(proto, client(v6, 40_000), asked(v6, HERE)).frame();
            let frame = addressed(frame, rig.task_addr(0, false), 80);
            // The kernel itself drops frames without a whole IP header.
            for length in if v6 { 54 } else { 34 }..frame.len() {
                let before = rig.drops(DropReason::Malformed);
                member.send(FORWARD_VNI, &frame[..length]);
                eventually(&format!("{length} bytes"), || rig.drops(DropReason::Malformed) == before + 1);
            }
        }
    }
    let before = rig.drops(DropReason::Malformed);
    let mut arp = Packet::new(TCP, client(false, 1), asked(false, HERE)).frame();
    arp[12..14].copy_from_slice(&[8, 6]);
    member.send(FORWARD_VNI, &arp);
    member.send(REPLY_VNI, &arp);
    eventually("neither is a packet of ours", || rig.drops(DropReason::Malformed) == before + 2);
    assert_eq!(rig.flows().keys().count(), 0);
    // Datagrams that are no VXLAN, or of one with flags that nobody knows.
    for datagram in [&[][..], &[8], &[8, 0, 0, 0, 0x73, 0x6b, 1], &[0; 64], &[0xff; 64]] {
        member.socket.send_to(datagram, member.node).unwrap();
    }
    let packet = Packet::new(UDP, client(false, 40_000), asked(false, HERE)).body(b"still there");
    member.forward(FORWARD_VNI, &packet, rig.task_addr(0, false));
    assert_eq!(member.answer().to, packet.from);
}

fn a_parcel_for_nobody_is_refused_in_the_members_name(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    // Of another node, of no node, of this node itself.
    for task in [FAR_TASK, [10, 0, 9, 9].into(), rig.lab.nodes[0].overlay, [0; 4].into()].map(IpAddr::from) {
        for (vni, v6) in
            [(FORWARD_VNI, false), (FORWARD_VNI, true), (SECOND_CHANCE_VNI, false), (SECOND_CHANCE_VNI, true)]
        {
            let before = rig.drops(DropReason::UnknownTask);
            let mut data = Packet::new(TCP, client(v6, 40_000), asked(v6, NOBODY)).flags(ACK);
            data.ack = 99;
            member.forward(vni, &data, task);
            let seen = member.answer();
            assert_eq!((seen.from, seen.to, seen.flags, word(&seen.l4, 4)), (data.to, data.from, RST, 99));
            member.forward(vni, &data.clone().flags(SYN), task);
            let seen = member.answer();
            assert_eq!((seen.flags, word(&seen.l4, 8)), (RST | ACK, data.seq + 1));
            let datagram = Packet::new(UDP, client(v6, 40_000), asked(v6, NOBODY));
            member.forward(vni, &datagram, task);
            let seen = member.answer();
            assert_eq!((seen.l4[0], seen.l4[1]), if v6 { (1, 4) } else { (3, 3) });
            assert_eq!(rig.drops(DropReason::UnknownTask), before + 3);
            // A reset of nothing gets no answer.
            member.forward(vni, &data.flags(RST), task);
        }
    }
    assert_eq!(rig.flows().keys().count(), 0);
}

/// The member has not heard yet that the task takes no new flows.
fn a_new_flow_for_a_task_that_takes_none_is_passed_on_once(rig: &mut Rig) {
    let members = FAR.map(|address| Member::new(rig, address));
    rig.apply(|desired| desired.local_tasks[1].state = EndpointState::Draining);
    let task = rig.task_addr(1, false);
    let by = |address: Ipv4Addr| usize::from(address == FAR[1]);
    for (n, v6) in (0..8).map(|n| (n, n % 2 == 0)) {
        let packet = Packet::new(TCP, client(v6, 40_000 + n), asked(v6, MIXED));
        let before = rig.events(Event::SecondChance);
        members[0].forward(FORWARD_VNI, &packet, task);
        eventually("it is passed on", || rig.events(Event::SecondChance) == before + 1);
        let entry = rig.entry_of(TCP, 0, 40_000 + n);
        // Which member has the chosen one: the first has the task with the 2, the second those with 3 and 4.
        let (vni, frame, other) = {
            let target = rig.backend(entry.slot());
            let other = &members[by(if target.octets()[3] == 2 { FAR[0] } else { FAR[1] })];
            let (vni, frame) = other.receive();
            assert_eq!(parcel(&frame), (target, 80));
            (vni, frame, other)
        };
        assert_eq!((vni, &frame[12..]), (SECOND_CHANCE_VNI, &packet.frame()[12..]), "unchanged");
        // Its answer retraces the chain.
        let answer = packet.turned().flags(SYN | ACK);
        other.send(REPLY_VNI, &answer.frame());
        let seen = members[0].answer();
        assert_eq!((seen.from, seen.to, seen.flags), (packet.to, packet.from, SYN | ACK));
        // And what comes after it goes the same way.
        members[0].forward(FORWARD_VNI, &packet.clone().flags(ACK), task);
        assert_eq!(other.receive().0, SECOND_CHANCE_VNI);
    }
    // A second chance is the last: the task takes what it is given.
    let packet = Packet::new(UDP, client(false, 41_000), asked(false, MIXED)).body(b"the last");
    members[1].forward(SECOND_CHANCE_VNI, &packet, task);
    assert_eq!(members[1].answer().to, packet.from);
}

/// The node that was asked chose a task elsewhere, which was gone: that node has passed the flow on to a task of the asked node's own. From
/// then on nobody else has a hand in it, and nobody else's end ends it.
fn a_flow_that_is_passed_on_to_the_node_that_was_asked_is_its_own(rig: &mut Rig) {
    let members = FAR.map(|address| Member::new(rig, address));
    let device = wire(&rig.lab.tasks[1].ns);
    let task = rig.task_addr(1, false);
    let mut talks = Vec::new();
    let first = Ipv4Addr::new(10, 0, 2, 2);
    for (proto, v6) in [(TCP, false), (TCP, true), (UDP, false), (UDP, true)] {
        let asking = |port| Packet::new(proto, client(v6, port), SocketAddr::new(rig.own(v6), MIXED));
        let goes_far = |port: &u16| {
            let (_, out) = rig.run(Via::Uplink, &asking(*port).frame());
            out[..4] == [2, 0x73, 0x6b, 1] && parcel(&out).0 == first
        };
        let packet = asking((40_000..).find(goes_far).unwrap());
        // Nobody but the node of the chosen task has a say in it, and that one none any more later.
        let before = rig.drops(DropReason::UnknownFlow);
        members[1].forward(SECOND_CHANCE_VNI, &packet, task);
        eventually("it is dropped", || rig.drops(DropReason::UnknownFlow) == before + 1);
        members[0].forward(SECOND_CHANCE_VNI, &packet, task);
        captured(&device, |seen| seen.from == packet.from);
        // Its answers leave by the uplink, and nobody is in between.
        let answer = Packet::new(proto, SocketAddr::new(rig.task_addr(1, v6), 80), packet.from).flags(SYN | ACK);
        let (seen, out) = rig.passes(Via::Task(1), &answer);
        assert_eq!((seen.from, seen.to), (packet.to, packet.from));
        assert_ne!(out[..4], [2, 0x73, 0x6b, 1]);
        let before = rig.drops(DropReason::UnknownFlow);
        members[0].forward(SECOND_CHANCE_VNI, &packet, rig.task_addr(0, false));
        eventually("a late one is dropped", || rig.drops(DropReason::UnknownFlow) == before + 1);
        members[0].forward(SECOND_CHANCE_VNI, &packet.clone().flags(ACK).body(b"on its way"), task);
        captured(&device, |seen| seen.from == packet.from && seen.l4.ends_with(b"on its way"));
        talks.push((packet, answer));
    }
    // The task that was chosen first is known to be gone here too.
    rig.apply(|desired| desired.endpoints.retain(|e| e.record.addr != first));
    for (packet, answer) in talks {
        let (seen, _) = rig.passes(Via::Uplink, &packet.clone().flags(ACK));
        assert_eq!((seen.from, seen.to), (packet.from, answer.from));
        assert_eq!(rig.passes(Via::Task(1), &answer.flags(ACK)).0.to, packet.from);
    }
}

fn an_answer_is_taken_from_the_one_who_was_asked(rig: &Rig) {
    let members = FAR.map(|address| Member::new(rig, address));
    let outside = wire(&rig.lab.client);
    for (v6, proto) in [(false, TCP), (true, TCP), (false, UDP), (true, UDP)] {
        let packet = Packet::new(proto, client(v6, 40_000), SocketAddr::new(rig.own(v6), THERE));
        rig.passes(Via::Uplink, &packet);
        let answer = packet.turned().flags(SYN | ACK).body(b"answer").frame();
        let before = rig.drops(DropReason::UnknownFlow);
        members[1].send(REPLY_VNI, &answer);
        let unknown = Packet { to: client(v6, 41_000), ..packet.turned() };
        members[0].send(REPLY_VNI, &unknown.frame());
        eventually("another's, and of no flow", || rig.drops(DropReason::UnknownFlow) == before + 2);
        members[0].send(REPLY_VNI, &answer);
        let seen = captured(&outside, |seen| seen.proto == proto && seen.from == packet.to);
        assert_eq!((seen.to, seen.right, &seen.l4[seen.l4.len() - 6..]), (packet.from, true, &b"answer"[..]));
        assert!(rig.entries(proto, 0, 40_000).iter().all(|entry| entry.flags() & super::rig::ANSWERED != 0));
        // An error about the client's packet, of the task or of a router behind the other node.
        let about = error(rig.own(v6), packet.from.ip(), 3, 3, &packet.frame()[14..]);
        members[0].send(REPLY_VNI, &about);
        let kind = if v6 { 58 } else { 1 };
        let seen = captured(&outside, |seen| seen.proto == kind && seen.from.ip() == packet.to.ip());
        assert_eq!((seen.to.ip(), seen.l4[0], seen.right), (packet.from.ip(), 3, true));
        assert_eq!(get(&seen.l4, 8 + if v6 { 40 } else { 20 }), 40_000);
    }
}

fn answers_for_clients_on_the_loopback_device_come_between_the_nodes_own_addresses(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    let inside_node = wire(&rig.lab.nodes[0].ns);
    for v6 in [false, true] {
        let own: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let packet = Packet::new(UDP, SocketAddr::new(own, 40_000), SocketAddr::new(own, THERE));
        let (seen, _) = rig.passes(Via::Loopback, &packet);
        let answer = Packet::new(UDP, seen.to, seen.from).body(b"looped").frame();
        member.send(REPLY_VNI, &answer);
        let seen = captured(&inside_node, |seen| seen.l4.ends_with(b"looped") && seen.to.ip() == own);
        assert_eq!((seen.from, seen.to, seen.right), (packet.to, packet.from, true));
        let sent = Packet::new(UDP, SocketAddr::new(rig.overlay(v6), 40_000), SocketAddr::new(rig.overlay(v6), THERE));
        member.send(REPLY_VNI, &error(rig.overlay(v6), rig.overlay(v6), 3, 3, &sent.frame()[14..]));
        let kind = if v6 { 58 } else { 1 };
        let seen = captured(&inside_node, |seen| seen.proto == kind && seen.to.ip() == own && seen.l4[0] == 3);
        assert_eq!((seen.from.ip(), seen.right), (own, true));
        let before = rig.drops(DropReason::UnknownFlow);
        let strange = Packet::new(UDP, sent.to, SocketAddr::new(rig.overlay(v6), 41_000)).frame();
        member.send(REPLY_VNI, &strange);
        eventually("of no flow", || rig.drops(DropReason::UnknownFlow) == before + 1);
    }
}

fn fragments_come_through_the_tunnel_in_their_order(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    let task = rig.task_addr(0, false);
    let before = rig.drops(DropReason::Fragment);
    let packet = Packet::new(UDP, client(false, 40_000), asked(false, HERE)).body(&[b'x'; 64]);
    let l4 = packet.transport();
    let [first, later] = [(0x2000, &l4[..40]), (5, &l4[40..])]
        .map(|(fragment, part)| addressed(Packet { fragment, ..packet.clone() }.around(UDP, part), task, 80));
    member.send(FORWARD_VNI, &later);
    eventually("its first has not come", || rig.drops(DropReason::Fragment) == before + 1);
    member.send(FORWARD_VNI, &first);
    member.send(FORWARD_VNI, &later);
    assert_eq!(member.answer().to, packet.from);
}

fn errors_about_a_tasks_answers_reach_it_from_the_member_that_was_asked(rig: &Rig) {
    let member = Member::new(rig, FAR[0]);
    let task = rig.task_addr(0, false);
    let device = wire(&rig.lab.tasks[0].ns);
    for v6 in [false, true] {
        let packet = Packet::new(TCP, client(v6, 40_000), asked(v6, HERE));
        member.forward(FORWARD_VNI, &packet, task);
        assert_eq!(member.answer().flags, SYN | ACK);
        let about = error(packet.from.ip(), packet.to.ip(), 3, 1, &packet.turned().frame()[14..]);
        member.send(FORWARD_VNI, &addressed(about.clone(), task, 80));
        let kind = if v6 { 58 } else { 1 };
        let seen = captured(&device, |seen| seen.proto == kind && seen.l4[..2] == [3, 1]);
        assert_eq!((seen.from.ip(), seen.to.ip(), seen.right), (packet.from.ip(), rig.task_addr(0, v6), true));
        assert_eq!(get(&seen.l4, 8 + if v6 { 40 } else { 20 }), 80, "quotes what the task sent");
        // About something else, cut anywhere, or from a stranger: nothing comes of it.
        let mut other = about.clone();
        let at = other.len() - 1;
        put(&mut other, at - 19, 9);
        member.send(FORWARD_VNI, &addressed(other, task, 80));
        for length in 60..about.len() {
            member.send(FORWARD_VNI, &addressed(about[..length].to_vec(), task, 80));
        }
        let echo = error(packet.from.ip(), packet.to.ip(), if v6 { 128 } else { 8 }, 0, b"ping");
        member.send(FORWARD_VNI, &addressed(echo, task, 80));
    }
    let packet = Packet::new(UDP, client(false, 41_000), asked(false, HERE)).body(b"still there");
    member.forward(FORWARD_VNI, &packet, task);
    while member.answer().to != packet.from {}
}
