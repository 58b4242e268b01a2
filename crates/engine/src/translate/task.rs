//! Tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{ContainerStatus, Network, NetworkId, Task};

use super::{endpoint, network, task_spec};
use crate::types::meta::{ObjectVersion, StringMap};
use crate::types::task as wire;

/// Writes a task.
#[must_use]
pub fn to_wire(task: &Task, networks: &BTreeMap<NetworkId, Arc<Network>>) -> wire::Task {
    let attachments = task.attachments.iter().filter_map(|attachment| {
        let network = networks.get(&attachment.network)?;
        Some(network::attachment_to_wire(attachment, network))
    });
    wire::Task {
        id: task.id.to_string(),
        version: ObjectVersion { index: task.meta.version.0 },
        created_at: task.meta.created.into(),
        updated_at: task.meta.updated.into(),
        name: String::new(),
        labels: StringMap::new(),
        spec: task_spec::to_wire(&task.spec),
        service_id: task.service.to_string(),
        slot: task.slot.unwrap_or(0),
        node_id: task.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        status: status(task),
        desired_state: task.desired.as_str().to_owned(),
        networks_attachments: attachments.collect(),
        generic_resources: Vec::new(),
        job_iteration: None,
    }
}

fn status(task: &Task) -> wire::TaskStatus {
    let status = &task.status;
    let ended = status.state.is_terminal();
    let container = |c: &ContainerStatus| wire::ContainerStatus {
        container_id: c.id.clone(),
        pid: c.pid.into(),
        exit_code: c.exit_code.map_or(if ended { -1 } else { 0 }, i64::from),
    };
    wire::TaskStatus {
        timestamp: status.timestamp.into(),
        state: status.state.as_str().to_owned(),
        message: status.message.clone(),
        err: status.err.clone().unwrap_or_default(),
        container_status: status.container.as_ref().map(container),
        port_status: wire::PortStatus { ports: status.host_ports.iter().map(endpoint::published_to_wire).collect() },
    }
}
