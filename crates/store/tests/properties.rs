//! Whatever is proposed: indexes agree with a scan, snapshots give back what they were made of, and updates are whole.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use proptest::prelude::*;
use skep_model::{
    Authority, Availability, Cluster, ClusterId, ClusterSpec, ContainerSpec, JoinSecrets, Meta, Node, NodeId, NodeSpec,
    NodeState, NodeStatus, Placement, PrivateKey, Resources, Role, ServiceId, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp, Version,
};
use skep_store::{
    Change, EventKind, Key, Lagged, Log, Object, Outdated, Proposal, ProposeError, Store, Tables, UpdateError, Writer,
};

static TASKS: LazyLock<Vec<TaskId>> = LazyLock::new(|| (0..6).map(|_| TaskId::random()).collect());
static NODES: LazyLock<Vec<NodeId>> = LazyLock::new(|| (0..3).map(|_| NodeId::random()).collect());
static SERVICES: LazyLock<Vec<ServiceId>> = LazyLock::new(|| (0..3).map(|_| ServiceId::random()).collect());

fn task(id: usize, service: usize, node: Option<usize>) -> Task {
    let now = Timestamp::UNIX_EPOCH;
    let spec = TaskSpec {
        container: ContainerSpec::default(),
        resources: Resources::default(),
        restart: None,
        placement: Placement::default(),
        networks: Vec::new(),
        force_update: 0,
        registry_auth: None,
    };
    let status = TaskStatus {
        timestamp: now,
        state: TaskState::New,
        message: "created".to_owned(),
        err: None,
        container: None,
        host_ports: Vec::new(),
    };
    Task {
        id: TASKS[id].clone(),
        meta: Meta::new(now),
        service: SERVICES[service].clone(),
        service_name: "web".parse().unwrap(),
        service_labels: Default::default(),
        service_version: Version(1),
        slot: Some(1),
        node: node.map(|node| NODES[node].clone()),
        spec,
        generic: Default::default(),
        desired: TaskState::Running,
        status,
        attachments: Vec::new(),
        host_ports: Vec::new(),
    }
}

fn node(id: NodeId) -> Node {
    Node {
        id,
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: NodeSpec { name: None, labels: [].into(), role: Role::Worker, availability: Availability::Active },
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: None,
            port_conflicts: Vec::new(),
            machine_answers: false,
        },
        manager: None,
        overlay_addr: None,
        credential: String::new(),
    }
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::random(),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: ClusterSpec::default(),
        join: JoinSecrets { worker: "w".into(), manager: "m".into() },
        authority: Authority {
            certificate: "c".into(),
            key: PrivateKey("k".into()),
            trusted: vec!["c".into()],
            rotation: None,
        },
        unlock_key: None,
        default_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_size: 24,
        data_path_port: 4789,
        last_vni: 0,
        gossip_keys: None,
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..6usize, 0..3usize, prop::option::of(0..3usize)).prop_map(|(t, s, n)| task(t, s, n).into()),
        3 => (0..6usize).prop_map(|t| Change::Delete(Key::Task(TASKS[t].clone()))),
        2 => (0..3usize).prop_map(|n| node(NODES[n].clone()).into()),
        1 => (0..3usize).prop_map(|n| Change::Delete(Key::Node(NODES[n].clone()))),
        1 => Just(()).prop_map(|()| cluster().into()),
        1 => Just(Change::Delete(Key::Cluster)),
    ]
}

fn proposals() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 0..4), 0..40)
}

fn proposal(changes: Vec<Change>) -> Proposal {
    Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes }
}

fn applied(proposals: Vec<Vec<Change>>) -> Tables {
    let mut tables = Tables::default();
    for changes in proposals {
        tables.apply(proposal(changes)).unwrap();
    }
    tables
}

fn ids<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeSet<TaskId> {
    tasks.map(|task| task.id.clone()).collect()
}

