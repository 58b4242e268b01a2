//! A small world for tests, which changes come over. Node 0 is the one whose tables it is about, unless another is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use skep_model::{
    Balance, EndpointKey, EndpointRecord, EndpointState, ListenOn, Member, PortOptions, Protocol, PublishMode,
    PublishOptions, PublishedPort, ServiceEntry, Version, VirtualIp,
};

use crate::desired::{Desired, Devices, LocalTask, LocatedEndpoint, Network, NetworkKind, OwnNode};
use crate::table::Way;

/// Two of them at a time, 0 and 1 first, have one address, and are never there together.
pub(crate) const TASKS: u8 = 20;
pub(crate) const NODES: u8 = 4;
const SERVICES: u8 = 4;
const NETWORKS: u8 = 2;
const PORTS: u16 = 6;

/// What a task of the world is like.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Task {
    service: u8,
    node: u8,
    state: EndpointState,
    weight: u32,
    /// A port in host mode, and which options it has.
    host_port: Option<(Port, u8)>,
}

/// A published port: by number from 8000 on, the same for all protocols.
pub(crate) type Port = (Protocol, u16);

/// How a port is published: by the options in a list, and to which of two ports of the tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Published {
    options: u8,
    target: u16,
}

/// The nodes, the tasks on them, the services that they are of.
#[derive(Debug, Clone)]
pub(crate) struct World {
    tasks: BTreeMap<u8, Task>,
    ports: BTreeMap<(u8, Port), Published>,
    members: BTreeSet<u8>,
    dead: BTreeSet<u8>,
    taken: BTreeSet<Port>,
    /// Nodes for whose clients node 0 can answer; `None` where no node answers for others.
    direct: Option<BTreeSet<u8>>,
    addresses: u8,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Start {
        task: u8,
        service: u8,
        node: u8,
        state: EndpointState,
    },
    Stop(u8),
    /// One goes and another comes, as in an update.
    Replace(u8, u8),
    State(u8, EndpointState),
    Weight(u8, u32),
    Move(u8, u8),
    HostPort(u8, Option<(Port, u8)>),
    Publish {
        service: u8,
        port: Port,
        published: Published,
    },
    Withdraw {
        service: u8,
        port: Port,
    },
    Join(u8),
    Leave(u8),
    Die(u8),
    Rise(u8),
    /// A process of the node takes it, or gives it back.
    Take(Port),
    Direct(Option<BTreeSet<u8>>),
    Addresses(u8),
    Nothing,
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    let (task, service, node, other) = (0..TASKS, 0..SERVICES, 0..NODES, 1..NODES);
    let state = prop_oneof![Just(EndpointState::Starting), Just(EndpointState::Ready), Just(EndpointState::Draining)];
    let protocol = prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)];
    let port = (protocol, 0..PORTS);
    let published = (0..8_u8, 80..82_u16).prop_map(|(options, target)| Published { options, target });
    let direct = prop::option::of(prop::collection::btree_set(other.clone(), 0..3));
    prop_oneof![
        5 => (task.clone(), service.clone(), node.clone(), state.clone())
            .prop_map(|(task, service, node, state)| Change::Start { task, service, node, state }),
        3 => task.clone().prop_map(Change::Stop),
        4 => (task.clone(), task.clone()).prop_map(|(old, new)| Change::Replace(old, new)),
        4 => (task.clone(), state).prop_map(|(task, state)| Change::State(task, state)),
        1 => (task.clone(), 0..4_u32).prop_map(|(task, weight)| Change::Weight(task, weight)),
        2 => (task.clone(), node).prop_map(|(task, node)| Change::Move(task, node)),
        2 => (task, prop::option::of((port.clone(), 0..8_u8))).prop_map(|(task, port)| Change::HostPort(task, port)),
        5 => (service.clone(), port.clone(), published)
            .prop_map(|(service, port, published)| Change::Publish { service, port, published }),
        2 => (service, port.clone()).prop_map(|(service, port)| Change::Withdraw { service, port }),
        1 => other.clone().prop_map(Change::Join),
        1 => other.clone().prop_map(Change::Leave),
        1 => other.clone().prop_map(Change::Die),
        1 => other.prop_map(Change::Rise),
        1 => port.prop_map(Change::Take),
        1 => direct.prop_map(Change::Direct),
        1 => (0..4_u8).prop_map(Change::Addresses),
        1 => Just(Change::Nothing),
    ]
}

