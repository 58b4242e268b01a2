//! New members.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use skep_model::{Availability, Meta, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp};
use skep_store::{Change, Tables};

use super::cluster;
use crate::ControlError;
use crate::allocator::{EndpointError, Pool, collision};

/// A machine that wants to be a member.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    /// What its token lets it become.
    pub(crate) role: Role,
    /// Digest of its key.
    pub(crate) credential: String,
    pub(crate) description: NodeDescription,
    pub(crate) addr: IpAddr,
    pub(crate) availability: Availability,
    pub(crate) routes: Vec<Ipv4Net>,
}

/// Makes a machine a member, or finds the member that it is already.
pub(crate) fn join(tables: &Tables, joining: Joining, now: Timestamp) -> Result<(Node, Vec<Change>), ControlError> {
    cluster(tables)?;
    if joining.role == Role::Manager {
        return Err(ControlError::ManagerJoin);
    }
    if !matches!(joining.addr, IpAddr::V4(addr) if addr != Ipv4Addr::UNSPECIFIED) {
        return Err(ControlError::BadJoin("a node must be reached at an IPv4 address: give --advertise-addr one"));
    }
    let ingress = tables.ingress().ok_or(EndpointError::NoIngress)?;
    let subnet = ingress.spec.ipam.subnet;
    if let Some(route) = collision(subnet, &joining.routes) {
        return Err(ControlError::RouteCollision { network: ingress.spec.name.clone(), subnet, route });
    }
    // Asked again after an answer that got lost.
    if let Some(member) = tables.all::<Node>().find(|node| node.credential == joining.credential) {
        return Ok((Node::clone(member), Vec::new()));
    }
    let overlay = Pool::of(ingress, tables).take().map_err(EndpointError::from)?;
    let node = Node {
        id: NodeId::random(),
        meta: Meta::new(now),
        spec: NodeSpec { name: None, labels: BTreeMap::new(), role: joining.role, availability: joining.availability },
        description: Some(joining.description),
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: Some(joining.addr),
            port_conflicts: Vec::new(),
        },
        manager: None,
        overlay_addr: Some(overlay.addr()),
        credential: joining.credential,
    };
    Ok((node.clone(), vec![node.into()]))
}
