//! Whole clusters of planners, with a clock and nodes that are only pretended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use skep_ca::RootCa;
use skep_model::{
    Availability, ClusterId, ClusterSpec, ContainerSpec, EndpointSpec, FailureAction, NetworkId, NewNetwork, Node,
    NodeDescription, NodeId, NodeState, Placement, PortConfig, Protocol, PublishMode, RestartCondition, RestartPolicy,
    Role, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskSpec, TaskState, Timestamp, UpdateConfig,
    UpdateOrder, UpdateState, Version,
};
use skep_store::{Change, Key, Proposal, Tables};

use crate::control::{Joining, join, network, service};
use crate::plan::{Dirty, Lost, lose, plan};
use crate::{ControlError, InitCluster, init_cluster};

mod ingress;
mod networks;
mod publishing;

/// A cluster whose time passes when it is told to.
pub(crate) struct Sim {
    pub(crate) tables: Tables,
    now: Timestamp,
    /// Tasks with this image fail as soon as they start.
    broken: BTreeSet<String>,
    /// No node has this image: its tasks are rejected while they are made ready.
    missing: BTreeSet<String>,
}

impl Sim {
    pub(crate) fn new(workers: usize) -> Self {
        Self::reached_at("192.0.2.1:2377", workers)
    }

    /// With its manager at this address.
    fn reached_at(manager: &str, workers: usize) -> Self {
        let init = InitCluster {
            cluster: ClusterId::random(),
            root: RootCa::generate(Timestamp::now()).unwrap(),
            node: NodeId::random(),
            credential: String::new(),
            description: NodeDescription::default(),
            raft_id: 1,
            addr: manager.parse().unwrap(),
            availability: Availability::Active,
            spec: ClusterSpec::default(),
            default_pools: Vec::new(),
            subnet_size: 24,
            data_path_port: 4789,
            routes: vec!["10.0.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap()],
        };
        let mut sim = Self {
            tables: Tables::default(),
            now: Timestamp::UNIX_EPOCH,
            broken: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        sim.apply(init_cluster(init).unwrap());
        for number in 0..workers {
            sim.join(&format!("w{number}"), &format!("192.0.2.{}", number + 2)).unwrap();
        }
        for node in sim.nodes() {
            sim.node(&node, |node| node.status.state = NodeState::Ready);
        }
        sim
    }

    /// A machine joins as a worker.
    pub(crate) fn join(&mut self, hostname: &str, addr: &str) -> Result<Node, ControlError> {
        let joining = Joining {
            role: Role::Worker,
            credential: format!("key of {hostname}"),
            description: NodeDescription { hostname: hostname.to_owned(), ..Default::default() },
            addr: addr.parse().unwrap(),
            availability: Availability::Active,
            routes: vec!["::/0".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        };
        let (node, changes) = join(&self.tables, joining, self.now)?;
        self.apply(changes);
        Ok(node)
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        self.tables.apply(Proposal { base: None, now: self.now, changes }).unwrap();
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.tables.all::<Node>().map(|node| node.id.clone()).collect()
    }

    pub(crate) fn node(&mut self, id: &NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.tables.get(id).unwrap());
        change(&mut node);
        self.apply(vec![node.into()]);
    }

    pub(crate) fn create(&mut self, spec: ServiceSpec) -> Result<ServiceId, ControlError> {
        let (id, changes) = service::create(&self.tables, spec, self.now)?;
        self.apply(changes);
        Ok(id)
    }

    pub(crate) fn network(&mut self, new: NewNetwork) -> Result<NetworkId, ControlError> {
        let (id, changes) = network::create(&self.tables, new, self.now)?;
        self.apply(changes);
        Ok(id)
    }

    pub(crate) fn update(&mut self, id: &ServiceId, change: impl FnOnce(&mut ServiceSpec)) -> Result<(), ControlError> {
        let before = self.tables.get::<Service>(id).unwrap();
        let (version, mut spec) = (before.meta.version, before.spec.clone());
        change(&mut spec);
        let changes = service::update(&self.tables, id, version, spec, self.now)?;
        self.apply(changes);
        Ok(())
    }

    /// One round of the leader and one of every node. Says whether anything changed.
    fn step(&mut self) -> bool {
        let planned = plan(&self.tables, &Dirty::All, self.now, self.tables.version().0).changes;
        let decided = !planned.is_empty();
        if decided {
            self.apply(planned);
        }
        let seen: Vec<_> = self.tables.all::<Task>().filter_map(|task| self.act(task)).map(Change::from).collect();
        let acted = !seen.is_empty();
        if acted {
            self.apply(seen);
        }
        decided || acted
    }

    fn act(&self, task: &Task) -> Option<Task> {
        let node = self.tables.get::<Node>(task.node.as_ref()?)?;
        let state = task.status.state;
        if node.status.state != NodeState::Ready || state < TaskState::Assigned || state.is_terminal() {
            return None;
        }
        let next = match task.desired {
            TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
            _ if self.missing.contains(&task.spec.container.image) => TaskState::Rejected,
            TaskState::Ready => TaskState::Ready,
            _ if self.broken.contains(&task.spec.container.image) => TaskState::Failed,
            _ => TaskState::Running,
        };
        let mut task = task.clone();
        task.status.state = next;
        task.status.timestamp = self.now;
        (next != state).then_some(task)
    }

    /// Until nothing changes any more at this moment.
    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.step() {
                return;
            }
        }
        panic!("the planners do not come to rest");
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.settle();
            // A little more than a second: tasks made at the same moment as their predecessors count as a little younger.
            self.now = crate::draft::after(self.now, Duration::from_micros(1_000_001));
        }
        self.settle();
    }

    fn tasks(&self, id: &ServiceId) -> Vec<Task> {
        self.tables.tasks_of_service(id).map(|task| Task::clone(task)).collect()
    }

    fn running(&self, id: &ServiceId) -> Vec<Task> {
        let mut tasks = self.tasks(id);
        tasks.retain(|task| task.is_live() && task.status.state == TaskState::Running);
        tasks
    }

    fn status(&self, id: &ServiceId) -> Option<UpdateState> {
        Some(self.tables.get::<Service>(id)?.update_status.as_ref()?.state)
    }
}