impl World {
    /// All nodes, no tasks, a published port of each service.
    pub(crate) fn new() -> Self {
        let published = Published { options: 0, target: 80 };
        let ports = (0..SERVICES).map(|service| ((service, (Protocol::Tcp, u16::from(service))), published)).collect();
        Self {
            tasks: [].into(),
            ports,
            members: (0..NODES).collect(),
            dead: [].into(),
            taken: [].into(),
            direct: None,
            addresses: 0,
        }
    }

    pub(crate) fn suffer(&mut self, change: Change) {
        match change {
            Change::Start { task, service, node, state } => {
                self.start(task, Task { service, node, state, weight: 1, host_port: None });
            }
            Change::Stop(task) => drop(self.tasks.remove(&task)),
            Change::Replace(old, new) => {
                if let Some(task) = self.tasks.remove(&old) {
                    self.start(new, Task { state: EndpointState::Ready, ..task });
                }
            }
            Change::State(task, state) => self.of(task, |task| task.state = state),
            Change::Weight(task, weight) => self.of(task, |task| task.weight = weight),
            Change::Move(task, node) => self.of(task, |task| task.node = node),
            Change::HostPort(task, port) => self.of(task, |task| task.host_port = port),
            Change::Publish { service, port, published } => drop(self.ports.insert((service, port), published)),
            Change::Withdraw { service, port } => drop(self.ports.remove(&(service, port))),
            Change::Join(node) => drop(self.members.insert(node)),
            Change::Leave(node) => drop(self.members.remove(&node)),
            Change::Die(node) => drop(self.dead.insert(node)),
            Change::Rise(node) => drop(self.dead.remove(&node)),
            Change::Take(port) => {
                if !self.taken.remove(&port) {
                    self.taken.insert(port);
                }
            }
            Change::Direct(direct) => self.direct = direct,
            Change::Addresses(count) => self.addresses = count,
            Change::Nothing => (),
        }
    }

    /// Those that others believe to be alive.
    pub(crate) fn nodes_alive(&self) -> impl Iterator<Item = u8> {
        self.members.difference(&self.dead).copied()
    }

    fn of(&mut self, task: u8, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.get_mut(&task) {
            change(task);
        }
    }

    fn start(&mut self, number: u8, task: Task) {
        if self.tasks.keys().all(|other| address(*other) != address(number)) {
            self.tasks.insert(number, task);
        }
    }

    pub(crate) fn desired(&self) -> Desired {
        self.desired_on(0)
    }

    /// What the node is to be that knows all this.
    pub(crate) fn desired_on(&self, node: u8) -> Desired {
        let here = self.tasks.iter().filter(|(_, task)| task.node == node);
        Desired {
            node: OwnNode {
                id: id(node.into()),
                underlay: underlay(node),
                overlay: [10, 0, 0, node + 1].into(),
                addresses: (0..self.addresses).map(|n| (IpAddr::from([198, 51, 100, n]), "eth1".to_owned())).collect(),
                taken: self.taken.iter().map(|(protocol, port)| (*protocol, 8000 + port)).collect(),
                reply_direct: self.direct.is_some(),
                direct: self.direct.iter().flatten().map(|n| underlay(*n)).collect(),
            },
            devices: Devices {
                loopback: 1,
                overlay: 5,
                overlay_mtu: 1450,
                overlay_port: 4789,
                ipsec: false,
                underlay: Some(2),
                uplinks: [2].into(),
                tunnels: [].into(),
                ways: (0..self.addresses).map(way).collect(),
            },
            members: self.members.iter().map(|n| self.member(*n)).collect(),
            member_addresses: (0..self.addresses).map(|n| IpAddr::from([203, 0, 113, n])).collect(),
            services: (0..SERVICES).map(|n| self.service(n)).collect(),
            networks: (0..=NETWORKS).map(network).collect(),
            endpoints: self.tasks.iter().flat_map(|(n, task)| endpoints(*n, task)).collect(),
            local_tasks: here.map(|(n, task)| local(*n, task)).collect(),
        }
    }

    fn member(&self, n: u8) -> Member {
        let overlay = [10, 0, 0, n + 1].into();
        let alive = !self.dead.contains(&n);
        Member { node: id(n.into()), hostname: format!("n{n}"), underlay: underlay(n), overlay, alive, away: false }
    }

