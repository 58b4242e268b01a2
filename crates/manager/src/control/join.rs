//! New members.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
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
    /// Digest of its public key.
    pub(crate) credential: String,
    pub(crate) description: NodeDescription,
    pub(crate) addr: IpAddr,
    pub(crate) availability: Availability,
    pub(crate) routes: Vec<IpNet>,
}

/// Makes a machine a member, or finds the member that it is already.
pub(crate) fn join(tables: &Tables, joining: Joining, now: Timestamp) -> Result<(Node, Vec<Change>), ControlError> {
    cluster(tables)?;
    check_address(tables, joining.addr)?;
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

/// Overlay packets are taken from members' addresses only, and come from an address of the family that they go to: all nodes of a swarm
/// have one in common.
fn check_address(tables: &Tables, addr: IpAddr) -> Result<(), ControlError> {
    let link_local = matches!(addr, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if addr.is_unspecified() || addr.is_multicast() || link_local {
        return Err(ControlError::BadJoin(
            "a node must be reached at an address that is valid beyond its link: give --advertise-addr one",
        ));
    }
    let others = tables.all::<Node>().find_map(|node| node.status.addr);
    match others {
        Some(IpAddr::V4(_)) if addr.is_ipv6() => Err(ControlError::BadJoin(
            "the nodes of this swarm reach each other by IPv4: give --advertise-addr an IPv4 address of this node",
        )),
        Some(IpAddr::V6(_)) if addr.is_ipv4() => Err(ControlError::BadJoin(
            "the nodes of this swarm reach each other by IPv6: give --advertise-addr an IPv6 address of this node",
        )),
        _ => Ok(()),
    }
}
