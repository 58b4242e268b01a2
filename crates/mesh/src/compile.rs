//! The compiler from the swarm's words to what the data plane looks up. Pure: the same [`Desired`] always gives the same [`Tables`].

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::net::IpAddr;

use ipnet::IpNet;
use skep_model::{
    Balance, EndpointState, ListenOn, NodeId, PortOptions, PublishMode, PublishOptions, PublishedPort, ServiceEntry,
    ServiceId, TaskId, mesh_ipv6,
};

use crate::desired::{Desired, LocalTask, LocatedEndpoint};
use crate::maglev::{self, Candidate};
use crate::table::{
    AddressOwner, Answering, Backend, BackendState, Frontend, FrontendKey, Group, GroupKey, Hook, Idle, NodeFacts,
    Place, Tables,
};

/// Compiles. Endpoints of members that are not alive, and records of the node's own tasks that do not run, are left out. Where
/// a port is published in both modes, the node's own task comes before the mesh; where two services claim one port, the one with
/// the smaller id has it, and of two tasks that claim one in host mode the one with the smaller id says what it is like.
#[must_use]
pub fn compile(desired: &Desired) -> Tables {
    let others = || desired.members.iter().filter(|m| m.node != desired.node.id);
    let mut tables = Tables {
        node: node(desired),
        addresses: addresses(desired),
        members: others().map(|m| m.underlay).collect(),
        direct: desired.node.direct.clone(),
        frontends: BTreeMap::new(),
        groups: BTreeMap::new(),
        backends: desired.local_tasks.iter().map(|task| (task.task.clone(), here(task))).collect(),
        hooks: hooks(desired),
    };
    host_mode(desired, &mut tables);
    let nodes = others().filter(|m| m.alive).map(|m| (&m.node, m.underlay)).collect();
    ingress_mode(desired, &nodes, &mut tables);
    tables
}

fn node(desired: &Desired) -> NodeFacts {
    let (node, devices) = (&desired.node, &desired.devices);
    NodeFacts {
        underlay: node.underlay,
        uplink: devices.underlay.unwrap_or(0),
        overlay: node.overlay,
        loopback: devices.loopback,
        overlay_ifindex: devices.overlay,
        overlay_mtu: devices.overlay_mtu,
        reply_direct: node.reply_direct,
    }
}

fn addresses(desired: &Desired) -> BTreeMap<IpAddr, AddressOwner> {
    let node = &desired.node;
    let both = |overlay| [IpAddr::V4(overlay), IpAddr::V6(mesh_ipv6(overlay))];
    let members = desired.members.iter().flat_map(|m| [m.underlay].into_iter().chain(both(m.overlay)));
    let members = members.chain(desired.member_addresses.iter().copied());
    let own = node.addresses.keys().copied().chain([node.underlay]).chain(both(node.overlay));
    members.map(|a| (a, AddressOwner::Member)).chain(own.map(|a| (a, AddressOwner::Own))).collect()
}

fn hooks(desired: &Desired) -> BTreeMap<u32, Hook> {
    let devices = &desired.devices;
    let uplinks = devices.uplinks.iter().map(|&i| (i, Hook::Uplink));
    let tunnels = devices.tunnels.iter().map(|&i| (i, Hook::Tunnel));
    let tasks = desired.local_tasks.iter().map(|t| (t.host_ifindex, Hook::Task));
    let fixed = [(devices.loopback, Hook::Loopback), (devices.overlay, Hook::Overlay)];
    uplinks.chain(tunnels).chain(tasks).chain(fixed).collect()
}

fn here(task: &LocalTask) -> Backend {
    let place = Place::Here { ifindex: task.host_ifindex, mac: task.mac, ipv6: task.ipv6 };
    Backend { addr: task.addr, place, state: state(task.state) }
}

fn state(state: EndpointState) -> BackendState {
    match state {
        EndpointState::Starting => BackendState::Starting,
        EndpointState::Ready => BackendState::Ready,
        EndpointState::Draining => BackendState::Draining,
    }
}

fn frontend_key(port: &PublishedPort) -> FrontendKey {
    FrontendKey { protocol: port.protocol, port: port.published.get() }
}

fn host_mode(desired: &Desired, tables: &mut Tables) {
    let mut members: BTreeMap<GroupKey, BTreeMap<TaskId, u32>> = BTreeMap::new();
    let mut tasks: Vec<_> = desired.local_tasks.iter().collect();
    tasks.sort_by_key(|task| &task.task);
    for task in tasks {
        for port in &task.host_ports {
            let key = frontend_key(port);
            let group = GroupKey::Host(key);
            members.entry(group.clone()).or_default().insert(task.task.clone(), 1);
            let found = task.host_options.iter().find(|o| (o.protocol, o.published) == (port.protocol, port.published));
            let offer = Offer { port, options: found, service: None, group };
            tables.frontends.entry(key).or_insert_with(|| offer.frontend(desired));
        }
    }
    for (group, members) in members {
        tables.share(group, &members);
    }
}

