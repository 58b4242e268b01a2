//! A new daemon and a task of the one before it, on a node in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_mesh::{Applied, BackendState, Counters, Datapath, DatapathError, Fake, FlowTable};
use skep_model::{
    ContainerSpec, HealthConfig, HealthTest, IpamConfig, Member, Meta, Network, NetworkAttachment, NetworkId,
    NetworkSpec, NodeId, PortOptions, Protocol, PublishMode, PublishOptions, PublishedPort, ServiceEntry, ServiceId,
    TaskId, TaskSpec, Version,
};
use skep_netdb::NetDb;
use skep_network::{Facts, FakeNetwork, FakePorts, NodeNetwork};
use skep_registry::{FakeSource, ImageSource};
use skep_runtime::images::Images;
use skep_runtime::{FakeExec, FakeRuntime, Runtime};

use super::*;
use crate::Assignments;
use crate::agent::take_over_endpoints;
use crate::endpoints::EndpointsFile;
use crate::images::TaskImages;
use crate::mesh::{Inputs, Mesh};
use crate::names::{Names, Outside};
use crate::report::Reporter;
use crate::underlay::Underlay;

const A_WHILE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(digit: char) -> T {
    digit.to_string().repeat(25).parse().unwrap()
}

/// The task, as managers know it: it has a day for its flows.
pub(crate) fn task(desired: TaskState) -> Task {
    let now = Timestamp::now();
    let spec = TaskSpec {
        container: ContainerSpec { image: "web".to_owned(), ..ContainerSpec::default() },
        resources: skep_model::Resources::default(),
        restart: None,
        placement: skep_model::Placement::default(),
        networks: Vec::new(),
        force_update: 0,
        registry_auth: None,
    };
    Task {
        id: id('t'),
        meta: Meta::new(now),
        service: id('s'),
        service_name: "web".parse().unwrap(),
        service_labels: Default::default(),
        service_version: Version(1),
        slot: Some(1),
        node: Some(id('a')),
        spec,
        generic: Default::default(),
        desired,
        status: TaskStatus {
            timestamp: now,
            state: TaskState::Running,
            message: String::new(),
            err: None,
            container: None,
            host_ports: Vec::new(),
        },
        attachments: vec![NetworkAttachment { network: id('n'), addr: "10.0.1.1/24".parse().unwrap() }],
        host_ports: Vec::new(),
    }
}

/// The task on the network of the routing mesh.
fn endpoint() -> skep_model::EndpointKey {
    skep_model::EndpointKey { network: id('n'), task: id('t') }
}

fn ingress() -> Network {
    Network {
        id: id('n'),
        meta: Meta::new(Timestamp::now()),
        spec: NetworkSpec {
            name: "ingress".to_owned(),
            labels: BTreeMap::new(),
            ipam: IpamConfig {
                subnet: "10.0.1.0/24".parse().unwrap(),
                gateway: [10, 0, 1, 254].into(),
                range: None,
                ipv6: None,
            },
            ingress: true,
            internal: false,
            attachable: false,
            ipv6: false,
            options: BTreeMap::new(),
        },
        vni: 4096,
        last: None,
        retired: false,
    }
}

fn assignments(desired: TaskState) -> Assignments {
    let port = 8080.try_into().unwrap();
    let service = ServiceEntry {
        id: id('s'),
        name: "web".to_owned(),
        version: Version(1),
        ports: vec![PublishedPort {
            protocol: Protocol::Tcp,
            target: 80.try_into().unwrap(),
            published: port,
            mode: PublishMode::Ingress,
        }],
        options: vec![PortOptions {
            protocol: Protocol::Tcp,
            published: port,
            options: PublishOptions { drain: Some(DAY), ..PublishOptions::default() },
            answers: true,
        }],
        virtual_ips: Vec::new(),
        networks: Vec::new(),
    };
    let member = Member {
        node: id('a'),
        hostname: "a".to_owned(),
        underlay: [192, 0, 2, 1].into(),
        overlay: [10, 0, 1, 9].into(),
        alive: true,
        away: false,
    };
    Assignments {
        tasks: BTreeMap::from([(id::<TaskId>('t'), task(desired))]),
        services: BTreeMap::from([(id::<ServiceId>('s'), service)]),
        networks: BTreeMap::from([(id::<NetworkId>('n'), ingress())]),
        members: BTreeMap::from([(id::<NodeId>('a'), member)]),
        ..Assignments::default()
    }
}

/// A data plane that may refuse to be changed.
struct Refusing {
    inner: Fake,
    refuses: Arc<AtomicBool>,
}

