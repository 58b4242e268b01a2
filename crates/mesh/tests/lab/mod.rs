//! Nodes, tasks and a client as network namespaces on one bridge, made with plain `ip` commands, for tests of the real data plane.
//!
//! Names carry the process id, so that tests may run at the same time; dropping the lab removes everything.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part")]

mod netns;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use skep_mesh::{
    Applied, Bpf, Datapath, DatapathError, Desired, Devices, LocalTask, LocatedEndpoint, MapSizes, Network,
    NetworkKind, OwnNode, Way, compile,
};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NetworkId, NodeId, Protocol, PublishMode, PublishedPort,
    ServiceEntry, ServiceId, TaskId, Version, VirtualIp, mesh_ipv6,
};

pub use netns::Netns;
pub use talk::{Answer, ask_on, ask_tcp, ask_udp, ask_udp_on, connect_from, is_refused, serve, serve_at};

/// What a node's devices can carry on the overlay of an underlay of 1500 bytes.
const OVERLAY_MTU: u16 = 1450;

/// How programs are attached.
#[derive(Clone, Copy, PartialEq)]
pub enum Attach {
    Best,
    Clsact,
}

/// A node: a namespace with a daemon's worth of data plane.
pub struct Node {
    pub id: NodeId,
    pub ns: Netns,
    pub bpf: Option<Box<Bpf>>,
    pub pins: PathBuf,
    pub alive: bool,
    pub underlay: Ipv4Addr,
    pub second: Ipv4Addr,
    pub overlay: Ipv4Addr,
    /// Outside of the mesh too.
    pub underlay6: Ipv6Addr,
    /// Whether other nodes send overlay packets to the IPv6 address.
    pub tunnel6: bool,
    pub reply_direct: bool,
    /// Whether what it sends to other nodes, and what they send, goes through the tunnel's own device.
    pub by_device: bool,
    /// Devices that a test has given it besides, with their addresses.
    pub more_devices: BTreeMap<String, Vec<IpAddr>>,
    sizes: MapSizes,
}

/// A task: a namespace behind a veth pair of its node, with servers in it.
pub struct Task {
    pub id: TaskId,
    pub service: ServiceId,
    pub node: usize,
    pub addr: Ipv4Addr,
    pub ns: Netns,
    pub veth: String,
    pub state: EndpointState,
    pub host_ports: Vec<PublishedPort>,
    /// Its addresses on other networks than that of the routing mesh.
    pub networks: Vec<(NetworkId, Ipv4Addr)>,
    /// Whether its kernel has IPv6.
    pub ipv6: bool,
}

/// The whole picture.
pub struct Lab {
    pub bridge: Netns,
    pub client: Netns,
    pub nodes: Vec<Node>,
    pub tasks: Vec<Task>,
    pub services: Vec<ServiceEntry>,
    /// The routing mesh's own, and others that a test has made.
    pub networks: Vec<Network>,
    kept: std::sync::Mutex<Vec<Netns>>,
    /// Tasks so far.
    made: usize,
    dir: tempfile::TempDir,
}

/// The client's addresses.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const CLIENT6: Ipv6Addr = underlay6(100);

/// An address outside of the mesh.
pub const fn underlay6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, n)
}

/// Waits until something holds that the kernel brings about by itself.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !holds() {
        assert!(std::time::Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A port published in ingress mode.
pub fn ingress(protocol: Protocol, published: u16, target: u16) -> PublishedPort {
    let number = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol, target: number(target), published: number(published), mode: PublishMode::Ingress }
}

impl Lab {
    /// A client and `count` nodes; no tasks, nothing published, programs attached.
    pub fn new(count: u8) -> Self {
        Self::with(count, Attach::Best)
    }

    pub fn with(count: u8, attach: Attach) -> Self {
        Self::sized(count, attach, MapSizes { flows: 16_384, frontends: 1024, backends: 1024 })
    }

