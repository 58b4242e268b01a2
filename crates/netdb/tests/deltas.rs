//! However changes travel, through whomever: who knows a version of a table knows what its owner said at it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, NetworkId, NodeId, OwnerTable, Protocol, PublishMode, PublishedPort,
    ServiceId, TaskId,
};
use skep_netdb::{Merged, Tables};

/// The first is the owner, the others hear of it by each other.
const NODES: usize = 4;
const TASKS: usize = 5;

static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| (0..NODES).map(|_| NodeId::random()).collect());
static KEYS: LazyLock<Vec<EndpointKey>> = LazyLock::new(|| (0..TASKS).map(|_| fresh()).collect());

fn fresh() -> EndpointKey {
    static NETWORKS: LazyLock<[NetworkId; 2]> = LazyLock::new(|| [NetworkId::random(), NetworkId::random()]);
    let task = TaskId::random();
    EndpointKey { network: NETWORKS[usize::from(task.as_str().as_bytes()[0] % 2)].clone(), task }
}

/// Twelve that differ in their state, and in what else there is.
fn record(number: u8) -> EndpointRecord {
    static SERVICE: LazyLock<ServiceId> = LazyLock::new(ServiceId::random);
    let port = PublishedPort {
        protocol: Protocol::Tcp,
        target: 80.try_into().unwrap(),
        published: 8080.try_into().unwrap(),
        mode: PublishMode::Host,
    };
    EndpointRecord {
        service: SERVICE.clone(),
        addr: [10, 0, 0, 9].into(),
        state: [EndpointState::Starting, EndpointState::Ready, EndpointState::Draining][usize::from(number % 3)],
        weight: 1 + u32::from(number / 3 == 1),
        aliases: if number / 3 == 2 { vec!["web".into()] } else { Vec::new() },
        host_ports: if number / 3 == 3 { vec![port] } else { Vec::new() },
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        key: usize,
        record: u8,
    },
    Withdraw {
        key: usize,
    },
    Move {
        last: u8,
    },
    /// One hears from another what has changed since a version that it, or somebody else, knows.
    Hear {
        node: usize,
        of: usize,
        since: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..TASKS, 0u8..12).prop_map(|(key, record)| Step::Publish { key, record }),
        2 => (0..TASKS).prop_map(|key| Step::Withdraw { key }),
        1 => (0u8..4).prop_map(|last| Step::Move { last }),
        8 => (1..NODES, 0..NODES, 0..NODES).prop_map(|(node, of, since)| Step::Hear { node, of, since }),
    ]
}

/// Nodes, and what the owner has said at each version.
struct Swarm {
    nodes: Vec<Tables>,
    said: BTreeMap<u64, Arc<OwnerTable>>,
}

impl Swarm {
    fn new() -> Self {
        let nodes: Vec<_> = IDS.iter().map(|id| Tables::new(id.clone(), 1000)).collect();
        let said = BTreeMap::from([(1000, nodes[0].own().clone())]);
        Self { nodes, said }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tables) -> bool) {
        change(&mut self.nodes[0]);
        let own = self.nodes[0].own().clone();
        self.said.insert(own.version, own);
    }

    fn hear(&mut self, node: usize, of: usize, since: usize) -> Option<Merged> {
        let version = |node: usize| self.nodes[node].rank(&IDS[0]).map_or(0, |(version, _)| version);
        let delta = self.nodes[of].delta(&IDS[0], version(since))?;
        let merged = self.nodes[node].apply(delta);
        let known = self.nodes[node].table(&IDS[0])?;
        assert_eq!(known, &self.said[&known.version], "{node} knows something else, as {of} has told it");
        assert_eq!(self.nodes[node].rank(&IDS[0]), Some((known.version, digest(known))));
        Some(merged)
    }
}

/// The digest of a table that is known whole.
fn digest(table: &OwnerTable) -> u64 {
    let mut tables = Tables::new(IDS[1].clone(), 1);
    tables.merge(IDS[0].clone(), table.clone());
    tables.rank(&IDS[0]).unwrap().1
}

proptest! {
    #[test]
    fn who_knows_a_version_knows_what_was_said_at_it(steps in prop::collection::vec(step(), 0..60)) {
        let mut swarm = Swarm::new();
        for step in steps {
            match step {
                Step::Publish { key, record: number } => swarm.change(|tables| {
                    tables.publish([(KEYS[key].clone(), record(number))], 1000)
                }),
                Step::Withdraw { key } => swarm.change(|tables| {
                    tables.withdraw(&KEYS[key], 1000)
                }),
                Step::Move { last } => swarm.change(|tables| {
                    tables.set_addresses([[192, 0, 2, last].into()].into(), 1000)
                }),
                Step::Hear { node, of, since } => {
                    swarm.hear(node, of, since);
                }
            }
        }
        for node in 1..NODES {
            swarm.hear(node, 0, node);
            prop_assert_eq!(swarm.nodes[node].rank(&IDS[0]), swarm.nodes[0].rank(&IDS[0]));
        }
    }
}

#[test]
fn a_record_that_came_and_went_is_told_by_those_who_never_knew_it() {
    let mut swarm = Swarm::new();
    swarm.change(|tables| tables.publish([(KEYS[0].clone(), record(1))], 1000));
    for node in [1, 2] {
        assert_eq!(swarm.hear(node, 0, node), Some(Merged::Newer));
    }
    swarm.change(|tables| tables.publish([(KEYS[1].clone(), record(1))], 1000));
    assert_eq!(swarm.hear(1, 0, 1), Some(Merged::Newer), "one knows of it");
    swarm.change(|tables| tables.withdraw(&KEYS[1], 1000));
    assert_eq!(swarm.hear(2, 0, 2), Some(Merged::Newer), "the other one never did");
    assert_eq!(swarm.hear(1, 2, 1), Some(Merged::Newer));
    assert_eq!(swarm.nodes[1].table(&IDS[0]).unwrap().records.len(), 1);
}

#[test]
fn who_lags_further_behind_than_anybody_remembers_is_told_everything() {
    let mut swarm = Swarm::new();
    for _ in 0..3 {
        for turn in 0..400 {
            let key = fresh();
            swarm.change(|tables| tables.publish([(key.clone(), record(1))], 1000));
            if turn % 4 > 0 {
                swarm.change(|tables| tables.withdraw(&key, 1000));
            }
            // One keeps up, another one hears from it now and then.
            swarm.hear(1, 0, 1);
            if turn % 50 == 0 {
                swarm.hear(2, 1, 2);
            }
        }
        assert_eq!(swarm.hear(3, 2, 3), Some(Merged::Newer));
        assert_eq!(swarm.hear(3, 0, 3), Some(Merged::Newer));
    }
}
