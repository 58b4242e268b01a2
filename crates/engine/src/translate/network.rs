//! Networks.

use std::collections::BTreeMap;

use skep_model::{Network, NetworkAttachment, Node};

use crate::backend::container::ContainerInfo;
use crate::types::meta::{Driver, ObjectVersion, StringMap};
use crate::types::network as wire;
use crate::types::task::{AttachedNetwork, AttachedNetworkSpec, IpamOptions, NetworkAttachment as WireAttachment};

const VXLAN_ID: &str = "com.docker.network.driver.overlay.vxlanid_list";

fn options(network: &Network) -> StringMap {
    StringMap::from([(VXLAN_ID.to_owned(), network.vni.to_string())])
}

fn ipam(network: &Network) -> wire::IpamConfig {
    wire::IpamConfig {
        subnet: network.spec.ipam.subnet.to_string(),
        gateway: network.spec.ipam.gateway.to_string(),
        ..wire::IpamConfig::default()
    }
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
        ipam: wire::Ipam { driver: "default".to_owned(), options: None, config: vec![ipam(network)] },
        ingress: network.spec.ingress,
        options: Some(options(network)),
        labels: (!network.spec.labels.is_empty()).then(|| network.spec.labels.clone()),
        ..wire::Network::default()
    }
}

/// Writes a network with this node's containers on it and the nodes that it reaches.
#[must_use]
pub fn inspect<'a>(
    network: &Network,
    containers: &[ContainerInfo],
    nodes: impl Iterator<Item = &'a Node>,
) -> wire::Network {
    let mut wire = to_wire(network);
    let mut attached = BTreeMap::new();
    for container in containers {
        for (_, attachment) in container.networks.iter().filter(|(_, a)| a.network == network.id) {
            attached.insert(container.id.clone(), endpoint(container, attachment));
        }
    }
    wire.containers = Some(attached);
    wire.labels.get_or_insert_default();
    let peer =
        |node: &Node| Some(wire::Peer { name: node.id.as_str()[..12].to_owned(), ip: node.status.addr?.to_string() });
    wire.peers = nodes.filter(|n| n.overlay_addr.is_some()).filter_map(peer).collect();
    wire
}

fn endpoint(container: &ContainerInfo, attachment: &NetworkAttachment) -> wire::EndpointResource {
    wire::EndpointResource {
        name: container.name.clone(),
        endpoint_id: container.id.clone(),
        mac_address: String::new(),
        ipv4_address: attachment.addr.to_string(),
        ipv6_address: String::new(),
    }
}

/// Writes a task's place on a network.
#[must_use]
pub fn attachment_to_wire(attachment: &NetworkAttachment, network: &Network) -> WireAttachment {
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
                ingress: network.spec.ingress,
                ipam_options: Some(IpamOptions::default()),
                scope: "swarm".to_owned(),
                ..AttachedNetworkSpec::default()
            },
            driver_state: Driver { name: "overlay".to_owned(), options: options(network) },
            ipam_options: Some(IpamOptions { driver: driver("default"), configs: vec![ipam(network)] }),
        },
        addresses: vec![attachment.addr.to_string()],
    }
}
