//! Three nodes on loopback addresses, over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, GossipKey, GossipKeys, Member, NetworkId, NodeId, ServiceId, TaskId,
    Timestamp,
};
use skep_netdb::{Contacts, Driver, DriverHandle, Listen, NetDb};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Generous: nothing here takes a second on a quiet machine.
const SOON: Duration = Duration::from_secs(20);

struct Node {
    db: NetDb,
    handle: DriverHandle,
    driver: JoinHandle<()>,
    contacts: watch::Sender<Contacts>,
}

fn keys(ids: &[u32], primary: u32) -> GossipKeys {
    let keys = ids.iter().map(|id| GossipKey { id: *id, secret: [u8::try_from(*id).unwrap(); 32] }).collect();
    GossipKeys { keys, primary, rotated: Timestamp::UNIX_EPOCH }
}

fn addr(index: usize, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(index).unwrap()), port).into()
}

fn start(id: &NodeId, contacts: Contacts) -> Node {
    let db = NetDb::new(id.clone());
    let member = |(node, addr): (&NodeId, &SocketAddr)| Member {
        node: node.clone(),
        hostname: String::new(),
        underlay: addr.ip(),
        overlay: [10, 0, 1, 1].into(),
        alive: true,
        away: false,
    };
    db.set_members(contacts.members.iter().map(member).collect());
    let (contacts, seen) = watch::channel(contacts);
    let (driver, handle) = Driver::new(db.clone(), Listen::Own, seen);
    Node { db, handle, driver: tokio::spawn(driver.run()), contacts }
}

/// A port of its own for each test.
fn three(port: u16) -> (Vec<NodeId>, Contacts, Vec<Node>) {
    let ids: Vec<NodeId> = (0..3).map(|_| NodeId::random()).collect();
    let members: BTreeMap<_, _> = ids.iter().enumerate().map(|(index, id)| (id.clone(), addr(index, port))).collect();
    let contacts = Contacts { members, keys: Some(keys(&[1], 1)) };
    let nodes = ids.iter().map(|id| start(id, contacts.clone())).collect();
    (ids, contacts, nodes)
}

fn endpoint(aliases: usize) -> (EndpointKey, EndpointRecord) {
    let key = EndpointKey { network: NetworkId::random(), task: TaskId::random() };
    let aliases = (0..aliases).map(|number| format!("a-name-that-takes-some-room-{number}")).collect();
    let (service, addr) = (ServiceId::random(), [10, 0, 0, 7].into());
    (key, EndpointRecord { service, addr, state: EndpointState::Ready, weight: 1, aliases, host_ports: Vec::new() })
}

async fn sees(node: &Node, keys: &[EndpointKey]) {
    let wanted: BTreeSet<_> = keys.iter().cloned().collect();
    let mut view = node.db.view();
    let seen = view.wait_for(|view| view.endpoints.keys().cloned().collect::<BTreeSet<_>>() == wanted);
    assert!(timeout(SOON, seen).await.is_ok(), "instead: {:?}", node.db.view().borrow().endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_says_all_know_also_what_fits_no_datagram() {
    let (_, _, nodes) = three(27_946);
    let (small, record) = endpoint(0);
    nodes[0].db.publish(small.clone(), record);
    timeout(SOON, nodes[0].db.told()).await.unwrap();
    for node in &nodes {
        sees(node, std::slice::from_ref(&small)).await;
    }
    let (large, record) = endpoint(200);
    nodes[1].db.publish(large.clone(), record);
    for node in &nodes {
        sees(node, &[small.clone(), large.clone()]).await;
    }
    nodes[0].db.withdraw(&small);
    for node in &nodes {
        sees(node, std::slice::from_ref(&large)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_weighs_nothing_and_is_back_with_its_endpoints() {
    let (ids, contacts, mut nodes) = three(27_947);
    let service = ServiceId::random();
    let mut keys = Vec::new();
    for node in &nodes {
        let (key, record) = endpoint(0);
        node.db.publish(key.clone(), EndpointRecord { service: service.clone(), ..record });
        keys.push(key);
    }
    for node in &nodes {
        sees(node, &keys).await;
    }
    let told = nodes[2].db.own().borrow().clone();
    nodes[2].driver.abort();
    let weighs = |node: &Node, weight: u32| {
        let (mut view, key) = (node.db.view(), keys[2].clone());
        async move {
            let seen = view.wait_for(|view| view.endpoints.get(&key).is_some_and(|e| e.record.weight == weight));
            assert!(timeout(SOON, seen).await.is_ok(), "{weight}");
        }
    };
    weighs(&nodes[0], 0).await;
    weighs(&nodes[1], 0).await;
    let _ = (&mut nodes[2].driver).await;
    nodes[2] = start(&ids[2], contacts);
    nodes[2].db.take_over(told.as_ref().clone(), |_| true);
    weighs(&nodes[0], 1).await;
    weighs(&nodes[1], 1).await;
    sees(&nodes[2], &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_nodes_talk_and_who_has_none_hears_nothing() {
    let (ids, contacts, nodes) = three(27_948);
    // One after the other: the new key is known before it is used, and the old one before it is forgotten.
    for (known, primary) in [(vec![1, 2], 1), (vec![1, 2], 2), (vec![2], 2)] {
        for node in &nodes {
            node.contacts.send_replace(Contacts { keys: Some(keys(&known, primary)), ..contacts.clone() });
            let (key, record) = endpoint(0);
            node.db.publish(key.clone(), record);
            for other in &nodes {
                let mut view = other.db.view();
                let seen = view.wait_for(|view| view.endpoints.get(&key).is_some());
                assert!(timeout(SOON, seen).await.is_ok());
            }
        }
    }
    nodes[2].driver.abort();
    let stranger = start(&ids[2], Contacts { keys: Some(keys(&[9], 9)), ..contacts });
    let heard = timeout(SOON, async {
        while stranger.handle.counters().unknown_key == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // The old life holds the port for a moment.
    assert!(heard.await.is_ok());
    assert_eq!(stranger.db.view().borrow().endpoints.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_says_so() {
    let (_, _, nodes) = three(27_949);
    let (key, record) = endpoint(0);
    nodes[0].db.publish(key.clone(), record);
    for node in &nodes {
        sees(node, std::slice::from_ref(&key)).await;
    }
    nodes[0].db.withdraw(&key);
    timeout(SOON, nodes[0].handle.leave()).await.unwrap();
    nodes[0].driver.abort();
    sees(&nodes[1], &[]).await;
    sees(&nodes[2], &[]).await;
}
