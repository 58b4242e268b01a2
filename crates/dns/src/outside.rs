//! What programs outside of the swarm may ask for: by which addresses and ports of nodes a service is reached.
//!
//! Addresses of tasks mean nothing there. A service that publishes ports on the nodes of its tasks is named with the addresses of those nodes; one that
//! publishes them on every node with those of all nodes; one that publishes nothing has a name and no address.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use skep_model::{EndpointRecord, Member, Network, NetworkId, NodeId, PublishedPort, ServiceEntry, ServiceId, TaskId};
use skep_netdb::View;

use crate::inside::{TASK_TTL, takers};
use crate::zone::{Ports, Target, Zone};

/// What the names of nodes end in.
const NODES: &str = "nodes";

/// Everything that names outside are made of.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The services.
    pub services: &'a BTreeMap<ServiceId, ServiceEntry>,
    /// The networks.
    pub networks: &'a BTreeMap<NetworkId, Network>,
    /// Nodes, and what runs there.
    pub view: &'a View,
}

/// The zones to answer from: those of the networks named in `only`; of all of them, and of services on none, when it is empty. Nodes
/// are named in either case, for they are what ports lead to.
#[must_use]
pub fn zones(world: World<'_>, only: &[String]) -> Vec<Arc<Zone>> {
    let naming = Naming::new(world);
    let mut zones = Vec::new();
    if only.is_empty() {
        zones.push(naming.zone(String::new(), |service| Some(own_aliases(service))));
    }
    let meant = |network: &&Network| only.is_empty() || only.contains(&network.spec.name);
    for network in world.networks.values().filter(|network| !network.spec.ingress).filter(meant) {
        let aliases = |service: &ServiceEntry| {
            let on = service.networks.iter().find(|on| on.network == network.id)?;
            Some(on.aliases.clone())
        };
        zones.push(naming.zone(network.spec.name.to_ascii_lowercase(), aliases));
    }
    zones.push(naming.nodes_zone());
    zones.into_iter().map(Arc::new).collect()
}

fn own_aliases(service: &ServiceEntry) -> Vec<String> {
    let mut aliases: Vec<String> = service.networks.iter().flat_map(|on| on.aliases.iter().cloned()).collect();
    aliases.sort_unstable();
    aliases.dedup();
    aliases
}

/// A task of a service: where it is, and how to reach it there.
struct Place<'a> {
    node: &'a NodeId,
    record: &'a EndpointRecord,
    host_ports: &'a [PublishedPort],
}

struct Naming<'a> {
    world: World<'a>,
    /// Nodes that are alive, by what they are called.
    nodes: BTreeMap<&'a NodeId, (String, &'a Member)>,
    tasks: HashMap<&'a ServiceId, BTreeMap<&'a TaskId, Place<'a>>>,
}

impl<'a> Naming<'a> {
    fn new(world: World<'a>) -> Self {
        let mut tasks: HashMap<_, BTreeMap<&TaskId, Place<'_>>> = HashMap::new();
        for (key, located) in world.view.endpoints.iter() {
            let record = located.record.as_ref();
            // A task has an endpoint on each of its networks; one of them tells of its ports.
            let place = tasks.entry(&record.service).or_default().entry(&key.task).or_insert(Place {
                node: &located.owner,
                record,
                host_ports: &record.host_ports,
            });
            if !record.aliases.is_empty() {
                place.record = record;
            }
            if !record.host_ports.is_empty() {
                place.host_ports = &record.host_ports;
            }
        }
        Self { world, nodes: nodes(world.view), tasks }
    }

    fn zone(&self, name: String, aliases: impl Fn(&ServiceEntry) -> Option<Vec<String>>) -> Zone {
        let (mut zone, mut single) = (Zone { name, ..Zone::default() }, Zone::default());
        for service in self.world.services.values() {
            if let Some(aliases) = aliases(service) {
                self.service(service, &aliases, &mut zone);
                self.single_tasks(service, &mut single);
            }
        }
        for (name, named) in single.names {
            zone.names.entry(name).or_insert(named);
        }
        zone
    }

    fn service(&self, service: &ServiceEntry, aliases: &[String], zone: &mut Zone) {
        let (tasks, on_their_nodes) = self.tasks_of(service);
        let all: Vec<_> = if on_their_nodes {
            tasks.clone()
        } else if service.ports.is_empty() {
            Vec::new()
        } else {
            self.nodes.values().map(|node| target(node, &service.ports)).collect()
        };
        for name in std::iter::once(&service.name).chain(aliases) {
            let of_tasks = format!("tasks.{name}");
            zone.claim(&of_tasks);
            tasks.iter().for_each(|target| zone.add(&of_tasks, target));
            zone.claim(name);
            all.iter().for_each(|target| zone.add(name, target));
        }
    }

    /// Where tasks that take new flows are, and whether any has ports of its node for itself.
    fn tasks_of(&self, service: &ServiceEntry) -> (Vec<Arc<Target>>, bool) {
        let places = self.tasks.get(&service.id);
        let records: Vec<_> = places.iter().flat_map(|p| p.values()).map(|place| (place, place.record)).collect();
        let on_their_nodes = records.iter().any(|(place, _)| !place.host_ports.is_empty());
        let reached = on_their_nodes || !service.ports.is_empty();
        let open = takers(&records).filter(|_| reached);
        (open.filter_map(|(place, _)| self.at(place, service)).collect(), on_their_nodes)
    }

    fn at(&self, place: &Place<'_>, service: &ServiceEntry) -> Option<Arc<Target>> {
        let ports: Vec<_> = place.host_ports.iter().chain(&service.ports).copied().collect();
        Some(target(self.nodes.get(place.node)?, &ports))
    }

    fn single_tasks(&self, service: &ServiceEntry, zone: &mut Zone) {
        let places = self.tasks.get(&service.id);
        for (task, place) in places.into_iter().flatten() {
            let Some(target) = self.at(place, service) else { continue };
            if let Some(seen) = place.record.aliases.first() {
                zone.add(&format!("{seen}.{task}"), &target);
            }
            place.record.aliases.iter().for_each(|alias| zone.add(alias, &target));
        }
    }

    fn nodes_zone(&self) -> Zone {
        let mut zone = Zone { name: NODES.to_owned(), ..Zone::default() };
        for (id, node) in &self.nodes {
            let (name, member) = node;
            let target = target(node, &[]);
            zone.add(name, &target);
            if name != id.as_str() {
                zone.add(id.as_str(), &target);
            }
            zone.addresses.insert(member.underlay, target.name.clone());
        }
        zone
    }
}

fn target((name, member): &(String, &Member), ports: &[PublishedPort]) -> Arc<Target> {
    Arc::new(Target {
        name: format!("{name}.{NODES}"),
        addresses: vec![member.underlay],
        ports: Ports::Published(ports.to_vec()),
        ttl: TASK_TTL,
        only_for: None,
    })
}

/// Nodes that are alive by their host names, where these are labels of DNS and no two nodes have the same; by their identifiers otherwise.
fn nodes(view: &View) -> BTreeMap<&NodeId, (String, &Member)> {
    let alive = || view.members.values().filter(|member| member.alive);
    let mut times: HashMap<String, usize> = HashMap::new();
    for member in alive() {
        *times.entry(member.hostname.to_ascii_lowercase()).or_default() += 1;
    }
    let is_label = |name: &str| {
        (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let called = |member: &Member| {
        let name = member.hostname.to_ascii_lowercase();
        if is_label(&name) && times.get(&name) == Some(&1) { name } else { member.node.to_string() }
    };
    alive().map(|member| (&member.node, (called(member), member))).collect()
}
