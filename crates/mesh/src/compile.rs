//! The compiler from the swarm's words to what the data plane looks up. Pure: the same [`Desired`] always gives the same [`Tables`].

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::net::IpAddr;

use ipnet::IpNet;
use skep_model::{
    Balance, EndpointKey, EndpointState, ListenOn, NetworkId, NodeId, PortOptions, Prefix6, PublishMode,
    PublishOptions, PublishedPort, ServiceEntry, ServiceId, mesh_ipv6,
};

use crate::desired::{Desired, LocalTask, LocatedEndpoint, Network, NetworkKind};
use crate::maglev::{self, Candidate};
use crate::table::{
    AddressOwner, Answering, Backend, BackendState, Frontend, FrontendKey, Group, GroupKey, Hook, Idle, NodeFacts,
    Place, Tables, Vip,
};

/// Compiles. Endpoints of members that are not alive, and records of the node's own tasks that do not run, are left out. Where
/// a port is published in both modes, the node's own task comes before the mesh; where two services claim one port, the one with
/// the smaller id has it, and of two tasks that claim one in host mode the one with the smaller id says what it is like. Of networks that no
/// task of the node is on, only the addresses are known.
#[must_use]
pub fn compile(desired: &Desired) -> Tables {
    let others = || desired.members.iter().filter(|m| m.node != desired.node.id);
    let networks = Networks::of(desired);
    let mut tables = Tables {
        node: node(desired),
        addresses: addresses(desired),
        members: others().map(|m| m.underlay).collect(),
        direct: desired.node.direct.clone(),
        straight: straight(desired),
        frontends: BTreeMap::new(),
        groups: BTreeMap::new(),
        vips: BTreeMap::new(),
        backends: desired.local_tasks.iter().flat_map(|task| networks.here(task)).collect(),
        subnets: subnets(desired),
        ways: desired.devices.ways.clone(),
        hooks: hooks(desired),
    };
    host_mode(desired, &mut tables);
    let nodes = others().filter(|m| m.alive).map(|m| (&m.node, m.underlay)).collect();
    let admitted = tables.admit_all(desired, &nodes, &networks);
    ingress_mode(desired, &networks, &admitted, &mut tables);
    own_addresses(desired, &networks, &admitted, &mut tables);
    tables
}

/// The number that endpoints have on the network that all tasks are on.
const HOME: u32 = 0;

/// The swarm's networks, as a node's tasks are on them.
struct Networks<'a> {
    ingress: Option<&'a NetworkId>,
    /// The others.
    overlays: BTreeMap<&'a NetworkId, &'a Network>,
    /// Those of them that tasks of the node are on.
    near: BTreeSet<&'a NetworkId>,
}

impl<'a> Networks<'a> {
    fn of(desired: &'a Desired) -> Self {
        let overlays: BTreeMap<_, _> = (desired.networks.iter())
            .filter(|network| !matches!(network.kind, NetworkKind::Ingress | NetworkKind::Retired))
            .map(|network| (&network.id, network))
            .collect();
        let on = desired.local_tasks.iter().flat_map(|task| &task.networks).map(|(network, _)| network);
        Self {
            ingress: desired.ingress(),
            near: on.filter(|network| overlays.contains_key(network)).collect(),
            overlays,
        }
    }

    /// Its number as endpoints have it; nothing when they are not to be known.
    fn number(&self, network: &NetworkId) -> Option<u32> {
        if self.ingress == Some(network) {
            return Some(HOME);
        }
        self.near.get(network).and_then(|network| self.overlays.get(network)).map(|network| network.number)
    }

    /// How its IPv6 addresses begin.
    fn prefix6(&self, network: &NetworkId) -> Prefix6 {
        self.overlays.get(network).map_or(Prefix6::MESH, |network| network.prefix6())
    }

