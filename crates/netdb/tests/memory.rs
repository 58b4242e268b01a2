//! What a node of a large swarm keeps of the others. Alone in its process, because it looks at the memory of all of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, GossipKey, GossipKeys, Member, NetworkId, NodeId, ServiceId, TaskId,
    Timestamp,
};
use skep_netdb::Tables;
use skep_netdb::gossip::Gossip;

/// By the nodes' clocks: milliseconds since 1970.
const EPOCH: u64 = 1_790_000_000_000;
const NODES: usize = 1000;
const RECORDS: usize = 50;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn addr(index: usize) -> SocketAddr {
    let [.., high, low] = (index as u32).to_be_bytes();
    ([10, 9, high, low], 7946).into()
}

fn member(node: &NodeId, addr: SocketAddr) -> Member {
    let (hostname, overlay) = (String::new(), [10, 0, 1, 1].into());
    Member { node: node.clone(), hostname, underlay: addr.ip(), overlay, alive: true, away: false }
}

#[test]
fn fifty_thousand_endpoints_take_a_few_hundred_bytes_each() {
    let ids: Vec<NodeId> = (0..NODES).map(|_| NodeId::random()).collect();
    let members: BTreeMap<_, _> = ids.iter().enumerate().map(|(index, id)| (id.clone(), addr(index))).collect();
    let gossip = |id: &NodeId| {
        let mut gossip = Gossip::new(id.clone(), EPOCH, [7; 32]);
        let keys = vec![GossipKey { id: 1, secret: [7; 32] }];
        gossip.set_keys(&GossipKeys { keys, primary: 1, rotated: Timestamp::UNIX_EPOCH });
        gossip.set_members(members.clone(), Duration::ZERO);
        gossip
    };
    let (mut knows, mut known) = (gossip(&ids[0]), Tables::new(ids[0].clone(), EPOCH));
    let network = NetworkId::random();
    for id in &ids[1..] {
        let mut tables = Tables::new(id.clone(), EPOCH);
        let (service, addr, state) = (ServiceId::random(), [10, 0, 0, 9].into(), EndpointState::Ready);
        let record = EndpointRecord { service, addr, state, weight: 1, aliases: Vec::new(), host_ports: Vec::new() };
        let key = || EndpointKey { network: network.clone(), task: TaskId::random() };
        tables.publish((0..RECORDS).map(|_| (key(), record.clone())), EPOCH);
        known.learn_from(&tables);
    }
    let before = resident();
    let (mut joins, mut tables) = (gossip(&ids[1]), Tables::new(ids[1].clone(), EPOCH + 1));
    let mut frame = joins.open_exchange(&tables, &[]).unwrap();
    frame = knows.answer(&mut known, &mut frame, Duration::ZERO).unwrap().unwrap();
    let told = frame.len();
    drop(joins.answer(&mut tables, &mut frame, Duration::ZERO).unwrap());
    drop(frame);
    let kept = resident() - before;
    tables.set_members(members.iter().map(|(node, addr)| member(node, *addr)));
    let before = resident();
    let view = tables.view();
    let seen = resident().saturating_sub(before);
    let endpoints = view.endpoints.len();
    assert_eq!(endpoints, (NODES - 2) * RECORDS);
    println!(
        "{endpoints} endpoints came in {told} bytes; their tables take {} bytes each, what the mesh sees of them {} more",
        kept / endpoints,
        seen / endpoints
    );
    assert!(kept + seen < endpoints * 800);
}
