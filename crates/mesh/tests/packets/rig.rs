//! One node, and what packet tests need of it: devices to come through, members that are only said to be there, and its maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use std::os::fd::OwnedFd;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use skep_mesh::{Datapath, Desired, DropReason, Event, LocatedEndpoint, MapSizes, Tables, compile};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NodeId, PortOptions, Protocol, PublishOptions, ServiceId,
    TaskId, mesh_ipv6,
};

use super::lab::{Attach, Lab, Netns, ingress};
use super::wire::{Packet, SCTP, Seen, TCP, UDP, get, sum};

pub const NEXT: i32 = -1;
pub const DROP: i32 = 2;
pub const REDIRECT: i32 = 7;

/// Published ports: of a task here; of one on another node; of one here and three on two others; of nobody.
pub const HERE: u16 = 8080;
pub const THERE: u16 = 7070;
pub const MIXED: u16 = 6060;
pub const NOBODY: u16 = 9090;

pub const PROTOCOLS: [u8; 3] = [TCP, UDP, SCTP];
/// Two members that are known by name alone.
pub const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 77), Ipv4Addr::new(10, 99, 0, 78)];
/// The task of [`THERE`], on the first of them.
pub const FAR_TASK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 100);

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Uplink,
    Loopback,
    Task(usize),
}

pub struct Rig {
    pub lab: Lab,
    far: [NodeId; 2],
    far_tasks: Vec<(TaskId, ServiceId, usize, Ipv4Addr)>,
    ifindexes: Vec<u32>,
}

fn three(port: u16) -> [skep_model::PublishedPort; 3] {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| ingress(protocol, port, 80))
}

impl Rig {
    pub fn new() -> Self {
        Self::sized(16_384)
    }

    /// Everything between nodes goes through the tunnel's own device.
    pub fn by_device() -> Self {
        let mut rig = Self::new();
        rig.lab.nodes[0].by_device = true;
        rig.apply(|_| ());
        rig
    }

    /// With room for so many flows.
    pub fn sized(flows: u32) -> Self {
        let mut lab = Lab::sized(1, Attach::Best, MapSizes { flows, frontends: 1024, backends: 1024 });
        lab.service(&three(HERE), &[0]);
        let there = lab.service(&three(THERE), &[]);
        let mixed = lab.service(&three(MIXED), &[0]);
        lab.service(&three(NOBODY), &[]);
        let far = [NodeId::random(), NodeId::random()];
        let task = |service: &ServiceId, node, n| (TaskId::random(), service.clone(), node, Ipv4Addr::new(10, 0, 2, n));
        let far_tasks = vec![task(&there, 0, 1), task(&mixed, 0, 2), task(&mixed, 1, 3), task(&mixed, 1, 4)];
        let ns = &lab.nodes[0].ns;
        let ifindexes = ["eth0", "t0", "t1"].map(|device| ns.ifindex(device)).to_vec();
        let mut rig = Self { lab, far, far_tasks, ifindexes };
        rig.apply(|_| ());
        rig
    }

    /// What the node should be like, without changes.
    pub fn desired(&self) -> Desired {
        let mut desired = self.lab.desired(0);
        for (n, node) in self.far.iter().enumerate() {
            desired.members.push(Member {
                node: node.clone(),
                hostname: format!("far{n}"),
                underlay: FAR[n].into(),
                overlay: Ipv4Addr::new(10, 0, 0, FAR[n].octets()[3]),
                alive: true,
                away: false,
            });
        }
        for (task, service, node, addr) in &self.far_tasks {
            desired.endpoints.push(LocatedEndpoint {
                key: EndpointKey { network: self.lab.networks[0].id.clone(), task: task.clone() },
                owner: self.far[*node].clone(),
                record: EndpointRecord {
                    service: service.clone(),
                    addr: *addr,
                    state: EndpointState::Ready,
                    weight: 1,
                    aliases: vec![],
                    host_ports: Vec::new(),
                },
            });
        }
        desired
    }

    /// Brings the node to what it should be like after a change.
    pub fn apply(&mut self, change: impl FnOnce(&mut Desired)) -> Tables {
        let mut desired = self.desired();
        change(&mut desired);
        let tables = compile(&desired);
        let node = &mut self.lab.nodes[0];
        let bpf = node.bpf.as_mut().unwrap();
        node.ns.run(|| bpf.apply(&tables)).unwrap();
        tables
    }

