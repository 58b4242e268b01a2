//! However tables travel, everybody ends up with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use proptest::prelude::*;
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NetworkId, NodeId, OwnerTable, ServiceId, TaskId,
};
use skep_netdb::{Merged, NetDb, Tables, View};

const NODES: usize = 4;
const TASKS: usize = 6;

static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| (0..NODES).map(|_| NodeId::random()).collect());
static NETWORK: LazyLock<NetworkId> = LazyLock::new(NetworkId::random);
static SERVICE: LazyLock<ServiceId> = LazyLock::new(ServiceId::random);
static KEYS: LazyLock<Vec<EndpointKey>> =
    LazyLock::new(|| (0..TASKS).map(|_| EndpointKey { network: NETWORK.clone(), task: TaskId::random() }).collect());

fn record(number: u8) -> EndpointRecord {
    EndpointRecord {
        service: SERVICE.clone(),
        addr: Ipv4Addr::new(10, 0, 0, number),
        state: if number.is_multiple_of(2) { EndpointState::Ready } else { EndpointState::Draining },
        weight: 1,
        aliases: Vec::new(),
        host_ports: Vec::new(),
    }
}

fn member(node: usize, alive: bool) -> Member {
    Member {
        node: IDS[node].clone(),
        hostname: format!("node{node}"),
        underlay: Ipv4Addr::new(192, 0, 2, 1).into(),
        overlay: Ipv4Addr::new(10, 0, 1, 1),
        alive,
        away: false,
    }
}

fn everybody() -> Vec<Member> {
    (0..NODES).map(|node| member(node, true)).collect()
}

/// What happens: a node changes its own endpoints, or hears of a table that another one had at some time.
#[derive(Debug, Clone)]
enum Step {
    Publish { node: usize, key: usize, record: u8 },
    Withdraw { node: usize, key: usize },
    Hear { node: usize, said: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        1 => (node.clone(), 0..TASKS, 0u8..8).prop_map(|(node, key, record)| Step::Publish { node, key, record }),
        1 => (node.clone(), 0..TASKS).prop_map(|(node, key)| Step::Withdraw { node, key }),
        // As often as news is made, and again as often: most of what is sent arrives, some of it late or twice.
        4 => (node, any::<prop::sample::Index>()).prop_map(|(node, said)| Step::Hear { node, said }),
    ]
}

/// Runs `steps`; the clocks of the nodes stand still, which is the hardest case for versions.
fn run(steps: Vec<Step>) -> (Vec<Tables>, Vec<(NodeId, OwnerTable)>) {
    let mut nodes: Vec<_> = IDS.iter().map(|id| Tables::new(id.clone(), 1000)).collect();
    let mut said: Vec<(NodeId, OwnerTable)> = Vec::new();
    for step in steps {
        let changed = match step {
            Step::Publish { node, key, record: number } => {
                nodes[node].publish([(KEYS[key].clone(), record(number))], 1000).then_some(node)
            }
            Step::Withdraw { node, key } => nodes[node].withdraw(&KEYS[key], 1000).then_some(node),
            Step::Hear { node, said: which } => {
                if !said.is_empty() {
                    let (owner, table) = which.get(&said).clone();
                    let known = nodes[node].table(&owner).map(|table| table.version);
                    let merged = nodes[node].merge(owner.clone(), table.clone());
                    let newer = owner != IDS[node] && known.is_none_or(|known| known < table.version);
                    assert_eq!(merged == Merged::Newer, newer);
                }
                None
            }
        };
        if let Some(node) = changed {
            said.push((IDS[node].clone(), nodes[node].own().as_ref().clone()));
        }
    }
    (nodes, said)
}

fn truth(nodes: &[Tables]) -> BTreeMap<NodeId, OwnerTable> {
    nodes.iter().map(|node| (node.own_node().clone(), node.own().as_ref().clone())).collect()
}