impl Datapath for Refusing {
    fn apply(&mut self, tables: &skep_mesh::Tables) -> Result<Applied, DatapathError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(DatapathError::NotPermitted);
        }
        self.inner.apply(tables)
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        self.inner.counters()
    }

    fn flow_table(&self) -> Result<Box<dyn FlowTable>, DatapathError> {
        self.inner.flow_table()
    }

    fn close_and_remove(self: Box<Self>) -> Result<(), DatapathError> {
        Box::new(self.inner).close_and_remove()
    }
}

/// A node whose daemon has just been started again.
struct Node {
    runtime: Arc<FakeRuntime>,
    network: Arc<FakeNetwork>,
    datapath: Fake,
    refuses: Arc<AtomicBool>,
    context: Arc<Context>,
    wanted: watch::Sender<Wanted>,
    _dir: tempfile::TempDir,
}

impl Node {
    /// The one before it had told everybody `told` of the task, whose container runs and has a flow.
    async fn restarted(told: EndpointState, desired: TaskState) -> Self {
        let spec = ContainerSpec { image: "web".to_owned(), ..ContainerSpec::default() };
        Self::restarted_with(told, desired, spec, |_| {}).await
    }

    /// The one before it had just started the container.
    async fn starting(spec: ContainerSpec) -> Self {
        let starting = TaskStatus { state: TaskState::Starting, ..task(TaskState::Running).status };
        let file = format!("{}.json", id::<TaskId>('t'));
        Self::restarted_with(EndpointState::Starting, TaskState::Running, spec, |dir| {
            disk::write_json(&dir.join(file), &starting).unwrap();
        })
        .await
    }

    async fn restarted_with(
        told: EndpointState,
        desired: TaskState,
        spec: ContainerSpec,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let runtime = Arc::new(FakeRuntime::new());
        run_container(&runtime).await;
        let mut task = task(desired);
        task.spec.container = spec;
        Self::begun(runtime, Arc::new(FakeSource::slow()), told, task, prepare).await
    }

    /// The task has just been given to it.
    async fn new(source: Arc<FakeSource>) -> Self {
        let mut task = task(TaskState::Running);
        task.status.state = TaskState::Assigned;
        Self::begun(Arc::new(FakeRuntime::new()), source, EndpointState::Draining, task, |_| {}).await
    }

    async fn begun(
        runtime: Arc<FakeRuntime>,
        source: Arc<dyn ImageSource>,
        told: EndpointState,
        task: Task,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let (dir, desired) = (tempfile::tempdir().unwrap(), task.desired);
        prepare(dir.path());
        let (datapath, refuses) = (Fake::new(), Arc::new(AtomicBool::new(false)));
        datapath.set_open_flows(1);
        let network = Arc::new(FakeNetwork::new(Facts::default()));
        let known = assignments(desired);
        let (assigned, netdb) = (watch::channel(Arc::new(known.clone())).1, NetDb::new(id('a')));
        let names = Names::new(
            |_| skep_dns::Sockets::bind(([127, 0, 0, 1], 0).into()),
            Path::new("/etc/resolv.conf"),
            Outside::default(),
            (assigned.clone(), netdb.view()),
        );
        let underlay = Underlay { overlay: Some(2), loopback: 1, overlay_mtu: 1450, ..Underlay::default() };
        let plane = Refusing { inner: datapath.clone(), refuses: refuses.clone() };
        let context = Arc::new(Context {
            runtime: runtime.clone(),
            images: TaskImages { store: Arc::new(Images::open(&dir.path().join("images")).unwrap()), source },
            network: network.clone(),
            listeners: |_: &Path| Ok([(Protocol::Tcp, 80)].into()),
            netdb,
            mesh: Mesh::new(Box::new(plane), Arc::new(FakePorts::default())),
            names,
            reporter: Reporter::default(),
            assignments: assigned,
            underlay: watch::channel(underlay).1,
            tasks_dir: dir.path().to_owned(),
            netns_dir: dir.path().to_owned(),
            host_ports: std::sync::Mutex::default(),
            health: std::sync::Mutex::default(),
        });
        let file = EndpointsFile::new(dir.path());
        file.store(&before(told)).unwrap();
        take_over_endpoints(&context, &file, &known).await.unwrap();
        let (wanted, listening) = watch::channel(Wanted { task, removed: false });
        tokio::spawn(context.mesh.clone().run(Inputs {
            own: id('a'),
            assignments: context.assignments.clone(),
            view: context.netdb.view(),
            underlay: context.underlay.clone(),
            reply_direct: false,
            direct: watch::channel([].into()).1,
        }));
        tokio::spawn(Controller::new(context.clone(), listening).unwrap().run());
        Self { runtime, network, datapath, refuses, context, wanted, _dir: dir }
    }