    pub fn sized(count: u8, attach: Attach, sizes: MapSizes) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests of the data plane make network namespaces: run them as root");
        let bridge = Netns::new("br");
        bridge.ip("link add br0 type bridge");
        bridge.ip("link set br0 up");
        let client = Netns::new("cl");
        plug(&bridge, &client, "cl");
        client.ip(&format!("addr add {CLIENT}/24 dev eth0"));
        client.ip(&format!("addr add {CLIENT6}/64 dev eth0 nodad"));
        let dir = tempfile::tempdir().unwrap();
        let nodes =
            (1..=count).map(|n| Node::new(n, &bridge, dir.path().join(format!("n{n}")), attach, sizes)).collect();
        let id = NetworkId::random();
        let subnet = "10.0.0.0/16".parse().unwrap();
        let ingress = Network { id, number: 4096, subnet, subnet6: None, kind: NetworkKind::Ingress };
        let (networks, kept) = (vec![ingress], std::sync::Mutex::default());
        let mut lab = Self { bridge, client, nodes, tasks: vec![], services: vec![], networks, kept, made: 0, dir };
        lab.apply();
        lab
    }

    /// One more client, with a last byte of its address of one's choice.
    pub fn another_client(&self, n: u8) -> Netns {
        let name = format!("c{n}");
        let client = Netns::new(&name);
        plug(&self.bridge, &client, &name);
        client.ip(&format!("addr add 10.99.0.{n}/24 dev eth0"));
        client
    }

    /// A service with these ports and a task on each of these nodes, serving on port 80 over both protocols.
    pub fn service(&mut self, ports: &[PublishedPort], nodes: &[usize]) -> ServiceId {
        let id = ServiceId::random();
        let entry = ServiceEntry {
            id: id.clone(),
            name: "web".into(),
            version: Version::default(),
            ports: ports.to_vec(),
            options: vec![],
            virtual_ips: vec![],
            networks: Vec::new(),
        };
        self.services.push(entry);
        for &node in nodes {
            self.task(&id, node);
        }
        self.apply();
        id
    }

    /// A client behind a router whose cable to it carries only so many bytes; nobody but the router knows.
    pub fn behind_a_router(&self, mtu: u16) -> Netns {
        let (router, far) = (Netns::new("rt"), Netns::new("far"));
        plug(&self.bridge, &router, "rt");
        router.ip("addr add 10.99.0.90/24 dev eth0");
        router.ip(&format!("addr add {}/64 dev eth0 nodad", underlay6(90)));
        router.ip(&format!("link add dn0 type veth peer name eth0 netns {}", far.name()));
        router.ip(&format!("link set dev dn0 mtu {mtu} up"));
        router.ip("addr add 10.98.0.1/24 dev dn0");
        router.ip("addr add fd98::1/64 dev dn0 nodad");
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        far.ip("addr add 10.98.0.2/24 dev eth0");
        far.ip("addr add fd98::2/64 dev eth0 nodad");
        far.ip("link set eth0 up");
        far.ip("route add default via 10.98.0.1");
        far.ip("-6 route add default via fd98::1");
        for node in &self.nodes {
            node.ns.ip("route add 10.98.0.0/24 via 10.99.0.90");
            node.ns.ip(&format!("-6 route add fd98::/64 via {}", underlay6(90)));
        }
        // It lives as long as the far client's namespace has its cable.
        self.kept.lock().unwrap().push(router);
        far
    }

    /// One more task; not applied yet. Returns its index.
    pub fn task(&mut self, service: &ServiceId, node: usize) -> usize {
        let (n, made) = (self.tasks.len(), self.made);
        self.made += 1;
        let addr = Ipv4Addr::new(10, 0, 1, 1 + u8::try_from(made).unwrap());
        let veth = format!("t{made}");
        let host = &self.nodes[node].ns;
        let ns = Netns::new(&veth);
        host.ip(&format!("link add {veth} mtu {OVERLAY_MTU} type veth peer name eth0 netns {}", ns.name()));
        host.ip(&format!("addr add 169.254.1.1/32 dev {veth}"));
        host.ip(&format!("link set {veth} up"));
        for family in ["ipv4", "ipv6"] {
            host.sysctl(&format!("net/{family}/conf/{veth}/forwarding"), "1");
        }
        host.sysctl(&format!("net/ipv4/conf/{veth}/accept_local"), "1");
        host.ip(&format!("route add {addr}/32 dev {veth}"));
        ns.ip(&format!("link set eth0 mtu {OVERLAY_MTU}"));
        ns.ip(&format!("addr add {addr}/32 dev eth0"));
        ns.ip("link set eth0 up");
        ns.ip("route add 169.254.1.1 dev eth0 scope link");
        ns.ip("route add default via 169.254.1.1");
        let addr6 = mesh_ipv6(addr);
        host.ip(&format!("addr add fe80::1/64 dev {veth} nodad"));
        host.ip(&format!("-6 route add {addr6}/128 dev {veth}"));
        ns.ip(&format!("addr add {addr6}/128 dev eth0 nodad"));
        ns.ip("-6 route add default via fe80::1 dev eth0");
        serve(&ns, addr, 80);
        serve_at(&ns, addr, addr6.into(), 80);
        let task = TaskId::random();
        let (service, state) = (service.clone(), EndpointState::Ready);
        let (host_ports, networks) = (vec![], vec![]);
        self.tasks.push(Task { id: task, service, node, addr, ns, veth, state, host_ports, networks, ipv6: true });
        n
    }

    /// One more network; its tasks are those that are put on it.
    pub fn network(&mut self, subnet: &str, kind: NetworkKind) -> NetworkId {
        let id = NetworkId::random();
        let number = 4096 + u32::try_from(self.networks.len()).unwrap();
        self.networks.push(Network { id: id.clone(), number, subnet: subnet.parse().unwrap(), subnet6: None, kind });
        id
    }

    /// Gives the last network an IPv6 subnet of its own. Nobody may be on it yet.
    pub fn own_subnet6(&mut self, subnet: &str) {
        self.networks.last_mut().unwrap().subnet6 = Some(subnet.parse().unwrap());
    }

    /// Gives a task an address on a network, with the way to its other tasks, and servers on port 80; not applied yet.
    pub fn join(&mut self, task: usize, network: &NetworkId) -> Ipv4Addr {
        let network = self.networks.iter().find(|n| n.id == *network).unwrap();
        let net = network.subnet;
        let own = u8::try_from(10 + task).unwrap();
        let addr = net.hosts().nth(usize::from(own) - 1).unwrap();
        let task = &mut self.tasks[task];
        let (host, ns) = (&self.nodes[task.node].ns, &task.ns);
        let addr6 = network.prefix6().with(addr);
        let net6 = network.subnet6.unwrap_or_else(|| network.prefix6().net(net));
        ns.ip(&format!("addr add {addr}/32 dev eth0"));
        ns.ip(&format!("route add {net} via 169.254.1.1 dev eth0 src {addr}"));
        ns.ip(&format!("addr add {addr6}/128 dev eth0 nodad"));
        ns.ip(&format!("-6 route add {net6} via fe80::1 dev eth0 src {addr6}"));
        ns.ip(&format!("-6 route replace default via fe80::1 dev eth0 src {}", mesh_ipv6(task.addr)));
        host.ip(&format!("route add {addr}/32 dev {}", task.veth));
        serve(ns, addr, 80);
        serve_at(ns, addr, addr6.into(), 80);
        task.networks.push((network.id.clone(), addr));
        addr
    }

    /// Gives a service an address of its own on a network, which only the data plane knows.
    pub fn own_address(&mut self, service: &ServiceId, network: &NetworkId) -> Ipv4Addr {
        let net = self.networks.iter().find(|n| n.id == *network).unwrap().subnet;
        let entry = self.services.iter_mut().find(|s| s.id == *service).unwrap();
        let addr = net.hosts().nth(199).unwrap();
        entry
            .virtual_ips
            .push(VirtualIp { network: network.clone(), addr: Ipv4Net::new(addr, net.prefix_len()).unwrap() });
        addr
    }

    /// Brings every node's data plane to the lab's picture.
    pub fn apply(&mut self) {
        for node in 0..self.nodes.len() {
            self.apply_on(node).unwrap();
        }
    }

    pub fn apply_on(&mut self, node: usize) -> Result<Applied, DatapathError> {
        let tables = compile(&self.desired(node));
        let Node { ns, bpf, .. } = &mut self.nodes[node];
        let Some(bpf) = bpf.as_mut() else { return Ok(Applied::default()) };
        ns.run(|| bpf.apply(&tables))
    }

    /// What `node` should be like.
    pub fn desired(&self, node: usize) -> Desired {
        let own = &self.nodes[node];
        let index = |name: &str| own.ns.ifindex(name);
        let members = self.nodes.iter().map(|n| Member {
            node: n.id.clone(),
            hostname: n.ns.name().to_owned(),
            underlay: n.tunnel(),
            overlay: n.overlay,
            alive: n.alive,
            away: false,
        });
        let ingress = &self.networks[0].id;
        let endpoints = self.tasks.iter().flat_map(|t| {
            let on = |(network, addr): (&NetworkId, Ipv4Addr)| LocatedEndpoint {
                key: EndpointKey { network: network.clone(), task: t.id.clone() },
                owner: self.nodes[t.node].id.clone(),
                record: EndpointRecord {
                    service: t.service.clone(),
                    addr,
                    state: t.state,
                    weight: 1,
                    aliases: vec![],
                    host_ports: Vec::new(),
                },
            };
            [(ingress, t.addr)].into_iter().chain(t.networks.iter().map(|(n, a)| (n, *a))).map(on)
        });
        let locals =
            self.tasks.iter().filter(|t| t.node == node).map(|t| t.local(&self.networks[0].id, index(&t.veth)));
        let others = self.nodes.iter().filter(|other| other.id != own.id);
        Desired {
            member_addresses: others.flat_map(|other| other.all_addresses().into_keys()).collect(),
            node: OwnNode {
                id: own.id.clone(),
                underlay: own.tunnel(),
                overlay: own.overlay,
                addresses: own.all_addresses(),
                reply_direct: own.reply_direct,
                direct: self.nodes.iter().map(Node::tunnel).collect(),
                taken: BTreeSet::new(),
            },
            devices: own.devices(),
            members: members.collect(),
            services: self.services.clone(),
            networks: self.networks.clone(),
            endpoints: endpoints.collect(),
            local_tasks: locals.collect(),
        }
    }
}