proptest! {
    #[test]
    fn any_order_any_duplication_and_loss_then_resending_converge(
        steps in prop::collection::vec(step(), 0..80),
        order in any::<prop::sample::Index>(),
    ) {
        let (mut nodes, mut said) = run(steps);
        let truth = truth(&nodes);
        // What got lost is sent again, in another order, with old news in between.
        said.extend(truth.clone());
        if !said.is_empty() {
            let middle = order.index(said.len());
            said.rotate_left(middle);
        }
        let mut views: Vec<View> = Vec::new();
        for node in &mut nodes {
            for (owner, table) in &said {
                node.merge(owner.clone(), table.clone());
            }
            let known: BTreeMap<_, _> = node.all().map(|(owner, table)| (owner.clone(), table.as_ref().clone())).collect();
            prop_assert_eq!(&known, &truth);
            node.set_members(everybody());
            views.push(node.view());
        }
        prop_assert!(views.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn nobody_ever_goes_back_to_older_news(steps in prop::collection::vec(step(), 0..80)) {
        let (mut nodes, said) = run(steps);
        for node in &mut nodes {
            let before: BTreeMap<_, _> = node.all().map(|(owner, table)| (owner.clone(), table.version)).collect();
            for (owner, table) in &said {
                node.merge(owner.clone(), table.clone());
            }
            for (owner, version) in before {
                prop_assert!(node.table(&owner).unwrap().version >= version);
            }
        }
    }

    #[test]
    fn the_own_version_grows_over_restarts_even_when_the_clock_does_not(
        before in 0u64..5000, changes in 1usize..50, after in 0u64..5000,
    ) {
        let own = IDS[0].clone();
        let mut first = Tables::new(own.clone(), before);
        let mut versions = vec![first.own().version];
        for change in 0..changes {
            first.publish([(KEYS[0].clone(), record(u8::try_from(change % 2).unwrap()))], before);
            versions.push(first.own().version);
        }
        prop_assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
        let known_elsewhere = first.own().as_ref().clone();

        let mut second = Tables::new(own.clone(), after);
        second.publish([(KEYS[1].clone(), record(2))], after);
        // Somebody tells the node what it said before it was restarted.
        let mut other = Tables::new(IDS[1].clone(), 0);
        other.merge(own.clone(), known_elsewhere.clone());
        prop_assert_eq!(second.merge(own.clone(), known_elsewhere), Merged::Stale);
        prop_assert_eq!(second.own().records.keys().collect::<Vec<_>>(), [&KEYS[1]]);
        prop_assert_eq!(other.merge(own, second.own().as_ref().clone()), Merged::Newer);
    }
}

#[test]
fn a_restarted_node_goes_on_with_what_holds_still_and_is_believed_whatever_its_clock_says() {
    for now in [0, 1, 4999, 5000, 9000] {
        let mut before = Tables::new(IDS[0].clone(), 5000);
        before.publish([0, 1].map(|key| (KEYS[key].clone(), record(2))), 5000);
        let mut other = Tables::new(IDS[1].clone(), 1);
        other.merge(IDS[0].clone(), before.own().as_ref().clone());

        let mut after = Tables::new(IDS[0].clone(), now);
        after.take_over(before.own().as_ref().clone(), |key| *key == KEYS[1], now);
        assert_eq!(after.own().records, BTreeMap::from([(KEYS[1].clone(), record(2).into())]));
        assert_eq!(other.merge(IDS[0].clone(), after.own().as_ref().clone()), Merged::Newer, "at {now}");
    }
}

#[test]
fn the_state_of_an_endpoint_that_is_not_there_is_no_news() {
    let mut tables = Tables::new(IDS[0].clone(), 1);
    assert!(!tables.set_state(&KEYS[0], EndpointState::Draining, 2));
    assert_eq!(tables.own().version, 1);
    tables.publish([(KEYS[0].clone(), record(2))], 3);
    assert!(!tables.set_state(&KEYS[0], EndpointState::Ready, 4), "the same again");
    assert!(tables.set_state(&KEYS[0], EndpointState::Draining, 5));
    assert_eq!((tables.own().records[&KEYS[0]].state, tables.own().version), (EndpointState::Draining, 5));
    tables.withdraw(&KEYS[0], 6);
    assert!(!tables.set_state(&KEYS[0], EndpointState::Ready, 7));
    assert_eq!(tables.own().records.len(), 0);
}

#[test]
fn endpoints_of_nodes_that_are_not_alive_are_hidden_and_come_back() {
    let mut tables = Tables::new(IDS[0].clone(), 1);
    let mut other = Tables::new(IDS[1].clone(), 1);
    other.publish([(KEYS[1].clone(), record(1))], 1);
    tables.merge(IDS[1].clone(), other.own().as_ref().clone());
    let seen = |tables: &Tables| tables.view().endpoints.keys().cloned().collect::<Vec<_>>();

    assert_eq!(seen(&tables), [], "of a node that is not known to be a member");
    assert!(tables.set_members([member(1, true)]));
    assert_eq!(seen(&tables), [KEYS[1].clone()]);
    assert!(tables.set_members([member(1, false)]));
    assert_eq!(seen(&tables), []);
    assert_eq!(tables.view().members.len(), 1, "the member itself is still shown");
    assert!(tables.set_members([]));
    assert!(tables.set_members([member(1, true)]));
    assert_eq!(seen(&tables), [KEYS[1].clone()], "a list that lacked it for a moment costs nothing");
}

#[test]
fn the_tables_of_those_who_left_are_forgotten_in_the_end() {
    let mut tables = Tables::new(IDS[0].clone(), 1);
    for _ in 0..100 {
        let node = NodeId::random();
        tables.merge(node.clone(), OwnerTable { version: 1, ..OwnerTable::default() });
        tables.set_members([Member { node, ..member(1, true) }]);
    }
    assert!(tables.all().len() <= 70, "{}", tables.all().len());
}

#[test]
fn of_two_nodes_that_claim_a_task_everybody_believes_the_later() {
    let mut views = Vec::new();
    for swap in [false, true] {
        let mut tables = Tables::new(IDS[0].clone(), 1);
        tables.set_members(everybody());
        let mut claims = [(1, 10, record(2)), (2, 11, record(4))];
        if swap {
            claims.reverse();
        }
        for (node, version, record) in claims {
            let records = BTreeMap::from([(KEYS[0].clone(), record.into())]);
            tables.merge(IDS[node].clone(), OwnerTable { version, records, ..OwnerTable::default() });
        }
        views.push(tables.view());
    }
    assert_eq!(views[0], views[1]);
    assert_eq!(views[0].endpoints[&KEYS[0]].owner, IDS[2]);
}

#[test]
fn the_handle_tells_followers_of_changes_and_of_nothing_else() {
    let db = NetDb::new(IDS[0].clone());
    let (mut own, mut view) = (db.own(), db.view());
    let first = own.borrow_and_update().version;
    view.borrow_and_update();
    db.publish(KEYS[0].clone(), record(2));
    assert!(own.has_changed().unwrap() && view.has_changed().unwrap());
    assert!(own.borrow_and_update().version > first);
    assert_eq!(view.borrow_and_update().endpoints[&KEYS[0]].owner, IDS[0]);

    db.publish(KEYS[0].clone(), record(2));
    db.withdraw(&KEYS[1]);
    assert!(!own.has_changed().unwrap() && !view.has_changed().unwrap(), "the same again is no news");

    // A table of a node that is hidden is worth keeping, and nothing to see.
    let table = OwnerTable {
        version: 5,
        records: BTreeMap::from([(KEYS[1].clone(), record(4).into())]),
        ..OwnerTable::default()
    };
    assert_eq!(db.merge(IDS[1].clone(), table.clone()), Merged::Newer);
    assert_eq!(db.merge(IDS[1].clone(), table), Merged::Stale);
    assert!(!view.has_changed().unwrap());
    db.set_members(vec![member(1, true)]);
    assert_eq!(view.borrow_and_update().endpoints.len(), 2);
    assert!(!own.has_changed().unwrap());

    // What others believe of this node is outdone, and said anew.
    let believed = own.borrow().version + 1_000_000;
    db.merge(IDS[0].clone(), OwnerTable { version: believed, ..OwnerTable::default() });
    assert!(own.borrow_and_update().version > believed);
    assert_eq!(db.versions()[&IDS[0]], own.borrow().version);
    assert!(!view.has_changed().unwrap());

    db.withdraw(&KEYS[0]);
    assert_eq!(view.borrow_and_update().endpoints.keys().collect::<Vec<_>>(), [&KEYS[1]]);
    assert_eq!(db.table(&IDS[1]).unwrap().version, 5);
}

#[test]
fn addresses_of_others_are_seen_while_they_live() {
    let [own, other] = [0, 1].map(|n| IDS[n].clone());
    let addresses = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
    let mut tables = Tables::new(own.clone(), 1);
    tables.set_members([member(0, true), member(1, true)]);
    assert!(tables.set_addresses(addresses(&["192.0.2.1"]), 1));
    assert!(!tables.set_addresses(addresses(&["192.0.2.1"]), 1), "no news");
    let said = addresses(&["192.0.2.2", "2001:db8::2"]);
    tables.merge(other, OwnerTable { version: 1, addresses: said.clone(), ..OwnerTable::default() });
    assert_eq!(*tables.view().addresses, said, "the own ones are no others'");
    tables.set_members([member(0, true), member(1, false)]);
    assert!(tables.view().addresses.is_empty());
}
