//! Gives out published ports and addresses. Pure: what is taken is read from the tables.

mod addresses;
mod ports;
mod retired;
mod subnet;
mod subnet6;
#[cfg(test)]
mod tests;
mod vni;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skep_model::{
    Endpoint, EndpointMode, Network, NetworkAttachment, NetworkId, Node, PublishMode, Service, ServiceSpec, Task,
    TaskState, VirtualIp,
};
use skep_store::Tables;

pub use self::addresses::AddressError;
pub(crate) use self::addresses::{Pools, first_of};
pub use self::ports::PortError;
pub(crate) use self::retired::{is_elsewhere, is_unused, moves_to_ingress};
pub use self::subnet::{SubnetError, ingress_subnet};
pub(crate) use self::subnet::{collision, ipam};
pub(crate) use self::vni::{INGRESS_VNI, next_vni};
use crate::draft::Draft;

/// Why a service cannot answer where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no address for it.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The routing mesh has no network.
    #[error(
        "service needs ingress network, but no ingress network is present: make one with docker network create -d overlay --ingress, or publish in mode=host"
    )]
    NoIngress,
    /// It is to be on a network that is not there.
    #[error("network {0} not found")]
    NoNetwork(NetworkId),
}

/// Where a service with `spec` answers. `before` is the service that the spec is for, if it exists: what was chosen for it stays.
///
/// # Errors
/// When a port or an address cannot be had, or a network is not there.
pub(crate) fn endpoint(
    tables: &Tables,
    pools: &mut Pools<'_>,
    before: Option<&Service>,
    spec: &ServiceSpec,
) -> Result<Endpoint, EndpointError> {
    let mut attached = spec.task.networks.iter().map(|(network, _)| network);
    if let Some(gone) = attached.find(|network| tables.get::<Network>(network).is_none()) {
        return Err(EndpointError::NoNetwork(gone.clone()));
    }
    let ports = ports::choose(tables, before, spec)?;
    let mode = spec.endpoint.as_ref().and_then(|e| e.mode).unwrap_or_default();
    let meshed = ports.iter().any(|port| port.mode == PublishMode::Ingress);
    let kept = before.map(|service| service.endpoint.virtual_ips.as_slice()).unwrap_or_default();
    let virtual_ips = match mode {
        EndpointMode::Vip => virtual_ips(pools, kept, &reached_on(tables, spec, meshed)?)?,
        EndpointMode::Dnsrr => Vec::new(),
    };
    Ok(Endpoint { spec: spec.endpoint.clone(), ports, virtual_ips })
}

/// The networks on which a service has an address of its own: the routing mesh's if it publishes anything there, then those of its spec.
fn reached_on(tables: &Tables, spec: &ServiceSpec, meshed: bool) -> Result<Vec<NetworkId>, EndpointError> {
    let ingress = if meshed { Some(tables.ingress().ok_or(EndpointError::NoIngress)?.id.clone()) } else { None };
    Ok(ingress.into_iter().chain(spec.task.networks.iter().map(|(network, _)| network.clone())).collect())
}

fn virtual_ips(
    pools: &mut Pools<'_>,
    kept: &[VirtualIp],
    networks: &[NetworkId],
) -> Result<Vec<VirtualIp>, AddressError> {
    let kept: BTreeMap<&NetworkId, Ipv4Net> = kept.iter().map(|vip| (&vip.network, vip.addr)).collect();
    let one = |network: &NetworkId| {
        let addr = kept.get(network).copied().map_or_else(|| pools.take(network), Ok)?;
        Ok(VirtualIp { network: network.clone(), addr })
    };
    networks.iter().map(one).collect()
}

/// Gives every node of the draft its address on the network that all are on, and every new task one on each of its networks; takes away what was the
/// routing mesh's network once nobody is on it any more.
pub(crate) fn allocate(draft: &mut Draft<'_>) {
    retired::sweep(draft);
    let Some(home) = draft.tables().home() else { return };
    let nodes: Vec<_> = draft.all_nodes().filter(|node| node.overlay_addr.is_none()).cloned().collect();
    let new = |task: &&Arc<Task>| task.status.state == TaskState::New && task.is_live();
    let tasks: Vec<_> = draft.all_tasks().filter(new).cloned().collect();
    for node in nodes {
        if let Ok(addr) = draft.pools().take(&home.id) {
            let mut node = Node::clone(&node);
            node.overlay_addr = Some(addr.addr());
            draft.put_node(node);
        }
    }
    for task in tasks {
        let allocated = attach(&task, &home.id, draft.pools());
        if allocated != *task {
            draft.put_task(allocated);
        }
    }
}

fn attach(task: &Task, home: &NetworkId, pools: &mut Pools<'_>) -> Task {
    let mut task = task.clone();
    match attachments(&task, home, pools) {
        Ok(attachments) => {
            task.attachments = attachments;
            task.status.state = TaskState::Pending;
            "pending task scheduling".clone_into(&mut task.status.message);
            task.status.err = None;
        }
        Err(error) => task.status.err = Some(error.to_string()),
    }
    task
}

/// An address on each of a task's networks, that which all are on first; or none at all: what waits must keep nothing from others.
fn attachments(task: &Task, home: &NetworkId, pools: &mut Pools<'_>) -> Result<Vec<NetworkAttachment>, AddressError> {
    let networks = || std::iter::once(home).chain(task.spec.networks.iter().map(|(network, _)| network));
    networks().try_for_each(|network| pools.check(network))?;
    networks().map(|network| Ok(NetworkAttachment { network: network.clone(), addr: pools.take(network)? })).collect()
}