    /// The node's own addresses, outside of the mesh.
    pub fn own(&self, v6: bool) -> IpAddr {
        let node = &self.lab.nodes[0];
        if v6 { node.underlay6.into() } else { node.underlay.into() }
    }

    pub fn task_addr(&self, task: usize, v6: bool) -> IpAddr {
        inside(self.lab.tasks[task].addr, v6)
    }

    pub fn overlay(&self, v6: bool) -> IpAddr {
        inside(self.lab.nodes[0].overlay, v6)
    }

    pub fn run(&self, via: Via, frame: &[u8]) -> (i32, Vec<u8>) {
        self.run_all(via, 0, [frame]).pop().unwrap()
    }

    /// Many frames in one go. What goes into the tunnel is seen as it comes out of it, see [`run_wrapped`](Self::run_wrapped).
    pub fn run_all<'a>(
        &self,
        via: Via,
        gso_size: u32,
        frames: impl IntoIterator<Item = &'a [u8]> + Send,
    ) -> Vec<(i32, Vec<u8>)> {
        let unwrapped = |(verdict, out)| (verdict, if verdict == REDIRECT { unwrapped(out) } else { out });
        self.run_wrapped(via, gso_size, frames).into_iter().map(unwrapped).collect()
    }

    /// Many frames in one go, as they leave the programs.
    pub fn run_wrapped<'a>(
        &self,
        via: Via,
        gso_size: u32,
        frames: impl IntoIterator<Item = &'a [u8]> + Send,
    ) -> Vec<(i32, Vec<u8>)> {
        let (program, ifindex) = self.place(via);
        let bpf = self.lab.nodes[0].bpf();
        self.lab.nodes[0].ns.run(|| {
            let one = |frame: &[u8]| bpf.test_run_on(program, ifindex, gso_size, frame).unwrap();
            frames.into_iter().map(one).collect()
        })
    }

    pub fn place(&self, via: Via) -> (&'static str, u32) {
        match via {
            Via::Uplink => ("from_uplink", self.ifindexes[0]),
            Via::Loopback => ("from_loopback", 1),
            Via::Task(task) => ("from_task", self.ifindexes[1 + task]),
        }
    }

    /// What became of a packet that must be sent on, with everything in it right.
    pub fn passes(&self, via: Via, packet: &Packet) -> (Seen, Vec<u8>) {
        let (verdict, out) = self.run(via, &packet.frame());
        assert_eq!(verdict, REDIRECT, "{via:?} {packet:?}");
        (Seen::right(&out), out)
    }

    /// What a task sends must go to the world outside, by the node's own address.
    pub fn goes_out(&self, via: Via, frame: &[u8], what: &str) -> Seen {
        let (verdict, out) = self.run(via, frame);
        assert_eq!(verdict, REDIRECT, "{via:?} {what}");
        let seen = Seen::right(&out);
        assert_eq!(seen.from.ip(), self.own(seen.from.is_ipv6()), "{via:?} {what}");
        assert!(seen.from.port() >= 61_000 || seen.from.port() == 0, "{via:?} {what}: {seen:?}");
        seen
    }

    /// What a task sends must be answered with an ICMP error of this type and code.
    pub fn is_told(&self, via: Via, frame: &[u8], reason: DropReason, told: (u8, u8)) -> Seen {
        let before = self.drops(reason);
        let (verdict, out) = self.run(via, frame);
        assert_eq!(verdict, REDIRECT, "{via:?} {reason:?}");
        let seen = Seen::right(&out);
        assert_eq!((seen.l4[0], seen.l4[1]), told, "{via:?} {reason:?}");
        assert_eq!(self.drops(reason), before + 1, "{via:?} {reason:?}");
        seen
    }

    /// The packet must be left alone.
    pub fn is_left(&self, via: Via, frame: &[u8], what: &str) {
        assert_eq!(self.run(via, frame), (NEXT, frame.to_vec()), "{via:?} {what}");
    }

    /// The frame must be a fragment that now waits for its first.
    pub fn is_held(&self, via: Via, frame: &[u8], what: &str) {
        let before = self.lab.nodes[0].bpf().counters().unwrap().drops;
        assert_eq!(self.run(via, frame), (DROP, frame.to_vec()), "{via:?} {what}");
        assert_eq!(self.lab.nodes[0].bpf().counters().unwrap().drops, before, "{via:?} {what}: not lost");
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.lab.nodes[0].bpf().counters().unwrap().drops[&reason]
    }

    pub fn events(&self, event: Event) -> u64 {
        self.lab.nodes[0].bpf().counters().unwrap().events[&event]
    }

    /// The packet must be dropped, for this reason.
    pub fn is_dropped(&self, via: Via, frame: &[u8], reason: DropReason, what: &str) {
        let before = self.drops(reason);
        assert_eq!(self.run(via, frame).0, DROP, "{via:?} {what}");
        assert_eq!(self.drops(reason), before + 1, "{via:?} {what}");
    }

    fn map(&self, name: &str) -> Map {
        let data = MapData::from_pin(self.lab.nodes[0].pins.join(name)).unwrap();
        Map::from_map_data(data).unwrap()
    }

    pub fn flows(&self) -> HashMap<MapData, [u8; 40], [u8; 64]> {
        self.map("flows").try_into().unwrap()
    }

    pub fn fragments(&self) -> HashMap<MapData, [u8; 40], [u8; 8]> {
        self.map("fragments").try_into().unwrap()
    }

    /// When packets of flows last went to the tunnel's own device.
    pub fn detours(&self) -> Array<MapData, u32> {
        self.map("detours").try_into().unwrap()
    }

    /// When the backends were suspected last, by number.
    pub fn suspects(&self) -> Array<MapData, u32> {
        self.map("suspects").try_into().unwrap()
    }

    /// Heard and suspected, by number.
    pub fn peers(&self) -> Array<MapData, [u32; 2]> {
        self.map("peers").try_into().unwrap()
    }

    /// All of `drops` and `events`.
    pub fn all_counts(&self) -> [PerCpuArray<MapData, u64>; 2] {
        ["drops", "events"].map(|name| self.map(name).try_into().unwrap())
    }

    /// The only entry of this kind (0: asked, 1: served, 2: looped) for a client's port.
    pub fn entry_of(&self, proto: u8, kind: u8, client_port: u16) -> Entry {
        let mut found = self.entries(proto, kind, client_port);
        assert_eq!(found.len(), 1, "entries of kind {kind} with port {client_port}");
        found.remove(0)
    }

    /// All of them.
    pub fn entries(&self, proto: u8, kind: u8, client_port: u16) -> Vec<Entry> {
        let at = if kind == 0 { 32 } else { 34 };
        let wanted = |key: &[u8; 40]| (key[36], key[37], get(key, at)) == (proto, kind, client_port);
        let found = self.flows().iter().flatten().filter(|(key, _)| wanted(key)).collect::<Vec<_>>();
        found.into_iter().map(|(key, value)| Entry { key, value }).collect()
    }

    /// The address of the task with this number.
    pub fn backend(&self, slot: u32) -> Ipv4Addr {
        let backends: Array<MapData, [u8; 56]> = self.map("backends").try_into().unwrap();
        let entry = backends.get(&slot, 0).unwrap();
        Ipv4Addr::new(entry[24], entry[25], entry[26], entry[27])
    }

    /// Changes entries in place.
    pub fn change_flows(&self, change: impl Fn(&mut Entry)) {
        let mut flows = self.flows();
        let all: Vec<_> = flows.iter().flatten().collect();
        for (key, value) in all {
            let mut entry = Entry { key, value };
            change(&mut entry);
            flows.insert(entry.key, entry.value, 0).unwrap();
        }
    }

    /// Forgets all flows.
    pub fn forget(&self) {
        self.forget_those(|_| true);
    }

    /// Forgets those whose kind (0: asked, 1: served, 2: looped) is wanted.
    pub fn forget_those(&self, wanted: impl Fn(u8) -> bool) {
        let mut flows = self.flows();
        let keys: Vec<_> = flows.keys().flatten().filter(|key| wanted(key[37])).collect();
        keys.iter().for_each(|key| flows.remove(key).unwrap());
    }

    /// Makes all flows older.
    pub fn age(&self, seconds: u32) {
        self.change_flows(|entry| entry.set_seen(entry.seen().wrapping_sub(seconds * 954)));
    }
}

