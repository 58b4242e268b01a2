//! One round of the leader: what should be different, as changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{Node, NodeId, NodeState, Service, ServiceId, Task, Timestamp};
use skep_store::{Change, Event, EventKind, Object, Tables};

use crate::draft::Draft;
use crate::{allocator, orchestrator, scheduler};

/// Which services to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dirty {
    All,
    Services(BTreeSet<ServiceId>),
}

impl Dirty {
    pub(crate) fn none() -> Self {
        Self::Services(BTreeSet::new())
    }

    /// What `event` may have changed the answer for.
    pub(crate) fn mark(&mut self, event: &Event) {
        match &event.object {
            Object::Service(service) => self.mark_service(&service.id),
            Object::Task(task) => self.mark_service(&task.service),
            // Whatever runs anywhere may depend on it.
            Object::Network(network) => {
                let before = event.before.as_ref();
                let same = |before: &Object| matches!(before, Object::Network(b) if b.spec == network.spec);
                // What addresses were given concerns nobody but those that they were given to.
                if event.kind != EventKind::Updated || !before.is_some_and(same) {
                    *self = Self::All;
                }
            }
            Object::Node(_) | Object::Cluster(_) => *self = Self::All,
            // Nothing is planned by them: what uses them is a service.
            Object::Secret(_) | Object::Config(_) => {}
        }
    }

    pub(crate) fn mark_service(&mut self, id: &ServiceId) {
        if let Self::Services(services) = self {
            services.insert(id.clone());
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        matches!(self, Self::Services(services) if services.is_empty())
    }

    fn services(&self, tables: &Tables) -> BTreeSet<ServiceId> {
        match self {
            Self::Services(services) => services.clone(),
            Self::All => {
                let known = tables.all::<Service>().map(|service| service.id.clone());
                // The tasks of a service that is gone are still to be removed.
                known.chain(tables.all::<Task>().map(|task| task.service.clone())).collect()
            }
        }
    }
}

/// What to do, and when to look at which service again should nothing happen before.
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) wakes: BTreeMap<ServiceId, Option<Timestamp>>,
}

/// Plans for the dirty services, gives addresses to whatever has none, and places whatever waits for a node.
pub(crate) fn plan(tables: &Tables, dirty: &Dirty, now: Timestamp, seed: u64) -> Plan {
    let mut draft = Draft::new(tables, now, seed);
    let mut wakes = BTreeMap::new();
    for id in dirty.services(tables) {
        let wake = orchestrator::reconcile(&mut draft, &id);
        wakes.insert(id, wake);
    }
    allocator::allocate(&mut draft);
    scheduler::schedule(&mut draft);
    Plan { changes: draft.into_changes(), wakes }
}

/// A node that has not been heard of for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) node: NodeId,
    /// Its machine does: what runs there may run still.
    pub(crate) machine_answers: bool,
}

/// The nodes as they are once some are `lost`.
pub(crate) fn lose(tables: &Tables, lost: &[Lost], message: &str) -> Vec<Change> {
    let nodes = lost.iter().filter_map(|lost| Some((tables.get::<Node>(&lost.node)?, lost.machine_answers)));
    let nodes = nodes.filter(|(node, _)| !matches!(node.status.state, NodeState::Down));
    let down = nodes.map(|(node, machine_answers)| {
        let mut node = Node::clone(node);
        node.status.state = NodeState::Down;
        node.status.machine_answers = machine_answers;
        message.clone_into(&mut node.status.message);
        node.into()
    });
    down.collect()
}