    fn service(&self, n: u8) -> ServiceEntry {
        let own = || self.ports.iter().filter(move |((service, _), _)| *service == n);
        ServiceEntry {
            id: id(n.into()),
            name: format!("s{n}"),
            version: Version::default(),
            ports: own().map(|((_, port), how)| published(*port, how.target, PublishMode::Ingress)).collect(),
            options: own().filter_map(|((_, port), how)| option(*port, how.options)).collect(),
            virtual_ips: networks_of(n).map(|network| vip(n, network)).collect(),
            networks: Vec::new(),
        }
    }
}

pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: u32) -> T {
    format!("{n:0>25}").parse().unwrap()
}

/// One node is reached by IPv6.
fn underlay(n: u8) -> IpAddr {
    if n == 3 { "2001:db8::3".parse().unwrap() } else { [192, 0, 2, n + 1].into() }
}

fn published((protocol, port): Port, target: u16, mode: PublishMode) -> PublishedPort {
    let number = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol, target: number(target), published: number(8000 + port), mode }
}

fn option((protocol, port): Port, which: u8) -> Option<PortOptions> {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let default = PublishOptions::default();
    let options = match which {
        0 => return None,
        1 => PublishOptions { sources: nets(&["10.0.0.0/8", "2001:db8::/32"]), ..default },
        2 => PublishOptions { sources: nets(&["10.0.0.0/8", "192.168.0.0/16"]), client_affinity: true, ..default },
        3 => PublishOptions { listen: vec![ListenOn::Interface("eth1".to_owned())], ..default },
        4 => PublishOptions { balance: Balance::LocalFirst, ..default },
        5 => PublishOptions { balance: Balance::Datagram, ..default },
        6 => PublishOptions { idle_timeout: Some(Duration::from_secs(30)), sources: nets(&["0.0.0.0/0"]), ..default },
        _ => default,
    };
    Some(PortOptions { protocol, published: (8000 + port).try_into().unwrap(), options, answers: which != 7 })
}

/// Network 0 is the routing mesh's; the last has an IPv6 subnet of its own.
fn network(n: u8) -> Network {
    let kind = match n {
        0 => NetworkKind::Ingress,
        1 => NetworkKind::Open,
        _ => NetworkKind::Internal,
    };
    let subnet = format!("10.{n}.0.0/16").parse().unwrap();
    let subnet6 = (n == NETWORKS).then(|| "2001:db8:9::/64".parse().unwrap());
    Network { id: id(n.into()), number: 4096 + u32::from(n), subnet, subnet6, kind }
}

/// Those besides that of the routing mesh. The last service is on none.
fn networks_of(service: u8) -> impl Iterator<Item = u8> {
    (1..=NETWORKS).filter(move |network| service == network - 1 || service == *network)
}

fn vip(service: u8, network: u8) -> VirtualIp {
    VirtualIp { network: id(network.into()), addr: format!("10.{network}.0.{service}/16").parse().unwrap() }
}

fn way(n: u8) -> (IpNet, Way) {
    let to = format!("198.51.{n}.0/24").parse().unwrap();
    (to, Way { device: 2, mtu: 1500, source: [198, 51, 100, n].into() })
}

fn address(task: u8) -> Ipv4Addr {
    address_on(0, task)
}

fn address_on(network: u8, task: u8) -> Ipv4Addr {
    [10, network, 1, task / 2].into()
}

fn endpoints(n: u8, task: &Task) -> impl Iterator<Item = LocatedEndpoint> {
    let endpoint = move |network: u8| LocatedEndpoint {
        key: EndpointKey { network: id(network.into()), task: id(n.into()) },
        owner: id(task.node.into()),
        record: EndpointRecord {
            service: id(task.service.into()),
            addr: address_on(network, n),
            state: task.state,
            weight: task.weight,
            aliases: vec![],
            host_ports: Vec::new(),
        },
    };
    [0].into_iter().chain(networks_of(task.service)).map(endpoint)
}

fn local(n: u8, task: &Task) -> LocalTask {
    LocalTask {
        task: id(n.into()),
        home: id(0),
        addr: address(n),
        networks: networks_of(task.service).map(|network| (id(network.into()), address_on(network, n))).collect(),
        host_ifindex: 100 + u32::from(n),
        mac: [2, 0, 0, 0, 0, n],
        ipv6: n > 3,
        state: task.state,
        host_ports: task.host_port.iter().map(|(port, _)| published(*port, 80, PublishMode::Host)).collect(),
        host_options: task.host_port.iter().filter_map(|(port, which)| option(*port, *which)).collect(),
    }
}
