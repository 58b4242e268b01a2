//! What the mesh of a node should be, in the words of the swarm: the input of [`compile`](crate::compile).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NetworkId, NodeId, PortOptions, Prefix6, Protocol,
    PublishedPort, ServiceEntry, TaskId,
};

use crate::table::Way;

/// Everything that a node's data plane follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The node itself.
    pub node: OwnNode,
    /// The devices that packets of the mesh come through.
    pub devices: Devices,
    /// All members, the node itself may be among them.
    pub members: Vec<Member>,
    /// By what members are asked besides, as they say themselves.
    pub member_addresses: BTreeSet<IpAddr>,
    /// All services with their published ports.
    pub services: Vec<ServiceEntry>,
    /// All of the swarm's networks, that of the routing mesh among them.
    pub networks: Vec<Network>,
    /// All endpoints, as discovery knows them, the node's own among them. Those of networks that are not known are nobody's.
    pub endpoints: Vec<LocatedEndpoint>,
    /// The tasks that run on the node.
    pub local_tasks: Vec<LocalTask>,
}

impl Desired {
    /// The routing mesh's own network.
    #[must_use]
    pub fn ingress(&self) -> Option<&NetworkId> {
        self.networks.iter().find(|network| network.kind == NetworkKind::Ingress).map(|network| &network.id)
    }
}

/// One of the swarm's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its identity.
    pub id: NetworkId,
    /// Its number, which no other network has; never 0.
    pub number: u32,
    /// All of its addresses.
    pub subnet: Ipv4Net,
    /// All of its IPv6 addresses, if they do not go with those by the mesh's own prefix.
    pub subnet6: Option<Ipv6Net>,
    /// What it is for.
    pub kind: NetworkKind,
}

impl Network {
    /// How its IPv6 addresses begin.
    #[must_use]
    pub fn prefix6(&self) -> Prefix6 {
        self.subnet6.and_then(Prefix6::of).unwrap_or(Prefix6::MESH)
    }
}

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkKind {
    /// The routing mesh's own: tasks are reached by it, and do not talk to each other.
    Ingress,
    /// What was the routing mesh's own. Tasks that are on it go out by it, and serve ports in host mode.
    Retired,
    /// Its tasks talk to each other, and to the world outside.
    Open,
    /// Its tasks talk to each other, and to the world outside only where another network lets them.
    Internal,
}

/// The node that the tables are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// Its identity.
    pub id: NodeId,
    /// Where other nodes send overlay packets for it.
    pub underlay: IpAddr,
    /// Its address on the ingress network: what tasks see instead of a loopback client.
    pub overlay: Ipv4Addr,
    /// Every address that clients may ask it by, without loopback ones, and the name of the device that has it.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Ports that a process of the node listens on: it keeps them, and the mesh leaves them alone on this node.
    pub taken: BTreeSet<(Protocol, u16)>,
    /// Whether the node answers clients of other nodes itself, and lets others answer its own, where that has been proved to work.
    pub reply_direct: bool,
    /// Underlay addresses of the members for whose clients it has.
    pub direct: BTreeSet<IpAddr>,
}

/// Devices by their interface index in the node's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// `lo`.
    pub loopback: u32,
    /// The collect-metadata VXLAN device.
    pub overlay: u32,
    /// What fits into one overlay packet, in bytes (the underlay's MTU less 50).
    pub overlay_mtu: u16,
    /// Where nodes send overlay packets to, by UDP.
    pub overlay_port: u16,
    /// The node has IPsec policies for what it sends or gets, which the VXLAN device heeds and the data plane by itself does not.
    pub ipsec: bool,
    /// The device that has the node's underlay address.
    pub underlay: Option<u32>,
    /// Every Ethernet device that clients may come through.
    pub uplinks: BTreeSet<u32>,
    /// Every other one: WireGuard, tun, PPP.
    pub tunnels: BTreeSet<u32>,
    /// The routes to the world outside.
    pub ways: BTreeMap<IpNet, Way>,
}

/// An endpoint and the node that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedEndpoint {
    /// Which endpoint.
    pub key: EndpointKey,
    /// Who runs it.
    pub owner: NodeId,
    /// What its owner says of it.
    pub record: EndpointRecord,
}

/// A task that runs on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTask {
    /// The task.
    pub task: TaskId,
    /// The network that all tasks are on: the routing mesh's own, or what was so when the task began.
    pub home: NetworkId,
    /// Its address there.
    pub addr: Ipv4Addr,
    /// Its addresses on the swarm's other networks.
    pub networks: Vec<(NetworkId, Ipv4Addr)>,
    /// The host's side of its veth pair.
    pub host_ifindex: u32,
    /// Hardware address of the task's side.
    pub mac: [u8; 6],
    /// Whether it has an IPv6 address, too: its kernel may have none.
    pub ipv6: bool,
    /// Whether it takes new flows. The node's own word comes before the record that it has published.
    pub state: EndpointState,
    /// Ports published in host mode.
    pub host_ports: Vec<PublishedPort>,
    /// Options of those that have any.
    pub host_options: Vec<PortOptions>,
}
