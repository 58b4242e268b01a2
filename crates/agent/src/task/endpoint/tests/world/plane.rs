//! What a data plane does with the task, by the real compiler.

use std::collections::{BTreeMap, BTreeSet};

use skep_mesh::{
    BackendState, Desired, Devices, GroupKey, LocalTask, LocatedEndpoint, Network, NetworkKind, OwnNode, compile,
};
use skep_model::{EndpointRecord, Protocol, PublishMode, PublishedPort, ServiceEntry, TaskId, Version};
use skep_netdb::View;

use super::side::SERVICE;
use super::side::Side::{self, Other, Owner};

/// What a data plane does with the task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(in super::super) struct Plane {
    pub(super) state: Option<BackendState>,
    /// Whether it is among those that new flows are shared among.
    pub(super) chosen: bool,
    /// Whether somebody else is.
    pub(super) others: bool,
}

/// What the compiler makes of what the node of one side knows.
pub(super) fn compiled(side: Side, view: &View, local: Option<LocalTask>) -> Plane {
    let desired = desired(side, view, local);
    let tables = compile(&desired);
    let group = &tables.groups[&GroupKey::Service(SERVICE.clone(), false)];
    let with = |state: BackendState| -> BTreeSet<TaskId> {
        let found = tables.backends.iter().filter(|(_, backend)| backend.state == state);
        found.map(|(key, _)| key.task.clone()).collect()
    };
    let (ready, draining) = (with(BackendState::Ready), with(BackendState::Draining));
    let best = if ready.is_empty() { draining } else { ready };
    let chosen: BTreeSet<_> = group.ready.iter().map(|key| key.task.clone()).collect();
    assert!(chosen.is_subset(&best), "better ones are there: {view:?}");
    assert_eq!(chosen.is_empty(), best.is_empty(), "somebody is better than nobody: {view:?}");
    assert_eq!(chosen.is_empty(), group.slots.is_empty());
    Plane {
        state: tables.backends.get(Owner.key()).map(|backend| backend.state),
        chosen: group.ready.contains(Owner.key()),
        others: group.ready.contains(Other.key()),
    }
}

fn desired(side: Side, view: &View, local: Option<LocalTask>) -> Desired {
    let member = side.member(true);
    let number = |n: u16| n.try_into().unwrap();
    let port = PublishedPort {
        protocol: Protocol::Tcp,
        target: number(80),
        published: number(8080),
        mode: PublishMode::Ingress,
    };
    Desired {
        node: OwnNode {
            id: member.node,
            underlay: member.underlay,
            overlay: member.overlay,
            addresses: BTreeMap::new(),
            taken: BTreeSet::new(),
            reply_direct: false,
            direct: BTreeSet::new(),
        },
        devices: Devices {
            loopback: 1,
            overlay: 2,
            overlay_mtu: 1450,
            overlay_port: 4789,
            ipsec: false,
            underlay: None,
            uplinks: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            ways: BTreeMap::new(),
        },
        members: view.members.values().cloned().collect(),
        member_addresses: BTreeSet::clone(&view.addresses),
        services: vec![ServiceEntry {
            id: SERVICE.clone(),
            name: "web".to_owned(),
            version: Version::default(),
            ports: vec![port],
            options: Vec::new(),
            virtual_ips: Vec::new(),
            networks: Vec::new(),
        }],
        networks: vec![Network {
            id: Owner.key().network.clone(),
            number: 4096,
            subnet: "10.0.0.0/16".parse().unwrap(),
            subnet6: None,
            kind: NetworkKind::Ingress,
        }],
        endpoints: view
            .endpoints
            .iter()
            .map(|(key, at)| LocatedEndpoint {
                key: key.clone(),
                owner: at.owner.clone(),
                record: EndpointRecord::clone(&at.record),
            })
            .collect(),
        local_tasks: local.into_iter().collect(),
    }
}
