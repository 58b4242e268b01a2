//! Gives out published ports and addresses. Pure: what is taken is read from the tables.

mod addresses;
mod ports;
mod subnet;

use std::sync::Arc;

use skep_model::{
    Endpoint, EndpointMode, Network, NetworkAttachment, PublishMode, Service, ServiceSpec, Task, TaskState, VirtualIp,
};
use skep_store::Tables;

pub use self::addresses::Exhausted;
pub(crate) use self::addresses::Pool;
pub use self::ports::PortError;
pub(crate) use self::subnet::collision;
pub use self::subnet::{SubnetError, ingress_subnet};
use crate::draft::Draft;

/// Why a service cannot answer where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no address left for it.
    #[error(transparent)]
    Address(#[from] Exhausted),
    /// The routing mesh has no network.
    #[error("service needs ingress network, but no ingress network is present")]
    NoIngress,
}

/// Where a service with `spec` answers. `before` is the service that the spec is for, if it exists: what was chosen for it stays.
///
/// # Errors
/// When a port or an address cannot be had.
pub(crate) fn endpoint(
    tables: &Tables,
    before: Option<&Service>,
    spec: &ServiceSpec,
) -> Result<Endpoint, EndpointError> {
    let ports = ports::choose(tables, before, spec)?;
    let mode = spec.endpoint.as_ref().and_then(|e| e.mode).unwrap_or_default();
    let meshed = ports.iter().any(|port| port.mode == PublishMode::Ingress);
    let kept = before.map(|service| service.endpoint.virtual_ips.clone()).unwrap_or_default();
    let virtual_ips = match (meshed && mode == EndpointMode::Vip, kept.is_empty()) {
        (true, true) => {
            let network = tables.ingress().ok_or(EndpointError::NoIngress)?;
            let addr = Pool::of(network, tables).take()?;
            vec![VirtualIp { network: network.id.clone(), addr }]
        }
        (true, false) => kept,
        (false, _) => Vec::new(),
    };
    Ok(Endpoint { spec: spec.endpoint.clone(), ports, virtual_ips })
}

/// Gives every node and every new task of the draft its address on the routing mesh's network.
pub(crate) fn allocate(draft: &mut Draft<'_>) {
    let Some(network) = draft.tables().ingress() else { return };
    let nodes: Vec<_> = draft.all_nodes().filter(|node| node.overlay_addr.is_none()).cloned().collect();
    let tasks: Vec<_> = draft.all_tasks().filter(|task| task.status.state == TaskState::New).cloned().collect();
    if nodes.is_empty() && tasks.is_empty() {
        return;
    }
    let mut pool = Pool::of(network, draft.tables());
    for node in nodes {
        if let Ok(addr) = pool.take() {
            let mut node = skep_model::Node::clone(&node);
            node.overlay_addr = Some(addr.addr());
            draft.put_node(node);
        }
    }
    for task in tasks {
        let allocated = attach(&task, network, &mut pool);
        if allocated != *task {
            draft.put_task(allocated);
        }
    }
}

fn attach(task: &Arc<Task>, network: &Network, pool: &mut Pool) -> Task {
    let mut task = Task::clone(task);
    match pool.take() {
        Ok(addr) => {
            task.attachments = vec![NetworkAttachment { network: network.id.clone(), addr }];
            task.status.state = TaskState::Pending;
            "pending task scheduling".clone_into(&mut task.status.message);
            task.status.err = None;
        }
        Err(error) => task.status.err = Some(error.to_string()),
    }
    task
}
