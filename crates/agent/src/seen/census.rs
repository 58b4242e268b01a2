//! How many flows there are, by port and task.

use std::collections::BTreeMap;

use skep_mesh::{Flow, FlowRole, FlowState, FrontendKey};
use skep_model::TaskId;

/// Flows that are not closed, of clients that asked published ports of this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    ports: BTreeMap<FrontendKey, u64>,
    backends: BTreeMap<(FrontendKey, TaskId), u64>,
}

impl Census {
    pub(super) fn of(flows: &[Flow]) -> Self {
        let mut census = Self::default();
        for flow in flows.iter().filter(|f| !f.vip && f.role == FlowRole::Asked && f.state != FlowState::Closed) {
            let key = FrontendKey { protocol: flow.protocol, port: flow.asked.port() };
            *census.ports.entry(key).or_default() += 1;
            if let Some(task) = &flow.task {
                *census.backends.entry((key, task.clone())).or_default() += 1;
            }
        }
        census
    }

    pub(super) fn of_port(&self, key: FrontendKey) -> u64 {
        self.ports.get(&key).copied().unwrap_or(0)
    }

    pub(super) fn of_backend(&self, key: FrontendKey, task: &TaskId) -> u64 {
        self.backends.get(&(key, task.clone())).copied().unwrap_or(0)
    }
}
