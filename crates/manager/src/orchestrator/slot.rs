//! The slots of a service and what is in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Meta, NodeId, PortConfig, Service, Task, TaskState, TaskStatus};
use skep_store::Tables;

use crate::allocator::is_elsewhere;
use crate::draft::{Draft, after};

/// Which instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SlotKey {
    /// Of a replicated service, from 1.
    Number(u64),
    /// Of a global service.
    Node(NodeId),
}

/// The tries at one instance, oldest first, without those that are to be removed.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) tasks: Vec<Arc<Task>>,
}

impl Slot {
    /// The tasks that are meant to run and have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(|task| task.is_live())
    }

    pub(super) fn is_live(&self) -> bool {
        self.live().next().is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.live().any(|task| task.status.state == TaskState::Running)
    }

    pub(super) fn latest(&self) -> Option<&Arc<Task>> {
        self.tasks.last()
    }

    /// Says what one of the tasks should come to.
    pub(super) fn desire(&mut self, draft: &mut Draft<'_>, task: &Arc<Task>, desired: TaskState) {
        let changed = draft.desire(task, desired);
        if let Some(place) = self.tasks.iter_mut().find(|t| t.id == task.id) {
            *place = changed;
        }
    }

    /// Adds a new task.
    pub(super) fn fill(&mut self, draft: &mut Draft<'_>, service: &Service, key: &SlotKey, desired: TaskState) {
        let mut task = new_task(draft, service, key, desired);
        // The order within a slot must not depend on clocks, which are set back and differ between leaders.
        if let Some(latest) = self.latest().filter(|latest| latest.meta.created >= task.meta.created) {
            task.meta.created = after(latest.meta.created, Duration::from_nanos(1));
        }
        draft.put_task(task.clone());
        self.tasks.push(Arc::new(task));
    }
}

/// All slots of a service that have or had a task.
#[derive(Debug, Default)]
pub(super) struct Slots(pub(super) BTreeMap<SlotKey, Slot>);

impl Slots {
    pub(super) fn of(draft: &Draft<'_>, service: &Service) -> Self {
        let mut tasks = draft.tasks_of(&service.id);
        tasks.retain(|task| task.desired != TaskState::Remove);
        tasks.sort_by(|a, b| (a.meta.created, &a.id).cmp(&(b.meta.created, &b.id)));
        let mut slots = Self::default();
        for task in tasks {
            let key = match (task.slot, &task.node) {
                (Some(number), _) => SlotKey::Number(number),
                (None, Some(node)) => SlotKey::Node(node.clone()),
                // Tasks of global services are made with their node.
                (None, None) => continue,
            };
            slots.0.entry(key).or_default().tasks.push(task);
        }
        slots
    }

    pub(super) fn keys(&self) -> Vec<SlotKey> {
        self.0.keys().cloned().collect()
    }
}

/// Whether a task must be replaced to be what its service asks for. A task of an older version whose spec is the same after all (an
/// update that was taken back) may stay, where it can serve what is published.
pub(super) fn is_outdated(tables: &Tables, task: &Task, service: &Service) -> bool {
    let fits = || task.spec == service.spec.task && task.host_ports.iter().eq(service.spec.host_ports());
    task.service_version != service.task_version && (!fits() || is_elsewhere(tables, service, task))
}

fn new_task(draft: &mut Draft<'_>, service: &Service, key: &SlotKey, desired: TaskState) -> Task {
    let (slot, node) = match key {
        SlotKey::Number(number) => (Some(*number), None),
        SlotKey::Node(node) => (None, Some(node.clone())),
    };
    let now = draft.now();
    Task {
        id: draft.task_id(),
        meta: Meta::new(now),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        service_version: service.task_version,
        slot,
        node,
        spec: service.spec.task.clone(),
        generic: Default::default(),
        desired,
        status: TaskStatus {
            timestamp: now,
            state: TaskState::New,
            message: "created".to_owned(),
            err: None,
            container: None,
            host_ports: Vec::new(),
        },
        attachments: Vec::new(),
        host_ports: service.spec.host_ports().cloned().collect::<Vec<PortConfig>>(),
    }
}
