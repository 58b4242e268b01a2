//! What a node should run and know, and what of it the node has been told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::{
    Config, ConfigId, GossipKeys, Member, Meta, Network, NetworkId, Node, NodeId, Secret, SecretId, Task, TaskId,
    TaskState, Trust, Version,
};
use skep_rpc::{encode, proto};
use skep_store::{Entity, Tables};

use super::published::{NodeIs, Published};
use crate::draft::{is_away, is_up};

/// What a node has been told in a session.
#[derive(Default)]
pub(super) struct Told {
    sequence: u64,
    /// All else in a task never changes once it is assigned.
    tasks: BTreeMap<TaskId, TaskState>,
    services: Published,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    members: BTreeMap<NodeId, Member>,
    node: Option<Node>,
    gossip_keys: Option<GossipKeys>,
    trust: Option<Trust>,
    /// Their content never changes.
    secrets: BTreeSet<SecretId>,
    configs: BTreeSet<ConfigId>,
}

impl Told {
    /// What is to be told now, and notes it as told. `None` when there is nothing new. The first time it is everything.
    pub(super) fn next(&mut self, tables: &Tables, id: &NodeId) -> Option<proto::Assignments> {
        let mut message = proto::Assignments { full: self.sequence == 0, ..Default::default() };
        self.tasks(tables, id, &mut message);
        self.data(tables, id, &mut message);
        if let Some(node) = tables.get::<Node>(id) {
            let is = self.node(node, &mut message);
            (message.services, message.removed_services) = self.services.next(tables, node, is);
        }
        self.networks(tables, &mut message);
        let members = tables.all::<Node>().filter_map(|n| Some((n.id.clone(), member(n)?))).collect();
        (message.members, message.removed_members) = difference(&mut self.members, members);
        let keys = tables.cluster().and_then(|cluster| cluster.gossip_keys.clone());
        if let Some(new) = keys.as_ref().filter(|_| self.gossip_keys != keys) {
            message.gossip_keys = Some(proto::GossipKeys { keys: encode(new) });
            self.gossip_keys = keys;
        }
        let trust = tables.cluster().map(|cluster| cluster.authority.trust());
        if let Some(new) = trust.as_ref().filter(|_| self.trust != trust) {
            message.trust = Some(proto::Trust { trust: encode(new) });
            self.trust = trust;
        }
        if !message.full && message == proto::Assignments::default() {
            return None;
        }
        self.sequence += 1;
        message.sequence = self.sequence;
        Some(message)
    }

    fn node(&mut self, node: &Node, message: &mut proto::Assignments) -> NodeIs {
        let node = comparable(node);
        if self.node.as_ref() == Some(&node) {
            return NodeIs::AsBefore;
        }
        message.node = encode(&node);
        self.node = Some(node);
        NodeIs::Changed
    }

    fn networks(&mut self, tables: &Tables, message: &mut proto::Assignments) {
        // There may be thousands, and they seldom change.
        for network in tables.all::<Network>() {
            let told = self.networks.get(&network.id);
            if told.is_some_and(|told| Arc::ptr_eq(told, network)) {
                continue;
            }
            let now = unchanging(network);
            if told.is_none_or(|told| unchanging(told) != now) {
                message.networks.push(encode(&now));
            }
            self.networks.insert(network.id.clone(), network.clone());
        }
        if self.networks.len() > tables.all::<Network>().len() {
            let gone = self.networks.extract_if(.., |id, _| tables.get::<Network>(id).is_none());
            message.removed_networks = gone.map(|(id, _)| id.to_string()).collect();
        }
    }

    fn tasks(&mut self, tables: &Tables, id: &NodeId, message: &mut proto::Assignments) {
        let assigned: BTreeMap<_, _> = tables
            .tasks_of_node(id)
            .filter(|task| task.status.state >= TaskState::Assigned)
            .map(|task| (&task.id, task))
            .collect();
        for task in assigned.values().filter(|task| self.tasks.get(&task.id) != Some(&task.desired)) {
            message.tasks.push(encode::<Task>(task));
        }
        message.removed_tasks =
            self.tasks.keys().filter(|task| !assigned.contains_key(task)).map(ToString::to_string).collect();
        self.tasks = assigned.into_values().map(|task| (task.id.clone(), task.desired)).collect();
    }
}

impl Told {
    /// A node is given the secrets and configs of tasks that it has, as long as these have not ended, and no others.
    fn data(&mut self, tables: &Tables, id: &NodeId, message: &mut proto::Assignments) {
        let is_alive = |task: &&Arc<Task>| task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
        let (mut secrets, mut configs) = (BTreeSet::new(), BTreeSet::new());
        for task in tables.tasks_of_node(id).filter(is_alive) {
            secrets.extend(task.spec.container.secrets.iter().map(|secret| secret.id.clone()));
            configs.extend(task.spec.container.configs.iter().map(|config| config.id.clone()));
        }
        (message.secrets, message.removed_secrets) = handed::<Secret>(tables, &mut self.secrets, secrets);
        (message.configs, message.removed_configs) = handed::<Config>(tables, &mut self.configs, configs);
    }
}

/// What of `now` is not told yet, and the ids of what is told and not among it.
fn handed<E: Entity<Id: Clone + ToString> + serde::Serialize>(
    tables: &Tables,
    told: &mut BTreeSet<E::Id>,
    mut now: BTreeSet<E::Id>,
) -> (Vec<proto::Kept>, Vec<String>) {
    now.retain(|id| tables.get::<E>(id).is_some());
    let new = now.difference(told).filter_map(|id| tables.get::<E>(id));
    let new = new.map(|object| proto::Kept { object: encode::<E>(object) }).collect();
    let gone = told.difference(&now).map(ToString::to_string).collect();
    *told = now;
    (new, gone)
}