fn check_indexes(tables: &Tables) {
    for service in SERVICES.iter() {
        let scan = ids(tables.all::<Task>().filter(|task| task.service == *service));
        assert_eq!(ids(tables.tasks_of_service(service)), scan);
    }
    for node in NODES.iter() {
        let scan = ids(tables.all::<Task>().filter(|task| task.node.as_ref() == Some(node)));
        assert_eq!(ids(tables.tasks_of_node(node)), scan);
    }
}

proptest! {
    #[test]
    fn indexes_always_agree_with_a_scan(proposals in proposals()) {
        let mut tables = Tables::default();
        for changes in proposals {
            let before = tables.version();
            let events = tables.apply(proposal(changes)).unwrap();
            prop_assert_eq!(tables.version(), before.next());
            for event in events {
                prop_assert_eq!(event.kind == EventKind::Created, event.before.is_none());
                prop_assert!(event.before.is_none_or(|object| object.key() == event.object.key()));
            }
            check_indexes(&tables);
        }
    }

    #[test]
    fn a_snapshot_gives_back_what_it_was_made_of(proposals in proposals()) {
        let tables = applied(proposals);
        let bytes = tables.encode();
        let read = Tables::decode(&bytes).unwrap();
        prop_assert_eq!(read.encode(), bytes);
        prop_assert_eq!(read.version(), tables.version());
        prop_assert_eq!(read.all::<Task>().collect::<Vec<_>>(), tables.all::<Task>().collect::<Vec<_>>());
        prop_assert_eq!(read.all::<Node>().collect::<Vec<_>>(), tables.all::<Node>().collect::<Vec<_>>());
        prop_assert_eq!(read.cluster(), tables.cluster());
        check_indexes(&read);
    }

    #[test]
    fn a_snapshot_that_is_cut_off_or_begins_otherwise_is_refused(
        proposals in proposals(), cut in any::<prop::sample::Index>(), flip in 0..16usize,
    ) {
        let bytes = applied(proposals).encode();
        prop_assert!(Tables::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let mut other = bytes;
        other[flip] ^= 1;
        prop_assert!(Tables::decode(&other).is_err());
    }

    #[test]
    fn the_same_proposals_give_the_same_tables_and_an_outdated_one_gives_nothing(
        proposals in proposals(), late in prop::collection::vec(change(), 1..4), behind in 1..5u64,
    ) {
        let mut tables = applied(proposals.clone());
        let bytes = tables.encode();
        prop_assert_eq!(applied(proposals).version(), tables.version());
        let base = Some(Version(tables.version().0.wrapping_sub(behind)));
        let outdated = tables.apply(Proposal { base, ..proposal(late) });
        prop_assert_eq!(outdated.err(), Some(Outdated));
        prop_assert_eq!(tables.encode(), bytes);
    }
}

#[test]
fn what_changes_by_itself_leaves_the_version_of_what_is_asked() {
    let mut tables = Tables::default();
    let mut put = |object: Change| tables.apply(proposal(vec![object])).unwrap()[0].object.clone();
    let meta = |object: &Object| match object {
        Object::Node(node) => (node.meta.version.0, node.meta.asked.0),
        Object::Cluster(cluster) => (cluster.meta.version.0, cluster.meta.asked.0),
        _ => panic!("neither was put"),
    };
    let mut one = node(NODES[0].clone());
    assert_eq!(meta(&put(one.clone().into())), (1, 1));
    one.status.state = NodeState::Ready;
    assert_eq!(meta(&put(one.clone().into())), (2, 1));
    one.spec.availability = Availability::Drain;
    assert_eq!(meta(&put(one.clone().into())), (3, 3));
    let mut swarm = cluster();
    assert_eq!(meta(&put(swarm.clone().into())), (4, 4));
    swarm.authority.trusted.push("d".into());
    assert_eq!(meta(&put(swarm.clone().into())), (5, 4));
    swarm.join.worker = "other".into();
    assert_eq!(meta(&put(swarm.clone().into())), (6, 6));
    swarm.spec.task_history_limit += 1;
    assert_eq!(meta(&put(swarm.into())), (7, 7));
}

/// Commits what the test lets it.
struct Gate {
    store: Store,
    open: tokio::sync::Semaphore,
}

#[async_trait]
impl Log for Gate {
    async fn propose(&self, proposal: Proposal) -> Result<Version, ProposeError> {
        self.open.acquire().await.map_err(|_| ProposeError::NoLeader)?.forget();
        Ok(self.store.apply(proposal)?)
    }
}

fn writer(open: usize) -> (Arc<Writer>, Arc<Gate>) {
    let store = Store::default();
    let gate = Arc::new(Gate { store: store.clone(), open: tokio::sync::Semaphore::new(open) });
    (Arc::new(Writer::new(store, gate.clone())), gate)
}

fn add_node(_: &Tables) -> Result<(NodeId, Vec<Change>), &'static str> {
    let id = NodeId::random();
    Ok((id.clone(), vec![node(id).into()]))
}