pub(crate) fn spec(name: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    ServiceSpec {
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        task: TaskSpec {
            container,
            resources: Default::default(),
            restart: None,
            placement: Placement::default(),
            networks: Vec::new(),
            force_update: 0,
            registry_auth: None,
        },
        mode: ServiceMode::Replicated { replicas },
        update: None,
        rollback: None,
        endpoint: None,
    }
}

pub(crate) fn publish(mut spec: ServiceSpec, ports: &[(u16, Option<u16>, PublishMode)]) -> ServiceSpec {
    let port = |&(target, published, mode): &(u16, Option<u16>, PublishMode)| PortConfig {
        name: None,
        protocol: Protocol::Tcp,
        target: target.try_into().unwrap(),
        published: published.map(|port| port.try_into().unwrap()),
        mode,
    };
    spec.endpoint = Some(EndpointSpec { mode: None, ports: ports.iter().map(port).collect() });
    spec
}

fn published(sim: &Sim, id: &ServiceId) -> Vec<u16> {
    sim.tables.get::<Service>(id).unwrap().endpoint.ports.iter().map(|port| port.published.get()).collect()
}

#[test]
fn a_new_service_is_assigned_in_one_commit_and_spread() {
    let mut sim = Sim::new(2);
    let id = sim.create(spec("web", 6)).unwrap();
    let changes = plan(&sim.tables, &Dirty::All, sim.now, 1).changes;
    sim.apply(changes);
    let tasks = sim.tasks(&id);
    assert!(tasks.iter().all(|task| task.status.state == TaskState::Assigned && task.attachments.len() == 1));
    for node in sim.nodes() {
        assert_eq!(sim.tables.tasks_of_node(&node).count(), 2);
    }
    sim.settle();
    assert_eq!(sim.running(&id).len(), 6);
}