pub const ANSWERED: u8 = 0x01;
pub const CLIENT_FIN: u8 = 0x02;
pub const TASK_FIN: u8 = 0x04;
pub const CLOSED: u8 = 0x10;
pub const RESET: u8 = 0x20;
pub const CHANGED: u8 = 0x40;

/// An entry of `flows`, byte for byte as `bpf/layout.h` has it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: [u8; 40],
    pub value: [u8; 64],
}

impl Entry {
    /// But for who closed first, which only flows to the world outside ask for.
    pub fn flags(&self) -> u8 {
        self.value[61] & 0x7f
    }

    pub fn tries(&self) -> u8 {
        self.value[62]
    }

    pub fn slot(&self) -> u32 {
        u32::from_ne_bytes(self.value[40..44].try_into().unwrap())
    }

    pub fn fin(&self) -> u32 {
        u32::from_ne_bytes(self.value[56..60].try_into().unwrap())
    }

    pub fn seen(&self) -> u32 {
        u32::from_ne_bytes(self.value[52..56].try_into().unwrap())
    }

    pub fn set_seen(&mut self, seen: u32) {
        self.value[52..56].copy_from_slice(&seen.to_ne_bytes());
    }
}

/// The kernel's clock in the ticks of the programs.
pub fn ticks() -> u32 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (seconds * 1e9 / f64::from(1 << 20)) as u32 | 1
}