/// What of `now` differs from `told`, and the keys of what is gone.
fn difference<K: Ord + ToString, V: PartialEq + serde::Serialize>(
    told: &mut BTreeMap<K, V>,
    now: BTreeMap<K, V>,
) -> (Vec<bytes::Bytes>, Vec<String>) {
    let new = now.iter().filter(|(key, value)| told.get(key) != Some(*value));
    let new = new.map(|(_, value)| encode(value)).collect();
    let gone = told.keys().filter(|key| !now.contains_key(key)).map(ToString::to_string).collect();
    *told = now;
    (new, gone)
}

/// The network without what changes whenever it gives an address, which is nobody's business.
fn unchanging(network: &Network) -> Network {
    let mut network = network.clone();
    network.meta = Meta { version: Version(0), updated: network.meta.created, ..network.meta };
    network.last = None;
    network
}

fn member(node: &Node) -> Option<Member> {
    Some(Member {
        node: node.id.clone(),
        hostname: node.hostname().to_owned(),
        underlay: node.status.addr?,
        overlay: node.overlay_addr?,
        alive: is_up(node) || is_away(node),
        away: is_away(node),
    })
}

/// The node without what changes at every write, and without what is nobody's business.
fn comparable(node: &Node) -> Node {
    let mut node = node.clone();
    node.meta.version = Version(0);
    node.meta.updated = node.meta.created;
    // It is the node itself that says so.
    node.status.port_conflicts.clear();
    if let Some(description) = &mut node.description {
        description.tls = None;
    }
    node
}

#[cfg(test)]
mod tests {
    use skep_model::{Data, DataSpec, FileReference, NewNetwork, ServiceId, Templating, Timestamp};
    use skep_store::{Change, Key};

    use super::*;
    use crate::tests::{Sim, spec};

    fn secret(name: &str) -> Secret {
        let spec = DataSpec {
            name: name.parse().unwrap(),
            labels: BTreeMap::new(),
            data: Data(b"hush".to_vec()),
            templating: Templating::None,
        };
        Secret { id: SecretId::random(), meta: Meta::new(Timestamp::UNIX_EPOCH), spec }
    }

    fn ids(kept: &[proto::Kept]) -> BTreeSet<SecretId> {
        kept.iter().map(|kept| skep_rpc::decode::<Secret>(&kept.object).unwrap().id).collect()
    }

    fn task_on(sim: &mut Sim, node: &NodeId, service: &ServiceId, state: TaskState) {
        let task = sim.tables.tasks_of_service(service).next().cloned();
        let mut task = Task::clone(&task.expect("the service has a task"));
        (task.node, task.status.state) = (Some(node.clone()), state);
        sim.apply(vec![task.into()]);
    }

    #[test]
    fn secrets_go_to_nodes_whose_tasks_use_them_for_as_long_as_those_live() {
        let mut sim = Sim::new(1);
        let (used, unused) = (secret("used"), secret("unused"));
        sim.apply(vec![used.clone().into(), unused.into()]);
        let mut asked = spec("web", 1);
        let (id, name, target) = (used.id.clone(), "used".to_owned(), "used".to_owned());
        asked.task.container.secrets = vec![FileReference { id, name, target, uid: 0, gid: 0, mode: 0o444 }];
        let service = sim.create(asked).unwrap();
        let planned = crate::plan::plan(&sim.tables, &crate::plan::Dirty::All, Timestamp::UNIX_EPOCH, 0);
        sim.apply(planned.changes);
        let nodes = sim.nodes();
        let (mut here, mut there) = (Told::default(), Told::default());
        task_on(&mut sim, &nodes[0], &service, TaskState::Assigned);
        let first = here.next(&sim.tables, &nodes[0]).unwrap();
        assert_eq!(ids(&first.secrets), BTreeSet::from([used.id.clone()]));
        assert!(there.next(&sim.tables, &nodes[1]).unwrap().secrets.is_empty(), "it runs nothing that uses them");
        task_on(&mut sim, &nodes[0], &service, TaskState::Running);
        let again = here.next(&sim.tables, &nodes[0]).unwrap_or_default();
        assert!(again.secrets.is_empty() && again.removed_secrets.is_empty(), "it has them already");
        task_on(&mut sim, &nodes[0], &service, TaskState::Failed);
        let last = here.next(&sim.tables, &nodes[0]).unwrap();
        assert_eq!(last.removed_secrets, [used.id.to_string()]);
        assert!(Told::default().next(&sim.tables, &nodes[0]).unwrap().secrets.is_empty(), "nor does a new session");
    }

    #[test]
    fn networks_are_told_once_and_the_addresses_that_they_give_are_not() {
        let mut sim = Sim::new(0);
        let node = sim.nodes()[0].clone();
        let mut told = Told::default();
        let mut news = |sim: &Sim| {
            let message = told.next(&sim.tables, &node).unwrap_or_default();
            (message.networks.len(), message.removed_networks)
        };
        assert_eq!(news(&sim), (1, Vec::new()));
        let id = sim.network(NewNetwork { name: "net".to_owned(), ..Default::default() }).unwrap();
        assert_eq!(news(&sim), (1, Vec::new()));
        let mut web = spec("web", 1);
        web.task.networks = vec![(id.clone(), Vec::new())];
        let web = sim.create(web).unwrap();
        assert!(sim.tables.get::<Network>(&id).unwrap().last.is_some());
        assert_eq!(news(&sim), (0, Vec::new()));
        sim.apply(vec![Change::Delete(Key::Service(web)), Change::Delete(Key::Network(id.clone()))]);
        assert_eq!(news(&sim), (0, vec![id.to_string()]));
        assert_eq!(news(&sim), (0, Vec::new()));
    }
}