#[test]
fn the_ingress_network_avoids_routes_and_addresses_differ() {
    let mut sim = Sim::new(3);
    let ingress = sim.tables.ingress().unwrap().clone();
    assert_eq!(ingress.spec.ipam.subnet.to_string(), "10.1.0.0/16");
    let id = sim.create(publish(spec("web", 5), &[(80, None, PublishMode::Ingress)])).unwrap();
    sim.settle();
    let mut all: Vec<_> = sim.tables.all::<Node>().filter_map(|node| node.overlay_addr).collect();
    all.push(ingress.spec.ipam.gateway);
    all.extend(sim.tables.get::<Service>(&id).unwrap().endpoint.virtual_ips.iter().map(|vip| vip.addr.addr()));
    all.extend(sim.tasks(&id).iter().map(|task| task.attachments[0].addr.addr()));
    assert_eq!(all.len(), 4 + 1 + 1 + 5);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn all_nodes_of_a_swarm_are_reached_by_the_same_family() {
    for (manager, same, other, family) in [
        ("192.0.2.1:2377", "192.0.2.9", "2001:db8::9", "IPv4"),
        ("[2001:db8::1]:2377", "2001:db8::9", "192.0.2.9", "IPv6"),
    ] {
        let mut sim = Sim::reached_at(manager, 0);
        let refused = sim.join("w", other).unwrap_err().to_string();
        assert!(refused.contains(&format!("by {family}: give --advertise-addr an {family} address")), "{refused}");
        for useless in ["0.0.0.0", "::", "fe80::1", "ff02::1", "224.0.0.1"] {
            let refused = sim.join("w", useless).unwrap_err().to_string();
            assert!(refused.contains("valid beyond its link"), "{useless}: {refused}");
        }
        let node = sim.join("w", same).unwrap();
        assert_eq!(node.status.addr.unwrap().to_string(), same);
        // Its address inside the mesh is an IPv4 one, from which the IPv6 one is made.
        assert!(node.overlay_addr.is_some());
    }
}

#[test]
fn ports_conflict_are_chosen_and_stay() {
    use PublishMode::{Host, Ingress};
    let mut sim = Sim::new(0);
    let first = sim.create(publish(spec("a", 1), &[(80, None, Ingress), (81, Some(30_001), Ingress)])).unwrap();
    assert_eq!(published(&sim, &first), [30_000, 30_001]);
    let second = sim.create(publish(spec("b", 1), &[(80, None, Ingress)])).unwrap();
    assert_eq!(published(&sim, &second), [30_002]);
    sim.update(&first, |spec| *spec = publish(spec.clone(), &[(90, None, Ingress), (80, None, Ingress)])).unwrap();
    assert_eq!(published(&sim, &first)[1], 30_000);
    let refused = sim.create(publish(spec("c", 1), &[(1, Some(30_002), Host)])).unwrap_err().to_string();
    assert_eq!(refused, format!("port '30002' is already in use by service 'b' ({second}) as an ingress port"));
    let twice = publish(spec("c", 1), &[(1, Some(80), Ingress), (2, Some(80), Ingress)]);
    let refused = sim.create(twice).unwrap_err().to_string();
    assert_eq!(refused, "EndpointSpec: duplicate published ports provided");
    for port in [22, 2377, 7946, 4789] {
        assert!(sim.create(publish(spec("c", 1), &[(1, Some(port), Ingress)])).is_err(), "{port}");
    }
    sim.create(publish(spec("c", 1), &[(1, Some(81), Host)])).unwrap();
    sim.create(publish(spec("d", 1), &[(1, Some(81), Host)])).unwrap();
}

#[test]
fn what_fits_nowhere_says_why() {
    let mut sim = Sim::new(1);
    let mut web = publish(spec("web", 3), &[(80, Some(80), PublishMode::Host)]);
    web.task.placement.constraints = vec!["node.hostname == w0".to_owned()];
    let id = sim.create(web).unwrap();
    sim.settle();
    assert_eq!(sim.running(&id).len(), 1);
    let tasks = sim.tasks(&id);
    let err = tasks.iter().find_map(|task| task.status.err.clone()).unwrap();
    assert_eq!(
        err,
        "no suitable node (scheduling constraints not satisfied on 1 node; host-mode port already in use on 1 node)"
    );
}

/// Nobody answers at this node.
fn dead(node: &NodeId) -> Lost {
    Lost { node: node.clone(), machine_answers: false }
}

#[test]
fn a_lost_node_is_replaced_at_once_and_its_tasks_end_when_it_returns() {
    let mut sim = Sim::new(2);
    let id = sim.create(spec("web", 6)).unwrap();
    sim.settle();
    let lost = sim.nodes().into_iter().find(|n| sim.tables.get::<Node>(n).unwrap().manager.is_none()).unwrap();
    sim.apply(lose(&sim.tables, &[dead(&lost)], "heartbeat failure"));
    sim.settle();
    let running = sim.running(&id);
    assert_eq!(running.len(), 6);
    assert!(running.iter().all(|task| task.node.as_ref() != Some(&lost)));
    let left = sim.tables.tasks_of_node(&lost).all(|task| task.desired == TaskState::Shutdown);
    assert!(left);
    sim.node(&lost, |node| node.status.state = NodeState::Ready);
    sim.settle();
    assert_eq!(sim.running(&id).len(), 6);
    assert!(sim.tables.tasks_of_node(&lost).all(|task| task.status.state == TaskState::Shutdown));
}

#[test]
fn who_has_seen_what_is_asked_may_change_it_whatever_has_changed_by_itself_since() {
    let mut sim = Sim::new(1);
    let id = sim.create(spec("web", 2)).unwrap();
    sim.settle();
    sim.update(&id, |spec| spec.task.container.image = "web:2".to_owned()).unwrap();
    let seen = sim.tables.get::<Service>(&id).unwrap().meta.version;
    sim.pass(30);
    let now = sim.tables.get::<Service>(&id).unwrap().clone();
    assert!(now.meta.version > seen, "the update has completed meanwhile");
    let again = |sim: &Sim, version, image: &str| {
        let mut spec = now.spec.clone();
        spec.task.container.image = image.to_owned();
        service::update(&sim.tables, &id, version, spec, sim.now)
    };
    let changes = again(&sim, seen, "web:3").unwrap();
    sim.apply(changes);
    let refused = again(&sim, seen, "web:4").unwrap_err();
    assert_eq!(refused, ControlError::OutOfSequence, "somebody else has asked for something since");
    let future = Version(sim.tables.version().0 + 1);
    assert_eq!(again(&sim, future, "web:4").unwrap_err(), ControlError::OutOfSequence, "nobody has seen that");
}

#[test]
fn draining_moves_tasks_and_removing_leaves_nothing() {
    let mut sim = Sim::new(2);
    let id = sim.create(spec("web", 6)).unwrap();
    let mut everywhere = spec("agent", 0);
    everywhere.mode = ServiceMode::Global;
    let global = sim.create(everywhere).unwrap();
    sim.settle();
    assert_eq!(sim.running(&global).len(), 3);
    let drained = sim.nodes()[0].clone();
    sim.node(&drained, |node| node.spec.availability = Availability::Drain);
    sim.settle();
    assert_eq!((sim.running(&id).len(), sim.running(&global).len()), (6, 2));
    assert!(sim.tables.tasks_of_node(&drained).all(|task| task.status.state.is_terminal()));
    sim.apply(vec![Change::Delete(Key::Service(id.clone()))]);
    sim.settle();
    assert!(sim.tasks(&id).is_empty());
}

#[test]
fn a_failed_task_is_tried_again_after_its_delay_and_no_oftener_than_allowed() {
    let mut sim = Sim::new(0);
    sim.broken.insert("web:1".to_owned());
    let mut web = spec("web", 1);
    web.task.restart = Some(RestartPolicy {
        condition: RestartCondition::Any,
        delay: Some(Duration::from_secs(3)),
        max_attempts: 2,
        window: None,
    });
    let id = sim.create(web).unwrap();
    sim.settle();
    let tries = |sim: &Sim| sim.tasks(&id).iter().filter(|t| t.status.state == TaskState::Failed).count();
    assert_eq!((tries(&sim), sim.tasks(&id).len()), (1, 2));
    sim.pass(2);
    assert_eq!(tries(&sim), 1);
    sim.pass(1);
    assert_eq!(tries(&sim), 2);
    sim.pass(30);
    assert_eq!((tries(&sim), sim.tasks(&id).len()), (3, 3));
}

#[test]
fn a_task_that_cannot_even_be_made_ready_is_tried_once_per_delay() {
    // Also with the shortest history: what the delay counts from must not be forgotten.
    for history in [5, 0] {
        let mut sim = Sim::new(0);
        let mut cluster = sim.tables.cluster().unwrap().as_ref().clone();
        cluster.spec.task_history_limit = history;
        sim.apply(vec![cluster.into()]);
        sim.missing.insert("web:1".to_owned());
        let mut web = spec("web", 1);
        web.task.restart = Some(RestartPolicy { delay: Some(Duration::from_secs(5)), ..Default::default() });
        let id = sim.create(web).unwrap();
        let mut tried = BTreeSet::new();
        for _ in 0..20 {
            sim.pass(1);
            tried.extend(sim.tasks(&id).into_iter().map(|task| task.id));
        }
        // The first, the one that is made ready meanwhile, and one every five seconds.
        assert!((5..=6).contains(&tried.len()), "{} tries in 20 s", tried.len());
        sim.missing.clear();
        // What is left of one delay until there is another task, and one more until it may run.
        sim.pass(10);
        assert_eq!(sim.running(&id).len(), 1);
    }
}

#[test]
fn history_is_kept_short() {
    let mut sim = Sim::new(0);
    sim.broken.insert("web:1".to_owned());
    let id = sim.create(spec("web", 2)).unwrap();
    sim.pass(120);
    assert_eq!(sim.tasks(&id).len(), 10);
}

#[test]
fn an_update_rolls_a_few_at_a_time_and_completes_after_its_monitor() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = Sim::new(2);
        let mut web = spec("web", 4);
        web.update = Some(UpdateConfig { parallelism: 2, delay: Duration::from_secs(4), order, ..Default::default() });
        let id = sim.create(web).unwrap();
        sim.settle();
        sim.update(&id, |spec| spec.task.container.image = "web:2".to_owned()).unwrap();
        for _ in 0..20 {
            let changed = sim.step();
            let least = if order == UpdateOrder::StartFirst { 4 } else { 2 };
            assert!(sim.running(&id).len() >= least);
            if !changed {
                break;
            }
        }
        let new = |sim: &Sim| sim.running(&id).iter().filter(|t| t.spec.container.image == "web:2").count();
        assert_eq!((new(&sim), sim.status(&id)), (2, Some(UpdateState::Updating)), "{order:?}");
        sim.pass(4);
        assert_eq!(new(&sim), 4, "{order:?}");
        assert_eq!(sim.running(&id).len(), 4, "{order:?}");
        sim.pass(6);
        assert_eq!(sim.status(&id), Some(UpdateState::Completed), "{order:?}");
    }
}

