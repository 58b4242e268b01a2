//! The view that is changed bit by bit is the one that would be made from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NetworkId, NodeId, OwnerTable, ServiceId, TaskId,
};
use skep_netdb::{Located, NetDb};

const NODES: usize = 4;
const TASKS: usize = 6;

static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| (0..NODES).map(|_| NodeId::random()).collect());
static SERVICES: LazyLock<[ServiceId; 2]> = LazyLock::new(|| [ServiceId::random(), ServiceId::random()]);
static KEYS: LazyLock<Vec<EndpointKey>> = LazyLock::new(|| {
    let network = NetworkId::random();
    (0..TASKS).map(|_| EndpointKey { network: network.clone(), task: TaskId::random() }).collect()
});

#[derive(Debug, Clone)]
enum Step {
    Publish {
        key: usize,
        record: u8,
    },
    Withdraw {
        key: usize,
    },
    /// Another node says all this of its endpoints.
    Merge {
        node: usize,
        records: Vec<(usize, u8)>,
        address: u8,
    },
    Members {
        present: [bool; NODES],
        alive: [bool; NODES],
    },
    Silent {
        silent: [bool; NODES],
    },
}

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::vec((0..TASKS, 0u8..12), 0..4);
    prop_oneof![
        2 => (0..TASKS, 0u8..12).prop_map(|(key, record)| Step::Publish { key, record }),
        1 => (0..TASKS).prop_map(|key| Step::Withdraw { key }),
        4 => (1..NODES, records, 0u8..3).prop_map(|(node, records, address)| Step::Merge { node, records, address }),
        2 => any::<([bool; NODES], [bool; NODES])>().prop_map(|(present, alive)| Step::Members { present, alive }),
        2 => any::<[bool; NODES]>().prop_map(|silent| Step::Silent { silent }),
    ]
}

fn record(number: u8) -> EndpointRecord {
    EndpointRecord {
        service: SERVICES[usize::from(number % 2)].clone(),
        addr: Ipv4Addr::new(10, 0, 0, number),
        state: [EndpointState::Ready, EndpointState::Draining][usize::from(number / 2 % 2)],
        weight: u32::from(number / 4),
        aliases: Vec::new(),
        host_ports: Vec::new(),
    }
}

fn member(node: usize, alive: bool) -> Member {
    let (underlay, overlay) = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(10, 0, 1, 1));
    Member { node: IDS[node].clone(), hostname: String::new(), underlay, overlay, alive, away: false }
}

/// What should be seen: all that is known, and who of it is alive and heard of, are asked for at once.
fn seen(db: &NetDb, silent: &BTreeSet<NodeId>) -> BTreeMap<EndpointKey, Located> {
    let own = db.own_node();
    let members = db.view().borrow().members.clone();
    let is_alive = |owner: &NodeId| *owner == own || members.get(owner).is_some_and(|member| member.alive);
    let mut tables: Vec<(u64, NodeId, Arc<OwnerTable>)> = db
        .versions()
        .into_iter()
        .filter(|(owner, _)| is_alive(owner))
        .map(|(owner, version)| (version, owner.clone(), db.table(&owner).unwrap()))
        .collect();
    tables.sort_by_key(|(version, owner, _)| (*version, owner.clone()));
    let mut endpoints = BTreeMap::new();
    for (_, owner, table) in tables {
        for (key, record) in &table.records {
            endpoints.insert(key.clone(), Located { owner: owner.clone(), record: record.clone() });
        }
    }
    let is_silent = |owner: &NodeId| *owner != own && silent.contains(owner);
    let takes = |located: &&Located| {
        !is_silent(&located.owner) && located.record.state == EndpointState::Ready && located.record.weight > 0
    };
    let spared: BTreeSet<_> = endpoints.values().filter(takes).map(|located| located.record.service.clone()).collect();
    for located in endpoints.values_mut().filter(|located| is_silent(&located.owner)) {
        if spared.contains(&located.record.service) {
            Arc::make_mut(&mut located.record).weight = 0;
        }
    }
    endpoints
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn what_is_seen_is_what_is_known(steps in prop::collection::vec(step(), 0..60)) {
        let db = NetDb::new(IDS[0].clone());
        let mut silent = BTreeSet::new();
        let chosen = |which: [bool; NODES]| (0..NODES).filter(move |node| which[*node]);
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Publish { key, record: number } => db.publish(KEYS[key].clone(), record(number)),
                Step::Withdraw { key } => db.withdraw(&KEYS[key]),
                Step::Merge { node, records, address } => {
                    // Clocks that differ: who claims a task later need not have the higher version.
                    let version = (at * 10 + node * 25) as u64;
                    let records = records.into_iter().map(|(key, number)| (KEYS[key].clone(), record(number).into()));
                    let addresses = [Ipv4Addr::new(192, 0, 2, address).into()].into();
                    db.merge(IDS[node].clone(), OwnerTable { version, records: records.collect(), addresses });
                }
                Step::Members { present, alive } => {
                    db.set_members(chosen(present).map(|node| member(node, alive[node])).collect());
                }
                Step::Silent { silent: which } => {
                    silent = chosen(which).map(|node| IDS[node].clone()).collect();
                    db.set_silent(silent.clone());
                }
            }
            let view = db.view().borrow().clone();
            prop_assert!(view.endpoints.iter().eq(&seen(&db, &silent)), "{view:?}");
            let others = view.members.values().filter(|member| member.alive && member.node != IDS[0]);
            let addresses = others.filter_map(|member| db.table(&member.node)).flat_map(|table| table.addresses.clone());
            prop_assert_eq!(&*view.addresses, &addresses.collect::<BTreeSet<_>>());
        }
    }
}
