//! What the data plane looks up, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use skep_model::{EndpointKey, NetworkId, Prefix6, Protocol, PublishMode, ServiceId};

/// What a client asks for, on any address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The published port.
    pub port: u16,
}

/// Tasks, each on a network, that new flows are shared among. All ports of a service that are balanced alike have one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// All tasks of a service; `true` for those of this node alone, while any of them is ready.
    Service(ServiceId, bool),
    /// The tasks of this node behind a port published in host mode.
    Host(FrontendKey),
    /// All tasks of a service, by their addresses on one of the swarm's networks.
    Vip(ServiceId, NetworkId),
}

/// A published port on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// The service that it belongs to; unknown in host mode.
    pub service: Option<ServiceId>,
    /// Who answers.
    pub mode: PublishMode,
    /// The tasks behind it.
    pub group: GroupKey,
    /// The port that they listen on.
    pub target: u16,
    /// Whether this node answers its own clients.
    pub answering: Answering,
    /// Addresses that it answers on; all of the node's when `None`.
    pub listen: Option<BTreeSet<IpNet>>,
    /// Networks that clients may come from; any when `None`.
    pub sources: Option<BTreeSet<IpNet>>,
    /// Whether the client's address alone decides on the task.
    pub affinity: bool,
    /// How long a flow without a packet is remembered.
    pub idle: Idle,
}

/// Whether a node answers its clients on a published port. Flows that other nodes send here are served in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answering {
    /// It does.
    Yes,
    /// The service does not want it to.
    NotWanted,
    /// A process of the node listens there.
    Taken,
}

/// How long a flow without a packet is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idle {
    /// As long as is usual for its protocol.
    Default,
    /// So long, to about a second, at most 18 hours.
    After(Duration),
    /// Not at all: every datagram is a flow of its own.
    AtOnce,
}

/// Who serves new flows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The tasks that take new flows. Those that are to stop are among them only while nobody else is ready.
    pub ready: Vec<EndpointKey>,
    /// The Maglev table: indexes into `ready`. Empty when there is nobody.
    pub slots: Vec<u32>,
}

/// Where a backend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind a veth pair of this node.
    Here {
        /// The host's side.
        ifindex: u32,
        /// The task's hardware address.
        mac: [u8; 6],
        /// Whether its kernel has IPv6: who asks by IPv6 one that has none is refused.
        ipv6: bool,
    },
    /// On the node with this underlay address.
    There(IpAddr),
}

/// Whether a backend takes flows. One that is not in the tables at all is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendState {
    /// It does not listen yet.
    Starting,
    /// New ones too.
    Ready,
    /// Those that it has.
    Draining,
}

/// A service's own address on a network: all of its ports are those of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The network's number: only its tasks may ask.
    pub network: u32,
    /// How the network's IPv6 addresses begin.
    pub prefix6: Prefix6,
    /// The tasks behind it.
    pub group: GroupKey,
}

/// A task on one of its networks: behind published ports, of this node, or on a network that tasks of this node are on too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The task's address on the network.
    pub addr: Ipv4Addr,
    /// The network's number: tasks of the same network talk to each other. 0 for the routing mesh's own, where they do not.
    pub network: u32,
    /// How the network's IPv6 addresses begin.
    pub prefix6: Prefix6,
    /// Whether it may talk to the world outside; only said of tasks of this node.
    pub egress: bool,
    /// Where it runs.
    pub place: Place,
    /// Whether it takes flows.
    pub state: BackendState,
}

/// Whose address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOwner {
    /// This node's: everybody may ask by it.
    Own,
    /// Another member's: tasks of this node may ask by it, without a detour through that member.
    Member,
}

/// How the node sends something to a part of the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Through which device.
    pub device: u32,
    /// How many bytes a packet may have there.
    pub mtu: u16,
    /// By which address of the node: tasks go out by it too.
    pub source: IpAddr,
}

/// Which program a device gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Clients from outside.
    Uplink,
    /// Clients from outside, through a device that carries packets without Ethernet frames.
    Tunnel,
    /// Clients on the node itself.
    Loopback,
    /// Tasks.
    Task,
    /// Other nodes.
    Overlay,
}

/// Facts about the node that every packet may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    /// Source of overlay packets.
    pub underlay: IpAddr,
    /// The device of that address; 0 when there is none.
    pub uplink: u32,
    /// Stands for clients that no task could answer.
    pub overlay: Ipv4Addr,
    /// Index of `lo`.
    pub loopback: u32,
    /// Index of the VXLAN device.
    pub overlay_ifindex: u32,
    /// What fits into one overlay packet, in bytes.
    pub overlay_mtu: u16,
    /// Where overlay packets go to.
    pub overlay_port: u16,
    /// Whether this node answers clients of other nodes itself, and lets others answer its own.
    pub reply_direct: bool,
}

/// Everything that the data plane looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// About the node.
    pub node: NodeFacts,
    /// Addresses that frontends answer on.
    pub addresses: BTreeMap<IpAddr, AddressOwner>,
    /// Members' underlay addresses: overlay packets from others are dropped.
    pub members: BTreeSet<IpAddr>,
    /// Those of them whose clients this node has proved able to answer itself.
    pub direct: BTreeSet<IpAddr>,
    /// Those of them to whom overlay packets leave straight by an uplink, and from whom they are taken there, without the VXLAN device; and that
    /// uplink.
    pub straight: BTreeMap<IpAddr, u32>,
    /// Published ports.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// The tasks behind them.
    pub groups: BTreeMap<GroupKey, Group>,
    /// Services' own addresses on the networks that tasks of this node are on.
    pub vips: BTreeMap<Ipv4Addr, Vip>,
    /// The tasks behind all of these, all of the node's own, and all that those may talk to.
    pub backends: BTreeMap<EndpointKey, Backend>,
    /// The numbers of all of the swarm's networks: nothing for an address of theirs leaves by an uplink.
    pub subnets: BTreeMap<IpNet, u32>,
    /// The node's routes to the world outside.
    pub ways: BTreeMap<IpNet, Way>,
    /// Devices and their programs.
    pub hooks: BTreeMap<u32, Hook>,
}