#[test]
fn a_failing_update_pauses_or_goes_back_without_touching_what_was_not_replaced() {
    for (action, ends) in
        [(FailureAction::Pause, UpdateState::Paused), (FailureAction::Rollback, UpdateState::RollbackCompleted)]
    {
        let mut sim = Sim::new(2);
        sim.broken.insert("web:2".to_owned());
        let mut web = spec("web", 4);
        web.update = Some(UpdateConfig { failure_action: action, ..Default::default() });
        let id = sim.create(web).unwrap();
        sim.settle();
        let before: BTreeSet<_> = sim.running(&id).into_iter().map(|task| task.id).collect();
        sim.update(&id, |spec| spec.task.container.image = "web:2".to_owned()).unwrap();
        sim.pass(30);
        assert_eq!(sim.status(&id), Some(ends));
        let kept = sim.running(&id).into_iter().filter(|task| before.contains(&task.id)).count();
        assert_eq!(kept, 3, "{action:?}");
        if action == FailureAction::Rollback {
            assert_eq!(sim.running(&id).len(), 4);
        }
    }
}

#[test]
fn ingress_ports_labels_and_replicas_replace_nothing() {
    let mut sim = Sim::new(1);
    let id = sim.create(spec("web", 3)).unwrap();
    sim.settle();
    let before: BTreeSet<_> = sim.running(&id).into_iter().map(|task| task.id).collect();
    sim.update(&id, |spec| {
        *spec = publish(spec.clone(), &[(80, Some(8080), PublishMode::Ingress)]);
        spec.labels.insert("a".to_owned(), "b".to_owned());
        spec.mode = ServiceMode::Replicated { replicas: 5 };
    })
    .unwrap();
    sim.pass(3);
    let after: BTreeSet<_> = sim.running(&id).into_iter().map(|task| task.id).collect();
    assert_eq!(after.len(), 5);
    assert!(after.is_superset(&before));
    assert_eq!(sim.status(&id), None);
}