    /// A task of the node is a backend on each of its networks.
    fn here(&self, task: &LocalTask) -> Vec<(EndpointKey, Backend)> {
        let place = Place::Here { ifindex: task.host_ifindex, mac: task.mac, ipv6: task.ipv6 };
        let open =
            |(network, _): &(NetworkId, _)| self.overlays.get(network).is_some_and(|n| n.kind == NetworkKind::Open);
        let egress = task.networks.is_empty() || task.networks.iter().any(open);
        let home = std::iter::once((&task.home, task.addr, Some(HOME)));
        let others = task.networks.iter().map(|(network, addr)| (network, *addr, self.number(network)));
        let backend = |(network, addr, number): (&NetworkId, _, Option<u32>)| {
            let key = EndpointKey { network: network.clone(), task: task.task.clone() };
            let prefix6 = self.prefix6(network);
            Some((key, Backend { addr, network: number?, prefix6, egress, place, state: state(task.state) }))
        };
        home.chain(others).filter_map(backend).collect()
    }
}

/// The addresses of all networks, those that only go with others too.
fn subnets(desired: &Desired) -> BTreeMap<IpNet, u32> {
    let of = |n: &Network| [Some(IpNet::from(n.subnet)), n.subnet6.map(IpNet::from)].map(|net| Some((net?, n.number)));
    let mesh = (IpNet::from(Prefix6::MESH.all()), 0);
    desired.networks.iter().flat_map(of).flatten().chain([mesh]).collect()
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
        overlay_port: devices.overlay_port,
        reply_direct: node.reply_direct,
    }
}

/// What VXLAN puts before a packet over IPv4, in bytes.
const WRAPPING: u16 = 50;

/// Members that a plain route leads to, by a device that carries the whole of an overlay packet.
fn straight(desired: &Desired) -> BTreeMap<IpAddr, u32> {
    let devices = &desired.devices;
    if devices.ipsec || desired.node.underlay.is_ipv6() {
        return BTreeMap::new();
    }
    let mut lengths: Vec<u8> =
        devices.ways.keys().filter_map(|to| to.addr().is_ipv4().then_some(to.prefix_len())).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    let way = |member: IpAddr| {
        let nets = lengths.iter().filter_map(|&length| IpNet::new(member, length).ok());
        nets.into_iter().find_map(|net| devices.ways.get(&net.trunc()))
    };
    let others = desired.members.iter().filter(|m| m.node != desired.node.id && m.underlay.is_ipv4());
    let whole = devices.overlay_mtu.saturating_add(WRAPPING);
    others.filter_map(|m| Some((m.underlay, way(m.underlay).filter(|way| way.mtu >= whole)?.device))).collect()
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
    let mut members: BTreeMap<GroupKey, Weights> = BTreeMap::new();
    let mut tasks: Vec<_> = desired.local_tasks.iter().collect();
    tasks.sort_by_key(|task| &task.task);
    for task in tasks {
        for port in &task.host_ports {
            let key = frontend_key(port);
            let group = GroupKey::Host(key);
            let endpoint = EndpointKey { network: task.home.clone(), task: task.task.clone() };
            members.entry(group.clone()).or_default().insert(endpoint, 1);
            let found = task.host_options.iter().find(|o| (o.protocol, o.published) == (port.protocol, port.published));
            let offer = Offer { port, options: found, service: None, group };
            tables.frontends.entry(key).or_insert_with(|| offer.frontend(desired));
        }
    }
    for (group, members) in members {
        tables.share(group, Some(&members));
    }
}

/// Members of a group and their shares of it.
type Weights = BTreeMap<EndpointKey, u32>;

/// Who may be given flows of a service on a network.
type Admitted<'a> = BTreeMap<(&'a ServiceId, &'a NetworkId), Weights>;

fn ingress_mode(desired: &Desired, networks: &Networks<'_>, admitted: &Admitted<'_>, tables: &mut Tables) {
    let mut services: Vec<_> = desired.services.iter().collect();
    services.sort_by_key(|s| &s.id);
    for service in services {
        let members = networks.ingress.and_then(|ingress| admitted.get(&(&service.id, ingress)));
        for group in ingress_ports(desired, service, tables) {
            tables.share(group, members);
        }
    }
}