impl Task {
    /// As its node's data plane is told of it; `host_ifindex` is the node's side of its cable.
    fn local(&self, home: &NetworkId, host_ifindex: u32) -> LocalTask {
        LocalTask {
            task: self.id.clone(),
            home: home.clone(),
            addr: self.addr,
            networks: self.networks.clone(),
            host_ifindex,
            mac: self.ns.mac("eth0"),
            ipv6: self.ipv6,
            state: self.state,
            host_ports: self.host_ports.clone(),
            host_options: vec![],
        }
    }
}

impl Node {
    fn new(n: u8, bridge: &Netns, pins: PathBuf, attach: Attach, sizes: MapSizes) -> Self {
        let ns = Netns::new(&format!("n{n}"));
        let (underlay, second, overlay) =
            ([10, 99, 0, n].into(), [10, 99, 0, 200 + n].into(), Ipv4Addr::new(10, 0, 0, n));
        plug(bridge, &ns, &format!("n{n}"));
        ns.ip(&format!("addr add {underlay}/24 dev eth0"));
        ns.ip(&format!("addr add {second}/24 dev eth0"));
        ns.ip("link add skep-vx type vxlan external dstport 4789 nolearning");
        ns.ip(&format!("link set skep-vx mtu {OVERLAY_MTU} up"));
        ns.ip(&format!("addr add {overlay}/32 dev skep-vx"));
        ns.ip(&format!("addr add {}/128 dev skep-vx nodad", mesh_ipv6(overlay)));
        let underlay6 = underlay6(n.into());
        ns.ip(&format!("addr add {underlay6}/64 dev eth0 nodad"));
        ns.sysctl("net/ipv4/conf/lo/route_localnet", "1");
        ns.sysctl("net/ipv4/conf/lo/accept_local", "1");
        let id = NodeId::random();
        let mut node = Self {
            id,
            ns,
            bpf: None,
            pins,
            alive: true,
            underlay,
            second,
            overlay,
            underlay6,
            tunnel6: false,
            by_device: false,
            reply_direct: false,
            more_devices: BTreeMap::new(),
            sizes,
        };
        node.start(attach);
        node
    }