/// An address inside the mesh.
pub fn inside(address: Ipv4Addr, v6: bool) -> IpAddr {
    if v6 { mesh_ipv6(address).into() } else { address.into() }
}

/// Somebody outside.
pub fn client(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(if v6 { CLIENT6.into() } else { CLIENT.into() }, port)
}

/// Of one port, its options.
pub fn options(protocol: Protocol, port: u16, options: PublishOptions) -> PortOptions {
    PortOptions { protocol, published: port.try_into().unwrap(), options, answers: true }
}

/// Where what the tunnel puts before a frame ends.
pub const WRAPPING: usize = 14 + 20 + 8 + 8;

/// The frame in a packet of the tunnel's, which must be right, or the packet itself when it is none.
pub fn unwrapped(packet: Vec<u8>) -> Vec<u8> {
    let is_wrapped = packet.len() > WRAPPING && packet[14] == 0x45 && packet[23] == UDP && get(&packet, 36) == 4789;
    if !is_wrapped {
        return packet;
    }
    let (size, inner) = (packet.len() - 14, &packet[WRAPPING..]);
    assert_eq!((usize::from(get(&packet, 16)), usize::from(get(&packet, 38))), (size, size - 20), "lengths");
    assert_eq!(sum(&packet[14..34]), 0xffff, "the header's checksum");
    assert_eq!((packet[22], get(&packet, 20), get(&packet, 40)), (64, 0, 0), "hops, fragments, checksum");
    assert!(get(&packet, 34) >= 0xc000, "ports that tell flows from each other");
    assert_eq!(packet[42..46], [8, 0, 0, 0], "VXLAN with a number");
    assert_eq!((&packet[46..48], packet[49]), (&[0x73, 0x6b][..], 0), "one of ours");
    let class = if get(inner, 12) == 0x86dd { inner[15] >> 4 } else { inner[15] };
    assert_eq!(packet[15], class & 3, "congestion");
    inner.to_vec()
}

/// What a frame into the tunnel says to the other node: the task and its port.
pub fn parcel(frame: &[u8]) -> (Ipv4Addr, u16) {
    assert_eq!((&frame[..4], frame[6]), (&[2, 0x73, 0x6b, 1][..], 2), "not a parcel: {:02x?}", &frame[..12]);
    (Ipv4Addr::new(frame[8], frame[9], frame[10], frame[11]), get(frame, 4))
}

/// Hears every frame on the devices of a namespace, from now on.
pub fn wire(ns: &Netns) -> OwnedFd {
    ns.run(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)).unwrap()
}

/// The first packet that is wanted. What the kernel has not summed up yet is not right; see [`Seen::right`].
pub fn captured(wire: &OwnedFd, wanted: impl Fn(&Seen) -> bool) -> Seen {
    setsockopt(wire, sockopt::ReceiveTimeout, &TimeVal::new(5, 0)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let length = nix::unistd::read(wire, &mut buffer).expect("what was wanted did not come");
        match Seen::of(&buffer[..length]) {
            Some(seen) if wanted(&seen) => return seen,
            _ => (),
        }
    }
}
