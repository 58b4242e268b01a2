//! A node's mesh at one moment. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use skep_mesh::{Counters, Desired, DropReason, Event, FrontendKey, LocatedEndpoint, Traffic, Usage};
use skep_model::seen::{
    BackendState, MeshReport, PortState, SeenBackend, SeenMap, SeenNode, SeenPort, SeenService, SeenTable, SeenTask,
    SeenTraffic,
};
use skep_model::{
    Balance, EndpointState, Member, NodeId, PortOptions, PublishMode, PublishOptions, PublishedPort, ServiceId, TaskId,
    TaskState, Timestamp,
};
use skep_netdb::Endpoints;

use super::census::Census;
use crate::Assignments;

/// What a report is made of.
pub(super) struct Seen<'a> {
    pub(super) now: Timestamp,
    pub(super) desired: &'a Desired,
    pub(super) assignments: &'a Assignments,
    pub(super) statuses: &'a BTreeMap<TaskId, TaskState>,
    /// All endpoints that are known, those of other networks too.
    pub(super) endpoints: &'a Endpoints,
    /// At which version each node's endpoints are known.
    pub(super) versions: &'a BTreeMap<NodeId, u64>,
    pub(super) counters: &'a Counters,
    pub(super) usage: &'a [Usage],
    pub(super) census: &'a Census,
}

/// Makes the report.
pub(super) fn report(seen: &Seen<'_>) -> MeshReport {
    let own = &seen.desired.node.id;
    let nodes = nodes(seen.desired);
    let is_up = |member: &Member| member.alive && !member.away;
    let (up, down): (Vec<_>, Vec<_>) = seen.desired.members.iter().filter(|m| m.node != *own).partition(|m| is_up(m));
    let [others, down] = [up.len() as u64, down.len() as u64];
    MeshReport {
        at: seen.now,
        node: node(&nodes, own),
        ports: ports(seen, &nodes),
        tasks: tasks(seen),
        drops: DropReason::ALL.iter().map(|r| (r.as_str(), count(&seen.counters.drops, r))).collect(),
        events: Event::ALL.iter().map(|e| (e.as_str(), count(&seen.counters.events, e))).collect(),
        maps: seen.usage.iter().map(|u| SeenMap { map: u.table.to_owned(), used: u.used, room: u.room }).collect(),
        tables: tables(seen),
        members_alive: others + 1,
        members_down: down,
        questions: Vec::new(),
    }
}

fn count<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or(0)
}

pub(super) type Nodes<'a> = BTreeMap<&'a NodeId, &'a Member>;

pub(super) fn nodes(desired: &Desired) -> Nodes<'_> {
    desired.members.iter().map(|m| (&m.node, m)).collect()
}

/// A node by its identity. One that is no member any more has no name.
pub(super) fn node(nodes: &Nodes<'_>, id: &NodeId) -> SeenNode {
    let member = nodes.get(id);
    SeenNode {
        id: id.clone(),
        hostname: member.map(|m| m.hostname.clone()).unwrap_or_default(),
        underlay: member.map(|m| m.underlay),
    }
}

fn ports(seen: &Seen<'_>, nodes: &Nodes<'_>) -> Vec<SeenPort> {
    let by_service = by_service(seen.desired);
    let mut ports = host_ports(seen, nodes);
    let in_host_mode: BTreeSet<_> = ports.iter().map(|p| (p.protocol, p.published)).collect();
    for service in &seen.desired.services {
        let endpoints = by_service.get(&service.id).map_or(&[][..], Vec::as_slice);
        for port in service.ports.iter().filter(|p| p.mode == PublishMode::Ingress) {
            let name = SeenService { id: service.id.clone(), name: service.name.clone() };
            let option = option(&service.options, port);
            let mut shown = bare(seen, port, name, option);
            shown.backends = backends(seen, nodes, port, shown.balance, endpoints);
            shown.state = if in_host_mode.contains(&(port.protocol, shown.published)) {
                PortState::Held
            } else {
                state(seen.desired, port, option, &shown.backends)
            };
            ports.push(shown);
        }
    }
    ports.sort_by(|a, b| (a.published, a.protocol, &a.service.name).cmp(&(b.published, b.protocol, &b.service.name)));
    ports
}

