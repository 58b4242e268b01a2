//! Members that are not heard of get no new flows, as long as others can take them.

use std::collections::BTreeSet;

use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NetworkId, NodeId, OwnerTable, ServiceId, TaskId,
};
use skep_netdb::Tables;

fn member(node: &NodeId) -> Member {
    Member {
        node: node.clone(),
        hostname: String::new(),
        underlay: [192, 0, 2, 1].into(),
        overlay: [10, 0, 1, 1].into(),
        alive: true,
        away: false,
    }
}

/// One task on each of three nodes, the first of which is the own one, with these states; all of one service.
fn three(states: [EndpointState; 3]) -> (Tables, [NodeId; 3], [EndpointKey; 3]) {
    let nodes: [NodeId; 3] = std::array::from_fn(|_| NodeId::random());
    let (network, service) = (NetworkId::random(), ServiceId::random());
    let keys: [EndpointKey; 3] =
        std::array::from_fn(|_| EndpointKey { network: network.clone(), task: TaskId::random() });
    let mut tables = Tables::new(nodes[0].clone(), 1);
    tables.set_members(nodes.iter().map(member));
    for ((node, key), state) in nodes.iter().zip(&keys).zip(states) {
        let addr = [10, 0, 0, 1].into();
        let record = EndpointRecord {
            service: service.clone(),
            addr,
            state,
            weight: 1,
            aliases: Vec::new(),
            host_ports: Vec::new(),
        };
        if *node == nodes[0] {
            tables.publish([(key.clone(), record)], 1);
        } else {
            tables.merge(
                node.clone(),
                OwnerTable { version: 1, records: [(key.clone(), record.into())].into(), ..OwnerTable::default() },
            );
        }
    }
    (tables, nodes, keys)
}

fn weights(tables: &Tables, keys: &[EndpointKey; 3]) -> [u32; 3] {
    let view = tables.view();
    keys.clone().map(|key| view.endpoints[&key].record.weight)
}

fn silent(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().cloned().collect()
}

const READY: EndpointState = EndpointState::Ready;

#[test]
fn who_is_silent_weighs_nothing_until_it_speaks() {
    let (mut tables, nodes, keys) = three([READY; 3]);
    assert!(tables.set_silent(silent(&nodes[1..2])));
    assert!(!tables.set_silent(silent(&nodes[1..2])), "the same again is no news");
    assert_eq!(weights(&tables, &keys), [1, 0, 1]);
    assert_eq!(tables.view().endpoints[&keys[1]].record.state, READY, "it keeps the flows that it has");
    assert!(tables.set_silent(BTreeSet::new()));
    assert_eq!(weights(&tables, &keys), [1, 1, 1]);
}

#[test]
fn who_is_away_is_the_last_resort() {
    let (mut tables, nodes, keys) = three([EndpointState::Draining, READY, READY]);
    let away = |node: &NodeId, away| Member { away, ..member(node) };
    tables.set_members([member(&nodes[0]), away(&nodes[1], true), member(&nodes[2])]);
    assert_eq!(weights(&tables, &keys), [1, 0, 1]);
    tables.set_members([member(&nodes[0]), away(&nodes[1], true), away(&nodes[2], true)]);
    assert_eq!(weights(&tables, &keys), [1, 1, 1], "its tasks may run still, and there are no others");
    tables.set_members([member(&nodes[0]), away(&nodes[1], true), member(&nodes[2])]);
    assert_eq!(weights(&tables, &keys), [1, 0, 1]);
}

#[test]
fn the_own_endpoints_are_known_better() {
    let (mut tables, nodes, keys) = three([READY; 3]);
    tables.set_silent(silent(&nodes));
    assert_eq!(weights(&tables, &keys), [1, 0, 0]);
}

#[test]
fn nobody_else_is_better_than_nobody() {
    let (mut tables, nodes, keys) = three([EndpointState::Draining, READY, EndpointState::Starting]);
    tables.set_silent(silent(&nodes[1..2]));
    assert_eq!(weights(&tables, &keys), [1, 1, 1], "no other takes new flows");
}
