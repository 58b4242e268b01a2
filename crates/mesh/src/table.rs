//! The compiler from the swarm's words to what the data plane looks up. Pure: the same [`Desired`] always gives the same [`Tables`].

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::net::{IpAddr, Ipv4Addr};

use skep_model::{EndpointState, NodeId, Protocol, PublishMode, PublishedPort, TaskId};

use crate::desired::{Desired, LocalTask, LocatedEndpoint};
use crate::maglev::{self, Candidate};

/// What a client asks for, on any address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The published port.
    pub port: u16,
}

/// Which backend: a task, as seen through one frontend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The frontend, or `None` for the task as other nodes send packets to it.
    pub frontend: Option<FrontendKey>,
    /// The task.
    pub task: TaskId,
}

/// A published port on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Who answers.
    pub mode: PublishMode,
    /// The tasks that take new flows.
    pub ready: Vec<TaskId>,
    /// The Maglev table: indexes into `ready`. Empty when nobody is ready.
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
    },
    /// On the node with this underlay address.
    There(Ipv4Addr),
}

/// Whether a backend takes flows. One that is not in the tables at all is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// New ones too.
    Ready,
    /// Those that it has.
    Draining,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The task's address.
    pub addr: Ipv4Addr,
    /// The task's port; 0 for the entry without a frontend, which keeps the packet's.
    pub port: u16,
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

/// Which program a device gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Clients from outside.
    Uplink,
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
    pub underlay: Ipv4Addr,
    /// Stands for clients that no task could answer.
    pub overlay: Ipv4Addr,
    /// Index of `lo`.
    pub loopback: u32,
    /// Index of the VXLAN device.
    pub overlay_ifindex: u32,
    /// What fits into one overlay packet, in bytes.
    pub overlay_mtu: u16,
}

/// Everything that the data plane looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// About the node.
    pub node: NodeFacts,
    /// Addresses that frontends answer on.
    pub addresses: BTreeMap<Ipv4Addr, AddressOwner>,
    /// Members' underlay addresses: overlay packets from others are dropped.
    pub members: BTreeSet<Ipv4Addr>,
    /// Published ports.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Backends of all frontends, and the node's own tasks.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Devices and their programs.
    pub hooks: BTreeMap<u32, Hook>,
}

/// Compiles. Endpoints of members that are not alive, and records of the node's own tasks that do not run, are left out. Where
/// a port is published in both modes, the node's own task comes before the mesh; where two services claim one port, the one with
/// the smaller id has it.
#[must_use]
pub fn compile(desired: &Desired) -> Tables {
    let nodes: BTreeMap<&NodeId, Ipv4Addr> = desired
        .members
        .iter()
        .filter(|m| m.alive && m.node != desired.node.id)
        .filter_map(|m| Some((&m.node, v4(m.underlay)?)))
        .collect();
    let mut tables = Tables {
        node: NodeFacts {
            underlay: v4(desired.node.underlay).unwrap_or(Ipv4Addr::UNSPECIFIED),
            overlay: desired.node.overlay,
            loopback: desired.devices.loopback,
            overlay_ifindex: desired.devices.overlay,
            overlay_mtu: desired.devices.overlay_mtu,
        },
        addresses: addresses(desired),
        members: desired.members.iter().filter(|m| m.node != desired.node.id).filter_map(|m| v4(m.underlay)).collect(),
        frontends: BTreeMap::new(),
        backends: BTreeMap::new(),
        hooks: hooks(desired),
    };
    for task in &desired.local_tasks {
        tables.backends.insert(BackendKey { frontend: None, task: task.task.clone() }, here(task, 0));
    }
    host_mode(desired, &mut tables);
    ingress_mode(desired, &nodes, &mut tables);
    tables
}