    fn devices(&self) -> Devices {
        let (with_frames, without): (Vec<_>, Vec<_>) = self.more_devices.keys().partition(|d| self.carries_frames(d));
        let indexes = |names: Vec<&String>| names.into_iter().map(|d| self.ns.ifindex(d)).collect::<Vec<_>>();
        let uplink = self.ns.ifindex("eth0");
        Devices {
            loopback: self.ns.ifindex("lo"),
            overlay: self.ns.ifindex("skep-vx"),
            underlay: Some(uplink),
            overlay_mtu: OVERLAY_MTU,
            overlay_port: 4789,
            ipsec: self.by_device,
            uplinks: indexes(with_frames).into_iter().chain([uplink]).collect(),
            tunnels: indexes(without).into_iter().collect(),
            ways: self.ways(),
        }
    }

    /// Where other nodes send overlay packets for it.
    fn tunnel(&self) -> IpAddr {
        if self.tunnel6 { self.underlay6.into() } else { self.underlay.into() }
    }

    fn all_addresses(&self) -> BTreeMap<IpAddr, String> {
        let first = self.addresses().map(|a| (a, "eth0".to_owned()));
        let more = self.more_devices.iter().flat_map(|(device, list)| list.iter().map(|a| (*a, device.clone())));
        first.into_iter().chain(more).collect()
    }

