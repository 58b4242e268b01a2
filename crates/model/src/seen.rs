//! What can be seen of a node's routing mesh: what it answers on, who is behind it, what it has counted. Made by the node for people and
//! for metrics. As JSON these types are skep's own node-local API, `/skep/v1/mesh…`: a member may be added in v1, none is renamed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::{Balance, ListenOn, NodeId, Protocol, PublishMode, ServiceId, TaskId, TaskState, Timestamp};

/// Everything, at one moment. Counters are since the thing that they count became known, and outlive the daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MeshReport {
    /// The node's clock.
    pub at: Timestamp,
    /// The node that says so.
    pub node: SeenNode,
    /// Published ports, in the order of their numbers.
    pub ports: Vec<SeenPort>,
    /// The tasks that the node was given, running or not.
    pub tasks: Vec<SeenTask>,
    /// Packets that were not passed on, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Things that happened to flows, by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// How full the data plane's maps are.
    pub maps: Vec<SeenMap>,
    /// How new what the node knows of the swarm is.
    pub tables: Vec<SeenTable>,
    /// Members of the swarm that are believed to be alive, this node among them.
    pub members_alive: u64,
    /// Members that are not.
    pub members_down: u64,
    /// Questions for names that the node's resolvers were asked since its daemon started.
    pub questions: Vec<SeenQuestions>,
}

/// Questions for names, of one kind and with one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenQuestions {
    /// What was asked for: `A`, `AAAA`, `PTR`, `SRV` or `other`.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// What became of them: `records`, `nodata`, `nxdomain`, `forwarded`, `failed` or `refused`.
    pub answer: &'static str,
    /// How many there were.
    pub count: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenNode {
    /// Its identity.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// For people.
    pub hostname: String,
    /// Where overlay packets for it go; `None` when nobody has told.
    pub underlay: Option<IpAddr>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenService {
    /// Its identity.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Its name.
    pub name: String,
}

/// A published port as this node has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port that clients ask.
    pub published: u16,
    /// The port that tasks listen on.
    pub target: u16,
    /// Who answers.
    pub mode: PublishMode,
    /// Whose port it is.
    pub service: SeenService,
    /// What this node does with it.
    pub state: PortState,
    /// How new flows are given to tasks.
    pub balance: Balance,
    /// Whether all flows of a client address go to the same task.
    pub client_affinity: bool,
    /// Addresses, networks or devices that it answers on; all when empty.
    #[serde(serialize_with = "as_texts")]
    pub listen: Vec<ListenOn>,
    /// Networks that clients may come from; any when empty.
    pub sources: Vec<IpNet>,
    /// The tasks behind it, those that take no flows among them.
    pub backends: Vec<SeenBackend>,
    /// Flows that are known here and not closed; `None` when that cannot be known.
    pub open_flows: Option<u64>,
    /// Counted on this node, for clients that asked it.
    pub traffic: SeenTraffic,
}

fn as_texts<S: Serializer>(listen: &[ListenOn], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(listen.iter().map(ListenOn::to_string))
}

/// What a node does with a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// It gives new flows to tasks.
    Serving,
    /// It refuses new flows: no task is ready, nor does one that is to stop still run.
    NobodyReady,
    /// A process of the node listens on it and keeps it; the other nodes answer.
    Held,
    /// The service's options say that other nodes answer, not this one.
    Elsewhere,
}

impl PortState {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NobodyReady => "nobody ready",
            Self::Held => "held by another process",
            Self::Elsewhere => "other nodes answer",
        }
    }
}

/// A task behind a published port.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenBackend {
    /// The task.
    pub task: TaskId,
    /// Where it runs.
    pub node: SeenNode,
    /// Its address in the mesh.
    pub addr: Ipv4Addr,
    /// Whether it takes flows: `starting`, `ready` or `draining`.
    pub state: BackendState,
    /// Its share of new flows on this node, 0 to 1.
    pub share: f64,
    /// Flows that are known here and not closed; `None` when that cannot be known.
    pub open_flows: Option<u64>,
    /// Counted on this node, for clients that asked it.
    pub traffic: SeenTraffic,
}

