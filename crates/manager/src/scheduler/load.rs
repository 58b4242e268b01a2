//! What nodes carry already.

use std::collections::{HashMap, HashSet};

use skep_model::{NodeId, Protocol, ServiceId, Task, TaskState};

use super::filter::host_ports;
use super::generic::Given;
use crate::draft::Draft;

/// What one node carries.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Tasks that are meant to run.
    pub(super) tasks: u64,
    services: HashMap<ServiceId, u64>,
    /// Set aside, billionths of a CPU.
    pub(super) nano_cpus: u64,
    /// Set aside, bytes.
    pub(super) memory: u64,
    /// Generic resources that tasks have.
    pub(super) generic: Given,
    /// Held by tasks that have not ended.
    pub(super) host_ports: HashSet<(Protocol, u16)>,
}

impl Load {
    /// Tasks of a service that are meant to run.
    pub(super) fn of_service(&self, service: &ServiceId) -> u64 {
        self.services.get(service).copied().unwrap_or_default()
    }

    fn add(&mut self, task: &Task) {
        // A task that is to stop holds what it has until it has ended, but does not count when tasks are spread.
        if task.desired <= TaskState::Running {
            self.tasks += 1;
            *self.services.entry(task.service.clone()).or_default() += 1;
        }
        self.generic.add(&task.generic);
        self.nano_cpus += task.spec.resources.reservations.nano_cpus;
        self.memory += task.spec.resources.reservations.memory;
        self.host_ports.extend(host_ports(task));
    }
}

/// What all nodes carry.
#[derive(Debug, Default)]
pub(super) struct Loads {
    nodes: HashMap<NodeId, Load>,
    none: Load,
}

impl Loads {
    pub(super) fn of(draft: &Draft<'_>) -> Self {
        let mut loads = Self::default();
        for task in draft.all_tasks() {
            let placed = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
            if let Some(node) = task.node.as_ref().filter(|_| placed) {
                loads.add(node, task);
            }
        }
        loads
    }

    pub(super) fn get(&self, node: &NodeId) -> &Load {
        self.nodes.get(node).unwrap_or(&self.none)
    }

    pub(super) fn add(&mut self, node: &NodeId, task: &Task) {
        self.nodes.entry(node.clone()).or_default().add(task);
    }
}