    /// What is on the bridge, and behind a router there.
    fn ways(&self) -> BTreeMap<IpNet, Way> {
        let device = self.ns.ifindex("eth0");
        let way = |(net, source): (&str, IpAddr)| (net.parse().unwrap(), Way { device, mtu: 1500, source });
        let [v4, _, v6] = self.addresses();
        [("10.99.0.0/24", v4), ("10.98.0.0/24", v4), ("fd99::/64", v6), ("fd98::/64", v6)].map(way).into()
    }

    fn carries_frames(&self, device: &str) -> bool {
        self.ns.ip(&format!("link show {device}")).contains("link/ether")
    }

    /// By which clients may ask it.
    pub fn addresses(&self) -> [IpAddr; 3] {
        [self.underlay.into(), self.second.into(), self.underlay6.into()]
    }

    /// Starts its "daemon".
    pub fn start(&mut self, attach: Attach) {
        let sizes = self.sizes;
        let bpf = self.ns.run(|| match attach {
            Attach::Best => Bpf::open(&self.pins, sizes),
            Attach::Clsact => Bpf::open_with_clsact(&self.pins, sizes),
        });
        self.bpf = Some(Box::new(bpf.unwrap()));
    }

    pub fn bpf(&self) -> &Bpf {
        self.bpf.as_ref().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(bpf) = self.bpf.take()
            && let Err(error) = self.ns.run(|| bpf.close_and_remove())
        {
            eprintln!("{}: {error}", self.ns.name());
        }
        // A daemon that was "killed" left its mount.
        let _ = nix::mount::umount2(&self.pins, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A cable from the bridge to the namespace's eth0.
fn plug(bridge: &Netns, ns: &Netns, port: &str) {
    bridge.ip(&format!("link add {port} type veth peer name eth0 netns {}", ns.name()));
    bridge.ip(&format!("link set {port} master br0 up"));
    ns.ip("link set eth0 up");
    ns.ip("link set lo up");
}
