//! Tasks.

use skep_model::{ContainerStatus, PublishMode, PublishedPort, Task, TaskState};

use super::{conflict, endpoint, generic, network, task_spec};
use crate::backend::cluster::ClusterView;
use crate::types::meta::{ObjectVersion, StringMap};
use crate::types::task as wire;

/// Writes a task of the swarm that `view` shows.
#[must_use]
pub fn to_wire(task: &Task, view: &ClusterView) -> wire::Task {
    let attachments = task.attachments.iter().filter_map(|attachment| {
        let network = view.networks.get(&attachment.network)?;
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
        status: status(task, view),
        desired_state: task.desired.as_str().to_owned(),
        networks_attachments: attachments.collect(),
        generic_resources: generic::to_wire(&task.generic),
        assigned_generic_resources: generic::to_wire(&task.generic),
        job_iteration: None,
    }
}

fn status(task: &Task, view: &ClusterView) -> wire::TaskStatus {
    let status = &task.status;
    let ended = status.state.is_terminal();
    let container = |c: &ContainerStatus| wire::ContainerStatus {
        container_id: c.id.clone(),
        pid: c.pid.into(),
        exit_code: c.exit_code.map_or(if ended { -1 } else { 0 }, i64::from),
    };
    let ports = status.host_ports.iter().chain(ingress_ports(task, view));
    wire::TaskStatus {
        timestamp: status.timestamp.into(),
        state: status.state.as_str().to_owned(),
        message: status.message.clone(),
        err: status.err.clone().or_else(|| conflict::of_task(task, view)).unwrap_or_default(),
        container_status: status.container.as_ref().map(container),
        port_status: wire::PortStatus { ports: ports.map(endpoint::published_to_wire).collect() },
    }
}

/// The ports of all nodes that lead to the task. A real engine leaves them out here; people look for them in `service ps` all the same,
/// most of all for a number that was chosen for them.
fn ingress_ports<'a>(task: &Task, view: &'a ClusterView) -> impl Iterator<Item = &'a PublishedPort> {
    let runs = task.is_live() && task.status.state == TaskState::Running;
    let service = view.services.get(&task.service).filter(|_| runs);
    let ports = service.into_iter().flat_map(|service| &service.endpoint.ports);
    ports.filter(|port| port.mode == PublishMode::Ingress)
}