fn ingress_mode(desired: &Desired, nodes: &BTreeMap<&NodeId, IpAddr>, tables: &mut Tables) {
    let mut services: Vec<_> = desired.services.iter().collect();
    services.sort_by_key(|s| &s.id);
    let mut endpoints: BTreeMap<&ServiceId, Vec<&LocatedEndpoint>> = BTreeMap::new();
    for endpoint in &desired.endpoints {
        endpoints.entry(&endpoint.record.service).or_default().push(endpoint);
    }
    for service in services {
        let groups = ingress_ports(desired, service, tables);
        if groups.is_empty() {
            continue;
        }
        let mut weights = BTreeMap::new();
        for endpoint in endpoints.get(&service.id).into_iter().flatten() {
            if tables.admit(endpoint, &desired.node.id, nodes) {
                weights.insert(endpoint.key.task.clone(), endpoint.record.weight);
            }
        }
        for group in groups {
            tables.share(group, &weights);
        }
    }
}

/// Installs the service's ports; returns the groups behind them.
fn ingress_ports(desired: &Desired, service: &ServiceEntry, tables: &mut Tables) -> BTreeSet<GroupKey> {
    let options: BTreeMap<_, _> = service.options.iter().map(|o| ((o.protocol, o.published), o)).collect();
    let mut groups = BTreeSet::new();
    for port in service.ports.iter().filter(|p| p.mode == PublishMode::Ingress) {
        let Entry::Vacant(place) = tables.frontends.entry(frontend_key(port)) else { continue };
        let options = options.get(&(port.protocol, port.published)).copied();
        let local_first = options.is_some_and(|o| o.options.balance == Balance::LocalFirst);
        let group = GroupKey::Service(service.id.clone(), local_first);
        groups.insert(group.clone());
        place.insert(Offer { port, options, service: Some(&service.id), group }.frontend(desired));
    }
    groups
}

/// A port that is to be installed.
struct Offer<'a> {
    port: &'a PublishedPort,
    options: Option<&'a PortOptions>,
    service: Option<&'a ServiceId>,
    group: GroupKey,
}

impl Offer<'_> {
    fn frontend(self, desired: &Desired) -> Frontend {
        let found = self.options;
        let default = PublishOptions::default();
        let options = found.map_or(&default, |o| &o.options);
        let taken = desired.node.taken.contains(&(self.port.protocol, self.port.published.get()));
        let answering = match found {
            _ if taken => Answering::Taken,
            Some(found) if !found.answers => Answering::NotWanted,
            _ => Answering::Yes,
        };
        let listed = |nets: BTreeSet<IpNet>, wanted: bool| wanted.then_some(nets);
        let listen = options.listen.iter().flat_map(|on| networks(desired, on)).collect();
        Frontend {
            service: self.service.cloned(),
            mode: self.port.mode,
            group: self.group,
            target: self.port.target.get(),
            answering,
            listen: listed(listen, !options.listen.is_empty()),
            sources: listed(options.sources.iter().copied().collect(), !options.sources.is_empty()),
            affinity: options.client_affinity,
            idle: idle(options),
        }
    }
}

fn idle(options: &PublishOptions) -> Idle {
    match options.idle_timeout {
        _ if options.balance == Balance::Datagram => Idle::AtOnce,
        Some(time) => Idle::After(time),
        None => Idle::Default,
    }
}

fn networks(desired: &Desired, on: &ListenOn) -> Vec<IpNet> {
    match on {
        ListenOn::Net(net) => vec![*net],
        ListenOn::Interface(name) => {
            let own = desired.node.addresses.iter().filter(|(_, device)| *device == name);
            own.map(|(address, _)| IpNet::from(*address)).collect()
        }
    }
}

impl Tables {
    /// Makes an endpoint a backend. Returns whether it is one: the node's own tasks are by their own word alone.
    fn admit(&mut self, endpoint: &LocatedEndpoint, own: &NodeId, nodes: &BTreeMap<&NodeId, IpAddr>) -> bool {
        let task = &endpoint.key.task;
        if endpoint.owner == *own {
            return self.backends.contains_key(task);
        }
        let Some(&underlay) = nodes.get(&endpoint.owner) else { return false };
        let state = state(endpoint.record.state);
        if state == BackendState::Starting {
            return false;
        }
        let backend = Backend { addr: endpoint.record.addr, place: Place::There(underlay), state };
        // A task that runs here is not elsewhere, whatever an old record says.
        self.backends.entry(task.clone()).or_insert(backend);
        true
    }

    /// Shares new flows of a group among its members by their weights: among those that are ready, and while there is none, among those
    /// that still run.
    fn share(&mut self, group: GroupKey, members: &BTreeMap<TaskId, u32>) {
        let local_first = matches!(group, GroupKey::Service(_, true));
        let of = |state: BackendState, local: bool| -> Vec<(&TaskId, u32)> {
            let fits = |task: &TaskId| {
                let backend = self.backends.get(task)?;
                let here = matches!(backend.place, Place::Here { .. });
                (backend.state == state && (here || !local)).then_some(())
            };
            let members = members.iter().filter(|(task, weight)| **weight > 0 && fits(task).is_some());
            members.map(|(task, weight)| (task, *weight)).collect()
        };
        let choices =
            [(BackendState::Ready, local_first), (BackendState::Ready, false), (BackendState::Draining, false)];
        let chosen = choices.iter().map(|&(state, local)| of(state, local)).find(|chosen| !chosen.is_empty());
        let chosen = chosen.unwrap_or_default();
        let candidates: Vec<_> =
            chosen.iter().map(|(task, weight)| Candidate { name: task.as_str(), weight: *weight }).collect();
        let slots = maglev::table(&candidates);
        let ready = chosen.into_iter().map(|(task, _)| task.clone()).collect();
        self.groups.insert(group, Group { ready, slots });
    }
}

#[cfg(test)]
mod tests;