/// Services' own addresses, where there is a task that may ask them.
fn own_addresses(desired: &Desired, networks: &Networks<'_>, admitted: &Admitted<'_>, tables: &mut Tables) {
    for service in &desired.services {
        for vip in service.virtual_ips.iter().filter(|vip| networks.near.contains(&vip.network)) {
            let Some(network) = networks.number(&vip.network) else { continue };
            let group = GroupKey::Vip(service.id.clone(), vip.network.clone());
            let prefix6 = networks.prefix6(&vip.network);
            tables.vips.insert(vip.addr.addr(), Vip { network, prefix6, group: group.clone() });
            tables.share(group, admitted.get(&(&service.id, &vip.network)));
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
    /// Makes backends of the endpoints that anything of this node may be sent to. Returns those that flows may be given to.
    fn admit_all<'a>(
        &mut self,
        desired: &'a Desired,
        nodes: &BTreeMap<&NodeId, IpAddr>,
        networks: &Networks<'_>,
    ) -> Admitted<'a> {
        let published: BTreeSet<_> = (desired.services.iter())
            .filter(|service| service.ports.iter().any(|port| port.mode == PublishMode::Ingress))
            .map(|service| &service.id)
            .collect();
        let mut admitted = Admitted::new();
        for endpoint in &desired.endpoints {
            let (network, service) = (&endpoint.key.network, &endpoint.record.service);
            let Some(number) = networks.number(network).filter(|n| *n != HOME || published.contains(service)) else {
                continue;
            };
            let on = (number, networks.prefix6(network));
            if self.admit(endpoint, on, &desired.node.id, nodes) {
                let weights = admitted.entry((service, network)).or_default();
                weights.insert(endpoint.key.clone(), endpoint.record.weight);
            }
        }
        admitted
    }

    /// Makes an endpoint a backend. Returns whether it is one: the node's own tasks are by their own word alone. On the routing mesh's network
    /// nobody needs to know one that does not serve yet; on others it may talk already.
    fn admit(
        &mut self,
        endpoint: &LocatedEndpoint,
        (network, prefix6): (u32, Prefix6),
        own: &NodeId,
        nodes: &BTreeMap<&NodeId, IpAddr>,
    ) -> bool {
        let key = &endpoint.key;
        if endpoint.owner == *own {
            return self.backends.contains_key(key);
        }
        let Some(&underlay) = nodes.get(&endpoint.owner) else { return false };
        let state = state(endpoint.record.state);
        if state == BackendState::Starting && network == HOME {
            return false;
        }
        let place = Place::There(underlay);
        let backend = Backend { addr: endpoint.record.addr, network, prefix6, egress: false, place, state };
        // A task that runs here is not elsewhere, whatever an old record says.
        self.backends.entry(key.clone()).or_insert(backend);
        true
    }

    /// Shares new flows of a group among its members by their weights: among those that are ready, and while there is none, among those
    /// that still run.
    fn share(&mut self, group: GroupKey, members: Option<&Weights>) {
        let local_first = matches!(group, GroupKey::Service(_, true));
        let of = |state: BackendState, local: bool| -> Vec<(&EndpointKey, u32)> {
            let fits = |endpoint: &EndpointKey| {
                let backend = self.backends.get(endpoint)?;
                let here = matches!(backend.place, Place::Here { .. });
                (backend.state == state && (here || !local)).then_some(())
            };
            let members = members.into_iter().flatten();
            let members = members.filter(|(endpoint, weight)| **weight > 0 && fits(endpoint).is_some());
            members.map(|(endpoint, weight)| (endpoint, *weight)).collect()
        };
        let choices =
            [(BackendState::Ready, local_first), (BackendState::Ready, false), (BackendState::Draining, false)];
        let chosen = choices.iter().map(|&(state, local)| of(state, local)).find(|chosen| !chosen.is_empty());
        let chosen = chosen.unwrap_or_default();
        let candidates: Vec<_> =
            chosen.iter().map(|(key, weight)| Candidate { name: key.task.as_str(), weight: *weight }).collect();
        let slots = maglev::table(&candidates);
        let ready = chosen.into_iter().map(|(endpoint, _)| endpoint.clone()).collect();
        self.groups.insert(group, Group { ready, slots });
    }
}

#[cfg(test)]
mod tests;