/// Published ports are served on the routing mesh's own network.
fn by_service(desired: &Desired) -> BTreeMap<&ServiceId, Vec<&LocatedEndpoint>> {
    let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for endpoint in desired.endpoints.iter().filter(|e| Some(&e.key.network) == desired.ingress()) {
        by_service.entry(&endpoint.record.service).or_default().push(endpoint);
    }
    by_service
}

fn option<'a>(options: &'a [PortOptions], port: &PublishedPort) -> Option<&'a PortOptions> {
    options.iter().find(|o| o.protocol == port.protocol && o.published == port.published)
}

/// A port without what depends on its backends.
fn bare(seen: &Seen<'_>, port: &PublishedPort, service: SeenService, option: Option<&PortOptions>) -> SeenPort {
    let key = FrontendKey { protocol: port.protocol, port: port.published.get() };
    let options = option.map(|o| o.options.clone()).unwrap_or_default();
    let PublishOptions { listen, sources, balance, client_affinity, .. } = options;
    SeenPort {
        protocol: port.protocol,
        published: key.port,
        target: port.target.get(),
        mode: port.mode,
        service,
        state: PortState::NobodyReady,
        balance,
        client_affinity,
        listen,
        sources,
        backends: Vec::new(),
        open_flows: Some(seen.census.of_port(key)),
        traffic: traffic(seen.counters.ports.get(&key)),
    }
}

/// What the node does with a port.
fn state(desired: &Desired, port: &PublishedPort, option: Option<&PortOptions>, backends: &[SeenBackend]) -> PortState {
    if option.is_some_and(|o| !o.answers) {
        PortState::Elsewhere
    } else if desired.node.taken.contains(&(port.protocol, port.published.get())) {
        PortState::Held
    } else if backends.iter().any(|b| b.share > 0.0) {
        PortState::Serving
    } else {
        PortState::NobodyReady
    }
}

fn host_ports(seen: &Seen<'_>, nodes: &Nodes<'_>) -> Vec<SeenPort> {
    let mut ports = Vec::new();
    for local in &seen.desired.local_tasks {
        let Some(service) = service_of(seen.assignments, &local.task) else { continue };
        for port in &local.host_ports {
            let option = option(&local.host_options, port);
            let mut shown = bare(seen, port, service.clone(), option);
            let own = &seen.desired.node.id;
            let backend = backend(seen, nodes, port, (&local.task, own), local.addr, backend_state(local.state));
            shown.backends = shared(vec![(backend, 1)], shown.balance, own);
            shown.state = state(seen.desired, port, option, &shown.backends);
            ports.push(shown);
        }
    }
    ports
}

fn service_of(assignments: &Assignments, task: &TaskId) -> Option<SeenService> {
    let task = assignments.tasks.get(task)?;
    Some(SeenService { id: task.service.clone(), name: task.service_name.to_string() })
}

fn backend_state(state: EndpointState) -> BackendState {
    match state {
        EndpointState::Starting => BackendState::Starting,
        EndpointState::Ready => BackendState::Ready,
        EndpointState::Draining => BackendState::Draining,
    }
}

/// The tasks behind an ingress port. Of its own tasks the node knows better than what it has told others.
fn backends(
    seen: &Seen<'_>,
    nodes: &Nodes<'_>,
    port: &PublishedPort,
    balance: Balance,
    endpoints: &[&LocatedEndpoint],
) -> Vec<SeenBackend> {
    let own = &seen.desired.node.id;
    let locals: BTreeMap<_, _> = seen.desired.local_tasks.iter().map(|t| (&t.task, t)).collect();
    let weighed = endpoints.iter().filter_map(|e| {
        let state = if e.owner == *own { locals.get(&e.key.task)?.state } else { e.record.state };
        let who = (&e.key.task, &e.owner);
        Some((backend(seen, nodes, port, who, e.record.addr, backend_state(state)), e.record.weight))
    });
    shared(weighed.collect(), balance, own)
}