/// Whether a task takes flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// Not yet.
    Starting,
    /// New ones too.
    Ready,
    /// Those that it has.
    Draining,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Ready, Self::Draining];

    /// For people and for metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// A task of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenTask {
    /// The task.
    pub task: TaskId,
    /// What it is a task of.
    pub service: SeenService,
    /// How far it is.
    #[serde(serialize_with = "state_name")]
    pub state: TaskState,
    /// Counted at the task, whichever node was asked.
    pub traffic: SeenTraffic,
}

fn state_name<S: Serializer>(state: &TaskState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

/// Flows, packets and bytes (of IP packets). *In* is from clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenTraffic {
    /// Flows that were opened.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// How full a map of the data plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenMap {
    /// Its name.
    pub map: String,
    /// Entries in it.
    pub used: u64,
    /// Entries that fit.
    pub room: u64,
}

/// How new a table is that nodes hold copies of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenTable {
    /// Which one: `services`, `endpoints`, on managers also `store`.
    pub table: &'static str,
    /// The newest version in it.
    pub version: u64,
    /// A number that is the same on nodes that know the same, and else is not (48 bits); `None` for a table that is not compared.
    pub fingerprint: Option<u64>,
}

/// A flow that the node remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SeenFlow {
    /// Its protocol.
    pub protocol: Protocol,
    /// Who asked.
    pub client: SocketAddr,
    /// The address and published port that were asked.
    pub asked: SocketAddr,
    /// The service that it belongs to; `None` when that is gone.
    pub service: Option<SeenService>,
    /// The task that has it; `None` when that is gone.
    pub task: Option<TaskId>,
    /// The node of the task.
    pub node: Option<SeenNode>,
    /// What this node does for it.
    pub role: FlowRole,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet; in JSON whole nanoseconds.
    #[serde(serialize_with = "nanoseconds")]
    pub idle: Duration,
}

fn nanoseconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// What a node does for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowRole {
    /// The client asked this node.
    Asked,
    /// Another node was asked, and a task of this one has the flow.
    Served,
}

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// Not answered yet.
    Opening,
    /// Answered.
    Open,
    /// One side has ended it.
    Closing,
    /// Both have, or it was reset.
    Closed,
}

impl FlowState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Opening, Self::Open, Self::Closing, Self::Closed];

    /// For people and for filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// Which flows are wanted: those for which all that is said is true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowFilter {
    /// The published port.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// The client's network; a single address is a network of one.
    pub client: Option<IpNet>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// What the task's identifier begins with.
    pub task: Option<String>,
    /// The service's name, or what its identifier begins with.
    pub service: Option<String>,
    /// How far it has come.
    pub state: Option<FlowState>,
    /// No more than so many; the rest is counted only.
    pub limit: usize,
}

/// Flows, those that had a packet most recently first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FlowList {
    /// Flows that the node remembers.
    pub known: u64,
    /// Those that were asked for.
    pub matched: u64,
    /// The first of those.
    pub flows: Vec<SeenFlow>,
}

/// What would become of a connection?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceQuestion {
    /// The protocol.
    pub protocol: Protocol,
    /// The published port.
    pub port: u16,
    /// The client; without it, it can only be said who is in question.
    pub from: Option<SocketAddr>,
    /// The address of the node that the client asks; without it, any.
    pub to: Option<IpAddr>,
}

/// What would become of a connection to this node, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TraceReport {
    /// The node that was asked.
    pub node: SeenNode,
    /// The protocol.
    pub protocol: Protocol,
    /// The published port.
    pub port: u16,
    /// The client.
    pub from: Option<SocketAddr>,
    /// The address that the client asks.
    pub to: Option<IpAddr>,
    /// What each table says, in the order in which they are asked. After one that ends it no further one is asked.
    pub steps: Vec<TraceStep>,
    /// The outcome, in a sentence.
    pub verdict: String,
    /// The task that would get the connection; `None` when nobody would, or no client was named.
    pub backend: Option<SeenBackend>,
}

/// What one table says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TraceStep {
    /// Which table.
    pub table: &'static str,
    /// What it says.
    pub says: String,
    /// Whether the packet goes on from here to the next table.
    pub passes: bool,
}
