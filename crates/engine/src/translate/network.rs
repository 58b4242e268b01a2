//! Networks.

mod create;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use skep_model::{Network, NetworkAttachment, Node, NodeId, Service, Task, TaskState};

pub use self::create::create_from_wire;
use crate::backend::cluster::ClusterView;
use crate::backend::container::{ContainerInfo, ContainerNetwork};
use crate::types::meta::{Driver, ObjectVersion, StringMap};
use crate::types::network as wire;
use crate::types::task::{AttachedNetwork, AttachedNetworkSpec, IpamOptions, NetworkAttachment as WireAttachment};

const VXLAN_ID: &str = "com.docker.network.driver.overlay.vxlanid_list";

fn options(network: &Network) -> StringMap {
    let mut options = network.spec.options.clone();
    options.insert(VXLAN_ID.to_owned(), network.vni.to_string());
    options
}

fn ipam(network: &Network) -> Vec<wire::IpamConfig> {
    let ipam = &network.spec.ipam;
    let config = |subnet: IpNet, gateway: IpAddr, range: Option<Ipv4Net>| wire::IpamConfig {
        subnet: subnet.to_string(),
        gateway: gateway.to_string(),
        ip_range: range.map(|range| range.to_string()).unwrap_or_default(),
        ..wire::IpamConfig::default()
    };
    let ipv4 = config(ipam.subnet.into(), ipam.gateway.into(), ipam.range);
    let ipv6 = ipam.ipv6.map(|ipv6| config(ipv6.subnet.into(), ipv6.gateway.into(), None));
    [ipv4].into_iter().chain(ipv6).collect()
}

/// Writes a network as lists show it: without who is on it.
#[must_use]
pub fn to_wire(network: &Network) -> wire::Network {
    wire::Network {
        name: network.spec.name.clone(),
        id: network.id.to_string(),
        created: network.meta.created.into(),
        scope: "swarm".to_owned(),
        driver: "overlay".to_owned(),
        ipam: wire::Ipam { driver: "default".to_owned(), options: None, config: ipam(network) },
        enable_ipv6: network.spec.ipv6,
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        ingress: network.spec.ingress,
        options: Some(options(network)),
        labels: (!network.spec.labels.is_empty()).then(|| network.spec.labels.clone()),
        ..wire::Network::default()
    }
}

/// Writes a network with this node's containers on it.
#[must_use]
pub fn with_containers(network: &Network, containers: &[ContainerInfo]) -> wire::Network {
    let mut wire = to_wire(network);
    let mut attached = BTreeMap::new();
    for container in containers {
        for place in container.networks.iter().filter(|place| place.attachment.network == network.id) {
            attached.insert(container.id.clone(), endpoint(container, place));
        }
    }
    wire.containers = Some(attached);
    wire.labels.get_or_insert_default();
    wire
}

/// The nodes that run a task on the network; of the routing mesh's, every one.
pub(crate) fn peers(network: &Network, view: &ClusterView) -> Vec<wire::Peer> {
    let on_it = |task: &&Arc<Task>| holds(task) && task.attachments.iter().any(|a| a.network == network.id);
    let tasks: BTreeSet<&NodeId> = view.tasks.values().filter(on_it).filter_map(|task| task.node.as_ref()).collect();
    let meant = |node: &&Arc<Node>| match network.spec.ingress {
        true => node.overlay_addr.is_some(),
        false => tasks.contains(&node.id),
    };
    let peer = |node: &Arc<Node>| {
        Some(wire::Peer { name: node.id.as_str()[..12].to_owned(), ip: node.status.addr?.to_string() })
    };
    view.nodes.values().filter(meant).filter_map(peer).collect()
}

/// Whether a container of the task may be on its networks.
fn holds(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

/// The services on the network, with their addresses and tasks there.
pub(crate) fn services(network: &Network, view: &ClusterView) -> BTreeMap<String, wire::ServiceInfo> {
    let reached = |service: &Service| service.endpoint.virtual_ips.iter().any(|vip| vip.network == network.id);
    let on_it = view.services.values().filter(|service| service.is_on(&network.id) || reached(service));
    on_it.map(|service| (service.spec.name.to_string(), service_info(network, service, view))).collect()
}

fn service_info(network: &Network, service: &Service, view: &ClusterView) -> wire::ServiceInfo {
    let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network == network.id);
    let task = |task: &Arc<Task>| {
        let here = task.attachments.iter().find(|a| a.network == network.id && holds(task))?;
        let node = task.node.as_ref().and_then(|id| view.nodes.get(id)).and_then(|node| node.status.addr);
        let info = node.map(|addr| ("Host IP".to_owned(), addr.to_string()));
        Some(wire::TaskInfo {
            name: format!("{}.{}", task.display_name(), task.id),
            endpoint_id: task.status.container.as_ref().map(|c| c.id.clone()).unwrap_or_default(),
            endpoint_ip: here.addr.addr().to_string(),
            info: info.into_iter().collect(),
        })
    };
    let ports = service.endpoint.ports.iter().filter(|_| network.spec.ingress);
    wire::ServiceInfo {
        vip: vip.map(|vip| vip.addr.addr().to_string()).unwrap_or_default(),
        ports: ports.map(|port| format!("Target: {}, Publish: {}", port.target, port.published)).collect(),
        local_lb_index: 0,
        tasks: view.tasks_of(&service.id).filter_map(task).collect(),
    }
}

fn endpoint(container: &ContainerInfo, place: &ContainerNetwork) -> wire::EndpointResource {
    wire::EndpointResource {
        name: container.name.clone(),
        endpoint_id: container.id.clone(),
        mac_address: String::new(),
        ipv4_address: place.attachment.addr.to_string(),
        ipv6_address: place.ipv6.map(|ipv6| ipv6.to_string()).unwrap_or_default(),
    }
}

/// Writes a task's place on a network.
#[must_use]
pub fn attachment_to_wire(attachment: &NetworkAttachment, network: &Network) -> WireAttachment {
    // Who wants only one takes the first.
    let ipv6 = network.spec.ipv6.then(|| network.spec.ipv6_of(attachment.addr.addr()).to_string());
    let addresses = [attachment.addr.to_string()].into_iter().chain(ipv6);
    let driver = |name: &str| Driver { name: name.to_owned(), options: StringMap::new() };
    WireAttachment {
        network: AttachedNetwork {
            id: network.id.to_string(),
            version: ObjectVersion { index: network.meta.version.0 },
            created_at: network.meta.created.into(),
            updated_at: network.meta.updated.into(),
            spec: AttachedNetworkSpec {
                name: network.spec.name.clone(),
                labels: network.spec.labels.clone(),
                driver_configuration: Some(Driver::default()),
                ipv6_enabled: network.spec.ipv6,
                internal: network.spec.internal,
                attachable: network.spec.attachable,
                ingress: network.spec.ingress,
                ipam_options: Some(IpamOptions::default()),
                scope: "swarm".to_owned(),
            },
            driver_state: Driver { name: "overlay".to_owned(), options: options(network) },
            ipam_options: Some(IpamOptions { driver: driver("default"), configs: ipam(network) }),
        },
        addresses: addresses.collect(),
    }
}