proptest! {
    /// Whatever happens, once nothing happens any more there are as many tasks as asked for, one in each slot.
    #[test]
    fn the_cluster_comes_to_rest_where_it_should(steps in prop::collection::vec((0u8..6, 0usize..4, 0u64..7), 1..25)) {
        let mut sim = Sim::new(3);
        let id = sim.create(spec("web", 3)).unwrap();
        let mut wanted = 3;
        for (what, which, count) in steps {
            let node = sim.nodes()[which].clone();
            match what {
                0 => sim.apply(lose(&sim.tables, &[dead(&node)], "heartbeat failure")),
                1 => sim.node(&node, |node| node.status.state = NodeState::Ready),
                2 => sim.node(&node, |node| node.spec.availability = Availability::Drain),
                3 => sim.node(&node, |node| node.spec.availability = Availability::Active),
                4 => {
                    wanted = count;
                    sim.update(&id, |spec| spec.mode = ServiceMode::Replicated { replicas: count }).unwrap();
                }
                _ => sim.update(&id, |spec| spec.task.force_update += 1).unwrap(),
            }
            for _ in 0..count {
                sim.step();
            }
        }
        for node in sim.nodes() {
            sim.node(&node, |node| {
                node.status.state = NodeState::Ready;
                node.spec.availability = Availability::Active;
            });
        }
        sim.pass(40);
        let running = sim.running(&id);
        prop_assert_eq!(running.len() as u64, wanted);
        let slots: BTreeSet<_> = running.iter().map(|task| task.slot).collect();
        prop_assert_eq!(slots.len(), running.len());
        let version = sim.tables.get::<Service>(&id).unwrap().task_version;
        prop_assert!(running.iter().all(|task| task.service_version == version));
        let addrs: BTreeSet<_> = running.iter().map(|task| task.attachments[0].addr).collect();
        prop_assert_eq!(addrs.len(), running.len());
    }
}
