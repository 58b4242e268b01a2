//! The first objects of a new swarm.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use skep_ca::{RootCa, new_secret};
use skep_model::{
    Availability, Cluster, ClusterId, ClusterSpec, IpamConfig, JoinSecrets, ManagerStatus, Meta, Network, NetworkId,
    NetworkSpec, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Reachability, Role, Timestamp,
};
use skep_store::Change;

use crate::allocator::{INGRESS_VNI, ingress_subnet};
use crate::{ControlError, gossip_keys};

/// Docker's default pool.
const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// How a swarm starts.
#[derive(Debug, Clone)]
pub struct InitCluster {
    /// The swarm's identity.
    pub cluster: ClusterId,
    /// The root of its certificates.
    pub root: RootCa,
    /// The first manager.
    pub node: NodeId,
    /// [`skep_ca::NodeKeys::digest`] of its key.
    pub credential: String,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Its number in the Raft group.
    pub raft_id: u64,
    /// Where its manager port answers; other nodes reach it at this address, the overlay too.
    pub addr: SocketAddr,
    /// What may run on it.
    pub availability: Availability,
    /// What is asked of the swarm.
    pub spec: ClusterSpec,
    /// The pools that networks are cut from; empty is `10.0.0.0/8`.
    pub default_pools: Vec<Ipv4Net>,
    /// Prefix length of such networks.
    pub subnet_size: u8,
    /// UDP port of the overlay.
    pub data_path_port: u16,
    /// Destinations of the routes that the node has.
    pub routes: Vec<IpNet>,
}

/// The first objects of a new swarm: the swarm, its first manager, and the routing mesh's network.
///
/// # Errors
/// When the spec makes no sense, or the pools collide with routes that the node has.
pub fn init_cluster(init: InitCluster) -> Result<Vec<Change>, ControlError> {
    super::cluster::check(&init.spec)?;
    let default_pools = if init.default_pools.is_empty() { vec![DEFAULT_POOL] } else { init.default_pools.clone() };
    let subnet = ingress_subnet(&default_pools, &init.routes)?;
    let now = Timestamp::now();
    let mut hosts = subnet.hosts();
    let no_room =
        || ControlError::BadJoin("the address pool is too small for the routing mesh: give the swarm a larger one");
    let gateway = hosts.next().ok_or_else(no_room)?;
    let overlay = hosts.next().ok_or_else(no_room)?;
    let network = ingress(subnet, gateway, overlay, now);
    let cluster = Cluster {
        id: init.cluster.clone(),
        meta: Meta::new(now),
        spec: init.spec.clone(),
        join: JoinSecrets { worker: new_secret(), manager: new_secret() },
        authority: init.root.authority(),
        unlock_key: init.spec.autolock.then(super::cluster::new_unlock_key),
        default_pools,
        subnet_size: init.subnet_size,
        data_path_port: init.data_path_port,
        last_vni: INGRESS_VNI,
        gossip_keys: Some(gossip_keys::first(now)),
    };
    Ok(vec![cluster.into(), network.into(), first_manager(init, overlay, now).into()])
}

fn ingress(subnet: Ipv4Net, gateway: Ipv4Addr, last: Ipv4Addr, now: Timestamp) -> Network {
    Network {
        id: NetworkId::random(),
        meta: Meta::new(now),
        spec: NetworkSpec {
            name: "ingress".to_owned(),
            labels: BTreeMap::new(),
            ipam: IpamConfig { subnet, gateway, range: None, ipv6: None },
            ingress: true,
            internal: false,
            attachable: false,
            ipv6: false,
            options: BTreeMap::new(),
        },
        vni: INGRESS_VNI,
        last: Some(last),
        retired: false,
    }
}

fn first_manager(init: InitCluster, overlay: Ipv4Addr, now: Timestamp) -> Node {
    Node {
        id: init.node,
        meta: Meta::new(now),
        spec: NodeSpec { name: None, labels: BTreeMap::new(), role: Role::Manager, availability: init.availability },
        description: Some(init.description),
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: Some(init.addr.ip()),
            port_conflicts: Vec::new(),
            machine_answers: false,
        },
        manager: Some(ManagerStatus {
            raft_id: init.raft_id,
            addr: init.addr,
            leader: true,
            reachability: Reachability::Reachable,
        }),
        overlay_addr: Some(overlay),
        credential: init.credential,
    }
}
