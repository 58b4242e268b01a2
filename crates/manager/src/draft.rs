//! A plan in the making: the tables as they are, and what is to be changed in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skep_model::{NetworkId, Node, NodeId, NodeState, Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use skep_store::{Change, Key, Object, Tables};

use crate::allocator::Pools;

/// What planners read and write. Reads see what was written before; [`Draft::into_changes`] says what differs from the tables.
///
/// Time and chance come in from outside, so that the same tables, time and seed give the same plan.
pub(crate) struct Draft<'a> {
    tables: &'a Tables,
    now: Timestamp,
    rng: StdRng,
    /// `None` is deleted.
    tasks: BTreeMap<TaskId, Option<Arc<Task>>>,
    /// Tasks that are not in the tables yet, by service.
    fresh: BTreeMap<ServiceId, Vec<TaskId>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Those that are gone.
    networks: Vec<NetworkId>,
    pools: Pools<'a>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(tables: &'a Tables, now: Timestamp, seed: u64) -> Self {
        Self {
            tables,
            now,
            rng: StdRng::seed_from_u64(seed),
            tasks: BTreeMap::new(),
            fresh: BTreeMap::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            networks: Vec::new(),
            pools: Pools::new(tables),
        }
    }

    /// The tables as they were before.
    pub(crate) fn tables(&self) -> &'a Tables {
        self.tables
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// The free addresses: what is taken is taken for the whole plan.
    pub(crate) fn pools(&mut self) -> &mut Pools<'a> {
        &mut self.pools
    }

    /// A number that depends on the seed alone.
    pub(crate) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    /// An identifier that no task has. Not a secret: it may follow from the seed.
    pub(crate) fn task_id(&mut self) -> TaskId {
        loop {
            let id = self.any_task_id();
            if self.tables.get::<Task>(&id).is_none() && !self.tasks.contains_key(&id) {
                return id;
            }
        }
    }

    fn any_task_id(&mut self) -> TaskId {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let text: String = (0..25).map(|_| char::from(DIGITS[self.rng.random_range(0..DIGITS.len())])).collect();
        text.parse().expect("25 digits and small letters are an identifier")
    }

    pub(crate) fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id).or_else(|| self.tables.get::<Service>(id))
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        self.services.insert(service.id.clone(), Arc::new(service));
    }

    pub(crate) fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id).or_else(|| self.tables.get::<Node>(id))
    }

    /// All nodes, in the order of their ids.
    pub(crate) fn all_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        // Nodes are never created in a draft.
        self.tables.all::<Node>().map(|node| self.nodes.get(&node.id).unwrap_or(node))
    }

    pub(crate) fn put_node(&mut self, node: Node) {
        self.nodes.insert(node.id.clone(), Arc::new(node));
    }

    /// The tasks of a service, the ended ones too.
    pub(crate) fn tasks_of(&self, service: &ServiceId) -> Vec<Arc<Task>> {
        let known = self.tables.tasks_of_service(service).filter_map(|task| self.current(task));
        known.chain(self.fresh_of(service)).cloned().collect()
    }

    /// Every task, the ended ones too.
    pub(crate) fn all_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        let known = self.tables.all::<Task>().filter_map(|task| self.current(task));
        known.chain(self.fresh.keys().flat_map(|service| self.fresh_of(service)))
    }

    fn current<'b>(&'b self, task: &'b Arc<Task>) -> Option<&'b Arc<Task>> {
        match self.tasks.get(&task.id) {
            Some(changed) => changed.as_ref(),
            None => Some(task),
        }
    }

    fn fresh_of(&self, service: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.fresh.get(service).into_iter().flatten().filter_map(|id| self.tasks.get(id)?.as_ref())
    }

    pub(crate) fn put_task(&mut self, task: Task) {
        if self.tables.get::<Task>(&task.id).is_none() && !self.tasks.contains_key(&task.id) {
            self.fresh.entry(task.service.clone()).or_default().push(task.id.clone());
        }
        self.tasks.insert(task.id.clone(), Some(Arc::new(task)));
    }

    /// Says what a task should come to, and returns it as it is then. A desired state never goes back.
    pub(crate) fn desire(&mut self, task: &Arc<Task>, desired: TaskState) -> Arc<Task> {
        let mut changed = Task::clone(task);
        changed.desired = changed.desired.max(desired);
        let changed = Arc::new(changed);
        self.tasks.insert(task.id.clone(), Some(changed.clone()));
        changed
    }

    pub(crate) fn delete_task(&mut self, id: &TaskId) {
        self.tasks.insert(id.clone(), None);
    }

    pub(crate) fn delete_network(&mut self, id: &NetworkId) {
        self.networks.push(id.clone());
    }

    /// Whether the node is there and not lost.
    pub(crate) fn reaches(&self, node: &NodeId) -> bool {
        self.node(node).is_some_and(|node| is_up(node))
    }

    /// Whether nothing of the task runs any more, as far as anybody can know.
    pub(crate) fn is_over(&self, task: &Task) -> bool {
        task.status.state.is_terminal() || !task.node.as_ref().is_some_and(|node| self.reaches(node))
    }

    /// What differs from the tables.
    pub(crate) fn into_changes(self) -> Vec<Change> {
        let nodes = self.nodes.into_values().map(|node| Change::Put(Object::Node(node)));
        let services = self.services.into_values().map(|service| Change::Put(Object::Service(service)));
        let networks = self.pools.into_changed().map(Change::from);
        let gone = self.networks.into_iter().map(|id| Change::Delete(Key::Network(id)));
        let mut changes: Vec<_> = nodes.chain(services).chain(networks).chain(gone).collect();
        for (id, task) in self.tasks {
            let before = self.tables.get::<Task>(&id);
            match task {
                Some(task) if before != Some(&task) => changes.push(Change::Put(Object::Task(task))),
                None if before.is_some() => changes.push(Change::Delete(Key::Task(id))),
                _ => {}
            }
        }
        changes
    }
}

/// Whether a node is believed to run what it was told to: one that has not reported yet gets the benefit of the doubt.
pub(crate) fn is_up(node: &Node) -> bool {
    matches!(node.status.state, NodeState::Ready | NodeState::Unknown)
}

/// Whether a node was given up although its machine answers: its daemon has gone, and its tasks may not have noticed.
pub(crate) fn is_away(node: &Node) -> bool {
    node.status.state == NodeState::Down && node.status.machine_answers
}

/// `time` plus `duration`, or the end of time.
pub(crate) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// The earlier of two times that may be none.
pub(crate) fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
