//! Published ports that a node leaves to a process of its own, told where people look.

use skep_model::{Node, NodeState, PortConflict, Protocol, PublishMode, Service, Task, TaskState};

use crate::backend::cluster::ClusterView;

/// Nodes that are named before it becomes "and so many more".
const NAMED: usize = 3;

/// What a node's status says of it; empty when there is nothing to say.
pub(super) fn of_node(node: &Node) -> String {
    let conflicts = node.status.port_conflicts.iter().map(ToString::to_string).collect::<Vec<_>>();
    match conflicts.len() {
        0 => String::new(),
        1 => format!("published {}: this node does not answer on it", conflicts[0]),
        _ => format!("published {}: this node does not answer on them", conflicts.join(", ")),
    }
}

/// What a task's status says of it: where its service's ports do not lead to it.
pub(super) fn of_task(task: &Task, view: &ClusterView) -> Option<String> {
    if view.nodes.values().all(|node| node.status.port_conflicts.is_empty()) {
        return None;
    }
    let runs = task.is_live() && task.status.state == TaskState::Running;
    let service = view.services.get(&task.service).filter(|_| runs)?;
    let host = task.status.host_ports.iter().map(|port| (port.protocol, port.published.get()));
    let host: Vec<_> = host.collect();
    let own = view.nodes.values().filter(|node| Some(&node.id) == task.node.as_ref());
    let here = own.flat_map(|node| sentences(node, &host));
    let sentences: Vec<String> = here.chain(elsewhere(service, view)).collect();
    listed(sentences)
}

/// What the answer to a change of the service warns of: nodes that do not answer on its ports.
pub(crate) fn of_service(service: &Service, view: &ClusterView) -> Vec<String> {
    listed(elsewhere(service, view).collect()).into_iter().collect()
}

fn elsewhere<'a>(service: &'a Service, view: &'a ClusterView) -> impl Iterator<Item = String> + 'a {
    let ports = service.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    let ports: Vec<_> = ports.map(|port| (port.protocol, port.published.get())).collect();
    view.nodes.values().flat_map(move |node| sentences(node, &ports))
}

/// One for each of the ports that is taken on the node.
fn sentences(node: &Node, ports: &[(Protocol, u16)]) -> Vec<String> {
    let is_up = node.status.state == NodeState::Ready;
    let conflicts = node.status.port_conflicts.iter().filter(|_| is_up);
    let about = |c: &&PortConflict| ports.contains(&(c.protocol, c.port.get()));
    conflicts.filter(about).map(|c| format!("{c} on {}, which does not answer on it", node.hostname())).collect()
}

fn listed(mut sentences: Vec<String>) -> Option<String> {
    let more = sentences.len().saturating_sub(NAMED);
    sentences.truncate(NAMED);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}