    async fn make_namespace(&self) {
        self.network.ensure_namespace(&self.context.netns_dir.join(id::<TaskId>('t').as_str())).await.unwrap();
    }

    /// What the data plane does with the task.
    fn state(&self) -> Option<BackendState> {
        Some(self.datapath.tables()?.backends.get(&endpoint())?.state)
    }

    /// Waits until something is so, at most for a while.
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !what(self) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(A_WHILE, waiting).await.expect("what is waited for does not come");
    }

    /// What was reported of the task last.
    fn status(&self) -> TaskStatus {
        let reports = self.context.reporter.watch();
        let reports = reports.borrow();
        reports.since(0).last().expect("something was reported").1.clone()
    }

    fn is_signalled(&self) -> bool {
        !self.runtime.signals().is_empty()
    }
}

async fn run_container(runtime: &FakeRuntime) {
    let container = containers::container_id(&id('t'));
    let prepared = runtime.prepare(skep_runtime::Container {
        id: container.clone(),
        image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        hostname: String::new(),
        netns: PathBuf::new(),
        addresses: Vec::new(),
        resolver: None,
        labels: BTreeMap::new(),
        env: Vec::new(),
        files: Vec::new(),
        resources: skep_model::Resources::default(),
        spec: ContainerSpec::default(),
    });
    prepared.await.unwrap();
    runtime.start(&container).await.unwrap();
}