#[tokio::test]
async fn an_update_shows_all_its_changes_at_once_or_none() {
    let (writer, gate) = writer(1);
    let mut events = writer.store().watch();
    let two = |_: &Tables| Ok::<_, &str>(((), NODES[..2].iter().cloned().map(|id| node(id).into()).collect()));
    writer.update(two).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().len(), 2);

    let refused = writer.update(|_| Err::<((), _), _>("no")).await;
    assert!(matches!(refused, Err(UpdateError::Refused("no"))), "{refused:?}");
    gate.open.close();
    let refused = writer.update(add_node).await;
    assert!(matches!(refused, Err(UpdateError::Propose(ProposeError::NoLeader))), "{refused:?}");
    assert_eq!(writer.store().view(|t| (t.all::<Node>().len(), t.version())), (2, Version(1)));
}

#[tokio::test]
async fn an_update_without_changes_commits_nothing() {
    let (writer, _gate) = writer(0);
    assert_eq!(writer.update(|_| Ok::<_, &str>((7, Vec::new()))).await.unwrap(), 7);
    assert_eq!(writer.store().view(Tables::version), Version(0));
}

#[tokio::test]
async fn each_update_reads_what_the_one_before_wrote() {
    let (writer, _gate) = writer(100);
    let count_up = |tables: &Tables| {
        let mut cluster = tables.cluster().map_or_else(cluster, |c| c.as_ref().clone());
        cluster.spec.task_history_limit += 1;
        Ok::<_, &str>(((), vec![cluster.into()]))
    };
    let updates = (0..100).map(|_| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.update(count_up).await.unwrap() })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.unwrap();
    }
    let first = ClusterSpec::default().task_history_limit;
    assert_eq!(writer.store().view(|t| t.cluster().unwrap().spec.task_history_limit), first + 100);
}

#[tokio::test]
async fn an_update_that_its_caller_gave_up_is_waited_for() {
    let (writer, gate) = writer(0);
    let given_up = tokio::spawn({
        let writer = writer.clone();
        async move { writer.update(add_node).await.map(drop) }
    });
    // Runs until it waits for the gate.
    tokio::task::yield_now().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let next = tokio::spawn({
        let writer = writer.clone();
        async move { writer.update(|tables| Ok::<_, &str>((tables.all::<Node>().len(), Vec::new()))).await }
    });
    gate.open.add_permits(1);
    assert_eq!(next.await.unwrap().unwrap(), 1, "it should plan on what was committed before it");
}

#[tokio::test]
async fn watchers_hear_in_order_and_are_told_when_they_missed_something() {
    let store = Store::default();
    let mut events = store.watch();
    for changes in [vec![node(NODES[0].clone()).into()], vec![Change::Delete(Key::Node(NODES[0].clone()))]] {
        store.apply(proposal(changes)).unwrap();
    }
    assert_eq!(events.next().await.unwrap().unwrap()[0].kind, EventKind::Created);
    assert_eq!(events.next().await.unwrap().unwrap()[0].kind, EventKind::Deleted);
    store.restore(Tables::default());
    assert_eq!(events.next().await.unwrap().unwrap_err(), Lagged);
    for _ in 0..5000 {
        store.apply(proposal(Vec::new())).unwrap();
    }
    assert_eq!(events.next().await.unwrap().unwrap_err(), Lagged);
    assert!(events.next().await.unwrap().is_ok());
}
