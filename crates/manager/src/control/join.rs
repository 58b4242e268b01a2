//! New members.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use skep_model::{
    Availability, Meta, Network, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp,
};
use skep_store::{Change, Tables};

use super::cluster;
use crate::ControlError;
use crate::allocator::{EndpointError, Pools, collision};

const START_ELSEWHERE: &str =
    "start the swarm with another --default-addr-pool, or replace the ingress network by one with another --subnet";
const REPLACE: &str = "replace the network by one with another --subnet";

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
    let home = tables.home().ok_or(EndpointError::NoIngress)?;
    check_routes(tables, &joining.routes)?;
    // Asked again after an answer that got lost.
    if let Some(member) = tables.all::<Node>().find(|node| node.credential == joining.credential) {
        return Ok((Node::clone(member), Vec::new()));
    }
    let mut pools = Pools::new(tables);
    let overlay = pools.take(&home.id).map_err(EndpointError::from)?;
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
            machine_answers: false,
        },
        manager: None,
        overlay_addr: Some(overlay.addr()),
        credential: joining.credential,
    };
    let changes = std::iter::once(node.clone().into()).chain(pools.into_changed().map(Change::from));
    Ok((node, changes.collect()))
}

/// Addresses of the swarm's networks must not lead elsewhere on a node.
fn check_routes(tables: &Tables, routes: &[IpNet]) -> Result<(), ControlError> {
    for network in tables.all::<Network>() {
        let ipam = &network.spec.ipam;
        let subnets = [Some(IpNet::from(ipam.subnet)), ipam.ipv6.map(|ipv6| ipv6.subnet.into())];
        for subnet in subnets.into_iter().flatten() {
            if let Some(route) = collision(subnet, routes) {
                let way_out = if network.spec.ingress { START_ELSEWHERE } else { REPLACE };
                return Err(ControlError::RouteCollision {
                    network: network.spec.name.clone(),
                    subnet,
                    route,
                    way_out,
                });
            }
        }
    }
    Ok(())
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