fn addresses(desired: &Desired) -> BTreeMap<Ipv4Addr, AddressOwner> {
    let members = desired.members.iter().flat_map(|m| [v4(m.underlay), Some(m.overlay)]);
    let own = desired.node.addresses.keys().map(|a| v4(*a));
    let own = own.chain([v4(desired.node.underlay), Some(desired.node.overlay)]);
    let members = members.flatten().map(|a| (a, AddressOwner::Member));
    members.chain(own.flatten().map(|a| (a, AddressOwner::Own))).collect()
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn hooks(desired: &Desired) -> BTreeMap<u32, Hook> {
    let devices = &desired.devices;
    let uplinks = devices.uplinks.iter().map(|&i| (i, Hook::Uplink));
    let tasks = desired.local_tasks.iter().map(|t| (t.host_ifindex, Hook::Task));
    let fixed = [(devices.loopback, Hook::Loopback), (devices.overlay, Hook::Overlay)];
    uplinks.chain(tasks).chain(fixed).collect()
}

fn here(task: &LocalTask, port: u16) -> Backend {
    let state = if task.state == EndpointState::Ready { BackendState::Ready } else { BackendState::Draining };
    Backend { addr: task.addr, port, place: Place::Here { ifindex: task.host_ifindex, mac: task.mac }, state }
}

/// What can be published now; the vocabulary knows more protocols than the data plane.
fn frontend_key(port: &PublishedPort) -> Option<FrontendKey> {
    let carried = matches!(port.protocol, Protocol::Tcp | Protocol::Udp);
    carried.then(|| FrontendKey { protocol: port.protocol, port: port.published.get() })
}

fn host_mode(desired: &Desired, tables: &mut Tables) {
    let mut frontends: BTreeMap<FrontendKey, BTreeMap<TaskId, Offer>> = BTreeMap::new();
    for task in &desired.local_tasks {
        for port in &task.host_ports {
            let Some(key) = frontend_key(port) else { continue };
            let offer = Offer { backend: here(task, port.target.get()), weight: 1 };
            frontends.entry(key).or_default().insert(task.task.clone(), offer);
        }
    }
    for (key, offers) in frontends {
        tables.install(key, PublishMode::Host, offers);
    }
}

fn ingress_mode(desired: &Desired, nodes: &BTreeMap<&NodeId, Ipv4Addr>, tables: &mut Tables) {
    let mut services: Vec<_> = desired.services.iter().collect();
    services.sort_by_key(|s| &s.id);
    let locals: BTreeMap<&TaskId, &LocalTask> = desired.local_tasks.iter().map(|t| (&t.task, t)).collect();
    for service in services {
        for port in service.ports.iter().filter(|p| p.mode == PublishMode::Ingress) {
            let Some(key) = frontend_key(port) else { continue };
            if tables.frontends.contains_key(&key) {
                continue;
            }
            let endpoints = desired.endpoints.iter().filter(|e| e.record.service == service.id);
            let offers = endpoints.filter_map(|e| {
                let backend = backend(e, port.target.get(), &desired.node.id, nodes, &locals)?;
                Some((e.key.task.clone(), Offer { backend, weight: e.record.weight }))
            });
            tables.install(key, PublishMode::Ingress, offers.collect());
        }
    }
}

fn backend(
    endpoint: &LocatedEndpoint,
    port: u16,
    own: &NodeId,
    nodes: &BTreeMap<&NodeId, Ipv4Addr>,
    locals: &BTreeMap<&TaskId, &LocalTask>,
) -> Option<Backend> {
    if endpoint.owner == *own {
        return locals.get(&endpoint.key.task).map(|task| here(task, port));
    }
    let place = Place::There(*nodes.get(&endpoint.owner)?);
    let state = match endpoint.record.state {
        EndpointState::Ready => BackendState::Ready,
        EndpointState::Draining => BackendState::Draining,
        EndpointState::Starting => return None,
    };
    Some(Backend { addr: endpoint.record.addr, port, place, state })
}

struct Offer {
    backend: Backend,
    weight: u32,
}

impl Tables {
    fn install(&mut self, key: FrontendKey, mode: PublishMode, offers: BTreeMap<TaskId, Offer>) {
        let Entry::Vacant(place) = self.frontends.entry(key) else { return };
        let ready = |(task, offer): (&TaskId, &Offer)| {
            (offer.backend.state == BackendState::Ready && offer.weight > 0).then(|| (task.clone(), offer.weight))
        };
        let (ready, weights): (Vec<TaskId>, Vec<u32>) = offers.iter().filter_map(ready).unzip();
        let candidates = ready.iter().zip(weights).map(|(task, weight)| Candidate { name: task.as_str(), weight });
        let slots = maglev::table(&candidates.collect::<Vec<_>>());
        place.insert(Frontend { mode, ready, slots });
        for (task, offer) in offers {
            self.backends.insert(BackendKey { frontend: Some(key), task }, offer.backend);
        }
    }
}

#[cfg(test)]
mod tests;