/// What the daemon before knew.
fn before(told: EndpointState) -> NetDb {
    let netdb = NetDb::new(id('a'));
    let key = skep_model::EndpointKey { network: id::<NetworkId>('n'), task: id('t') };
    let addr = [10, 0, 1, 1].into();
    let record = skep_model::EndpointRecord {
        service: id('s'),
        addr,
        state: told,
        weight: 1,
        aliases: Vec::new(),
        host_ports: Vec::new(),
    };
    netdb.publish(key, record);
    netdb
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_to_stop_leaves_the_tables_and_drains_also_under_a_new_daemon() {
    for told in [EndpointState::Starting, EndpointState::Ready, EndpointState::Draining] {
        let node = Node::restarted(told, TaskState::Shutdown).await;
        node.make_namespace().await;
        node.until(|node| {
            assert_eq!(node.runtime.signals(), [], "it has not left the tables, {told:?}");
            node.state().is_some_and(|state| state != BackendState::Ready)
        })
        .await;
        sleep(A_WHILE).await;
        assert_eq!(node.runtime.signals(), [], "its flow has not had its time, {told:?}");
        node.datapath.set_open_flows(0);
        node.until(Node::is_signalled).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_not_told_to_stop_while_the_data_plane_cannot_be_told_that_it_is_to() {
    let node = Node::restarted(EndpointState::Ready, TaskState::Shutdown).await;
    node.make_namespace().await;
    node.datapath.set_open_flows(0);
    node.runtime.ignore_signals(true);
    node.refuses.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(3)).await;
    assert_eq!((node.state(), node.runtime.signals()), (None, vec![]));
    node.refuses.store(false, Ordering::Relaxed);
    node.until(Node::is_signalled).await;
    assert_eq!(node.state(), Some(BackendState::Draining));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_could_not_be_put_into_the_mesh_is_tried_again() {
    let node = Node::restarted(EndpointState::Ready, TaskState::Running).await;
    sleep(A_WHILE).await;
    assert_eq!(node.state(), None);
    node.make_namespace().await;
    node.until(|node| node.state() == Some(BackendState::Ready)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_its_image_and_gives_it_up_when_it_is_to_stop() {
    let source = Arc::new(FakeSource::slow());
    let node = Node::new(source.clone()).await;
    let mut asked = source.asked();
    asked.wait_for(|asked| !asked.is_empty()).await.unwrap();
    assert_eq!((node.status().state, node.status().message.as_str()), (TaskState::Preparing, "pulling image web"));
    // Something else about it changes: it goes on waiting for the same.
    node.wanted.send_modify(|wanted| wanted.task.desired = TaskState::Ready);
    sleep(A_WHILE).await;
    assert_eq!((node.status().state, asked.borrow().len()), (TaskState::Preparing, 1));
    node.wanted.send_modify(|wanted| wanted.task.desired = TaskState::Shutdown);
    node.until(|node| node.status().state == TaskState::Shutdown).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_image_nobody_has_says_why() {
    let node = Node::new(Arc::new(FakeSource::refusing("manifest unknown"))).await;
    node.until(|node| node.status().state == TaskState::Rejected).await;
    let error = node.status().err.unwrap();
    assert!(error.starts_with("No such image: web: manifest for web:latest not found: manifest unknown"), "{error}");
}

/// The checks that [`Node::started`] has: every ten seconds, two failures in a row.
const CHECK_EVERY: Duration = Duration::from_secs(10);

fn checked() -> ContainerSpec {
    let health = HealthConfig {
        test: Some(HealthTest::Program(vec!["/check".to_owned()])),
        interval: Some(CHECK_EVERY),
        timeout: Some(Duration::from_secs(2)),
        retries: Some(2),
        ..HealthConfig::default()
    };
    ContainerSpec { image: "web".to_owned(), health: Some(health), ..ContainerSpec::default() }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_takes_flows_once_it_is_healthy_and_is_replaced_when_it_is_not_any_more() {
    let node = Node::starting(checked()).await;
    node.make_namespace().await;
    node.datapath.set_open_flows(0);
    node.runtime.exec_goes(FakeExec::End(1, "not yet\n".to_owned()));
    node.until(|node| node.runtime.execs().len() == 1).await;
    sleep(CHECK_EVERY / 2).await;
    assert_eq!(node.status().state, TaskState::Starting);
    assert!(node.state().is_none_or(|state| state != BackendState::Ready), "it is listening, but not healthy");
    node.runtime.exec_goes(FakeExec::End(0, String::new()));
    node.until(|node| node.status().state == TaskState::Running && node.state() == Some(BackendState::Ready)).await;

    // One failure is none; a check that hangs is one.
    node.runtime.exec_goes(FakeExec::Hang);
    let before = node.runtime.execs().len();
    node.until(|node| node.runtime.execs().len() == before + 1).await;
    node.runtime.exec_goes(FakeExec::End(3, "I am tired\nof it".to_owned()));
    sleep(Duration::from_secs(5)).await;
    assert_eq!((node.status().state, node.state()), (TaskState::Running, Some(BackendState::Ready)));
    // It leaves the mesh before it is told to stop, and has failed although it ends well.
    node.datapath.set_open_flows(1);
    node.until(|node| node.state() == Some(BackendState::Draining)).await;
    sleep(A_WHILE).await;
    assert!(!node.is_signalled());
    node.datapath.set_open_flows(0);
    node.until(|node| node.status().state == TaskState::Failed).await;
    assert_eq!(node.runtime.signals().iter().map(|(_, signal)| *signal).collect::<Vec<_>>(), [15]);
    assert_eq!(
        node.status().err.as_deref(),
        Some("task: unhealthy container: 2 health checks in a row failed, the last with code 3: I am tired")
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_never_becomes_healthy_fails_without_having_run() {
    let node = Node::starting(checked()).await;
    node.make_namespace().await;
    node.runtime.exec_goes(FakeExec::Refuse("no /check in the image".to_owned()));
    node.datapath.set_open_flows(0);
    node.until(|node| node.status().state == TaskState::Failed).await;
    assert_eq!(node.runtime.execs().len(), 2);
    assert!(node.status().err.unwrap().contains("no /check in the image"));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_task_stays_so_under_a_new_daemon_and_one_that_was_given_up_does_too() {
    let file = |dir: &Path| health::file(dir, &id('t'));
    let known = |state| Health { state, ..Health::new(Timestamp::now()) };
    let node = Node::restarted_with(EndpointState::Ready, TaskState::Running, checked(), |dir| {
        disk::write_json(&file(dir), &known(HealthState::Healthy)).unwrap();
    })
    .await;
    node.make_namespace().await;
    node.until(|node| node.state() == Some(BackendState::Ready)).await;
    node.until(|node| node.runtime.execs().len() == 3).await;
    assert_eq!(node.status().state, TaskState::Running);

    let node = Node::restarted_with(EndpointState::Draining, TaskState::Running, checked(), |dir| {
        disk::write_json(&file(dir), &known(HealthState::Unhealthy)).unwrap();
    })
    .await;
    node.make_namespace().await;
    node.datapath.set_open_flows(0);
    node.until(|node| node.status().state == TaskState::Failed).await;
    assert_eq!((node.runtime.execs().len(), node.is_signalled()), (0, true));
}