fn backend(
    seen: &Seen<'_>,
    nodes: &Nodes<'_>,
    port: &PublishedPort,
    (task, owner): (&TaskId, &NodeId),
    addr: std::net::Ipv4Addr,
    state: BackendState,
) -> SeenBackend {
    let key = FrontendKey { protocol: port.protocol, port: port.published.get() };
    SeenBackend {
        task: task.clone(),
        node: node(nodes, owner),
        addr,
        state,
        share: 0.0,
        open_flows: Some(seen.census.of_backend(key, task)),
        traffic: traffic(seen.counters.backends.get(task)),
    }
}

/// Gives each its share of new flows by the weights of those that take them: of the ready ones, where that is wanted of those of this
/// node while there are any, and of those that are to stop while nobody is ready.
fn shared(mut weighed: Vec<(SeenBackend, u32)>, balance: Balance, own: &NodeId) -> Vec<SeenBackend> {
    let is = |b: &SeenBackend, state: BackendState| b.state == state;
    let here = |b: &SeenBackend| balance == Balance::LocalFirst && b.node.id == *own && is(b, BackendState::Ready);
    let ready = |b: &SeenBackend| is(b, BackendState::Ready);
    let draining = |b: &SeenBackend| is(b, BackendState::Draining);
    for takes in [&here as &dyn Fn(&SeenBackend) -> bool, &ready, &draining] {
        let all: f64 = weighed.iter().filter(|(b, _)| takes(b)).map(|(_, w)| f64::from(*w)).sum();
        if all > 0.0 {
            let taking = weighed.iter_mut().filter(|(b, _)| takes(b));
            taking.for_each(|(b, weight)| b.share = f64::from(*weight) / all);
            break;
        }
    }
    weighed.into_iter().map(|(backend, _)| backend).collect()
}

fn traffic(traffic: Option<&Traffic>) -> SeenTraffic {
    let t = traffic.copied().unwrap_or_default();
    SeenTraffic {
        flows: t.flows,
        packets_in: t.packets_in,
        bytes_in: t.bytes_in,
        packets_out: t.packets_out,
        bytes_out: t.bytes_out,
    }
}

fn tasks(seen: &Seen<'_>) -> Vec<SeenTask> {
    let tasks = seen.assignments.tasks.values().map(|task| SeenTask {
        task: task.id.clone(),
        service: SeenService { id: task.service.clone(), name: task.service_name.to_string() },
        state: seen.statuses.get(&task.id).copied().unwrap_or(task.status.state),
        traffic: traffic(seen.counters.tasks.get(&task.id)),
    });
    tasks.collect()
}

fn tables(seen: &Seen<'_>) -> Vec<SeenTable> {
    let services = seen.assignments.services.values().map(|s| (s.id.as_str(), s.version.0));
    let newest = services.clone().map(|(_, version)| version).max().unwrap_or(0);
    let endpoints = seen.endpoints.iter().map(|(key, at)| {
        let record = &at.record;
        (key.task.as_str(), format!("{} {} {:?} {}", at.owner, record.addr, record.state, record.weight))
    });
    let told = seen.versions.values().copied().max().unwrap_or(0);
    vec![
        SeenTable { table: "services", version: newest, fingerprint: Some(fingerprint(services)) },
        SeenTable { table: "endpoints", version: told, fingerprint: Some(fingerprint(endpoints)) },
    ]
}

/// 48 bits, so that a float holds them. All nodes go through the same things in the same order: that of their names.
fn fingerprint<'a>(items: impl Iterator<Item = (&'a str, impl ToString)>) -> u64 {
    let mut hash = Sha256::new();
    for (name, what) in items {
        hash.update(format!("{name} {}\n", what.to_string()));
    }
    hash.finalize().iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
