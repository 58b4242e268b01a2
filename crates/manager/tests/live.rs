//! A manager that leads, and a node that speaks with it over the network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_ca::{JoinToken, NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots};
use skep_manager::{
    Found, Group, GroupError, GroupMember, InitCluster, Manager, ManagerConfig, NodeRemoval, Presence, Rotate,
    TaskLogOptions, TaskLogSource, init_cluster,
};
use skep_model::{
    Availability, ClusterId, ClusterSpec, ContainerSpec, GossipKeys, Node, NodeDescription, NodeId, NodeState,
    PortConflict, Protocol, Role, ServiceMode, ServiceSpec, Task, TaskSpec, TaskState, Timestamp,
};
use skep_rpc::proto::agent_message::Message as ToManager;
use skep_rpc::proto::manager_message::Message as FromManager;
use skep_rpc::proto::{self, AgentMessage, JoinRequest, ManagerMessage};
use skep_rpc::{MembershipClient, NodeIdentity, Services};
use skep_store::{LocalLog, Store, Writer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

struct Cluster {
    manager: Manager,
    store: Store,
    writer: Arc<Writer>,
    addr: String,
    there: Arc<There>,
    _leading: watch::Sender<bool>,
}

/// Whether the nodes' daemons are there when they say nothing; where they are not, the machines are.
#[derive(Default)]
struct There(AtomicBool);

#[async_trait::async_trait]
impl Presence for There {
    async fn look_for(&self, _: IpAddr) -> Found {
        if self.0.load(Ordering::Relaxed) { Found::Daemon } else { Found::Machine }
    }
}

/// A manager that agrees with itself.
struct Alone;

#[async_trait::async_trait]
impl Group for Alone {
    fn own(&self) -> u64 {
        1
    }

    fn members(&self) -> BTreeMap<u64, GroupMember> {
        BTreeMap::from([(1, GroupMember { votes: true, answers: true })])
    }

    async fn add(&self, _: u64, _: SocketAddr) -> Result<(), GroupError> {
        Err(GroupError::NotLeader)
    }

    async fn remove(&self, _: u64) -> Result<(), GroupError> {
        Err(GroupError::NotLeader)
    }
}

impl Cluster {
    async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// On every address of the node, and known by this one.
    async fn start_at(known_by: IpAddr) -> Self {
        let listener = skep_rpc::listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let addr = SocketAddr::new(known_by, listener.local_addr().unwrap().port());
        let store = Store::default();
        let writer = Arc::new(Writer::new(store.clone(), Arc::new(LocalLog(store.clone()))));
        let (root, keys) = (RootCa::generate(Timestamp::now()).unwrap(), NodeKeys::generate().unwrap());
        let own = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Manager };
        let chain = root.sign_own(&keys, &own, Timestamp::now()).unwrap();
        let identity = identity(keys.clone(), &chain, &root.certificate().to_pem());
        let node = own.node;
        let mut spec = ClusterSpec::default();
        spec.dispatcher.heartbeat = Duration::from_secs(1);
        let init = InitCluster {
            cluster: own.cluster,
            root,
            node: node.clone(),
            credential: keys.digest(),
            description: NodeDescription::default(),
            raft_id: 1,
            addr,
            availability: Availability::Drain,
            spec,
            default_pools: Vec::new(),
            subnet_size: 24,
            data_path_port: 4789,
            routes: Vec::new(),
        };
        writer.update(|_| Ok::<_, skep_manager::ControlError>(((), init_cluster(init)?))).await.unwrap();
        let (leading, leads) = watch::channel(true);
        let (_, leader) = watch::channel(None);
        let there = Arc::new(There::default());
        let (writer_too, group, presence) = (writer.clone(), Arc::new(Alone), there.clone());
        let manager =
            Manager::start(ManagerConfig { node, addr, writer: writer_too, leading: leads, leader, group, presence });
        let services = Services::default().membership(manager.membership()).dispatcher(manager.dispatcher());
        tokio::spawn(skep_rpc::serve(listener, services, manager.authenticate(), identity, std::future::pending()));
        Self { manager, store, writer, addr: addr.to_string(), there, _leading: leading }
    }

    async fn join(&self, keys: &NodeKeys, routes: Vec<String>) -> Result<NodeIdentity, skep_rpc::RpcError> {
        let token: JoinToken = self.manager.control().join_tokens().unwrap().worker.parse().unwrap();
        let request = JoinRequest {
            csr: keys.request().unwrap().into(),
            description: skep_rpc::encode(&NodeDescription { hostname: "w".to_owned(), ..Default::default() }),
            availability: "active".to_owned(),
            routes,
            ..Default::default()
        };
        let answer = MembershipClient::join(&self.addr, &token, request).await?;
        let identity = identity(keys.clone(), &answer.certificate, &answer.roots);
        assert_eq!(identity.node().as_str(), answer.node_id);
        Ok(identity)
    }

    async fn session(&self, identity: &NodeIdentity) -> Agent {
        let mut client = skep_rpc::dispatcher_client(&self.addr, identity).await.unwrap();
        let (outbox, outgoing) = mpsc::channel(16);
        let description = skep_rpc::encode(&NodeDescription { hostname: "w".to_owned(), ..Default::default() });
        let mut agent_outbox =
            Agent::message(ToManager::Hello(proto::Hello { description, addr: String::new(), raft_id: 0 }));
        outbox.send(std::mem::take(&mut agent_outbox)).await.unwrap();
        let incoming = client.session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Agent { client, outbox, incoming }
    }

    /// Waits until the store is as it should be.
    async fn until(&self, what: &str, is: impl Fn(&skep_store::Tables) -> bool) {
        let mut events = self.store.watch();
        let waiting = async {
            while !self.store.view(&is) {
                let _ = events.next().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn state(&self, node: &NodeId) -> Option<NodeState> {
        self.store.view(|tables| tables.get::<Node>(node).map(|node| node.status.state))
    }
}

fn identity(keys: NodeKeys, chain: &str, roots: &str) -> NodeIdentity {
    NodeIdentity::new(NodeCredentials::new(keys, chain, Roots::from_pem(roots).unwrap()).unwrap()).unwrap()
}

fn new_keys() -> NodeKeys {
    NodeKeys::generate().unwrap()
}

struct Agent {
    client: skep_rpc::DispatcherClient,
    outbox: mpsc::Sender<AgentMessage>,
    incoming: Streaming<ManagerMessage>,
}

impl Agent {
    fn message(message: ToManager) -> AgentMessage {
        AgentMessage { message: Some(message) }
    }

    async fn say(&self, message: ToManager) {
        self.outbox.send(Self::message(message)).await.unwrap();
    }

    async fn hear(&mut self) -> FromManager {
        let next = tokio::time::timeout(Duration::from_secs(10), self.incoming.message()).await;
        next.expect("the manager is silent").unwrap().expect("the session ended").message.unwrap()
    }

    /// The next assignments with a task in them.
    async fn task(&mut self) -> Task {
        loop {
            if let FromManager::Assignments(assignments) = self.hear().await
                && let Some(task) = assignments.tasks.first()
            {
                return skep_rpc::decode(task).unwrap();
            }
        }
    }

    async fn report(&self, task: &Task, state: TaskState) {
        let mut status = task.status.clone();
        status.state = state;
        let status = proto::TaskStatus { task_id: task.id.to_string(), status: skep_rpc::encode(&status) };
        self.say(ToManager::Statuses(proto::TaskStatuses { statuses: vec![status] })).await;
    }
}

fn web() -> ServiceSpec {
    ServiceSpec {
        name: "web".parse().unwrap(),
        labels: Default::default(),
        task: TaskSpec {
            container: ContainerSpec { image: "web:1".to_owned(), ..Default::default() },
            resources: Default::default(),
            restart: None,
            placement: Default::default(),
            networks: Vec::new(),
            force_update: 0,
            registry_auth: None,
        },
        mode: ServiceMode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        endpoint: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_on_a_node_that_joined_and_its_logs_come_back() {
    let cluster = Cluster::start().await;
    let identity = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    let mut agent = cluster.session(&identity).await;
    let FromManager::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
    assert_eq!((welcome.heartbeat_ms, welcome.managers), (333, vec![cluster.addr.clone()]));
    let FromManager::Assignments(first) = agent.hear().await else { panic!("no assignments") };
    assert!(first.full && first.sequence == 1 && first.members.len() == 2 && first.networks.len() == 1);
    let control = cluster.manager.control();
    let service = control.create_service(web()).await.unwrap();
    let task = agent.task().await;
    assert_eq!((&task.service, task.desired), (&service, TaskState::Running));
    agent.report(&task, TaskState::Running).await;
    let running = |tables: &skep_store::Tables| {
        tables.get::<Task>(&task.id).is_some_and(|task| task.status.state == TaskState::Running)
    };
    cluster.until("the task runs", running).await;
    let options = TaskLogOptions { stdout: true, stderr: true, follow: false, tail: None, since: None };
    let mut lines = control.task_logs(TaskLogSource::Service(service.clone()), options).unwrap();
    let request = loop {
        if let FromManager::Logs(request) = agent.hear().await {
            break request;
        }
    };
    let line = proto::LogLine { task_id: task.id.to_string(), stream: 1, timestamp: 1, line: "hello".into() };
    let chunk = proto::LogChunk { subscription: request.subscription, lines: vec![line] };
    agent.client.publish_logs(tokio_stream::once(chunk)).await.unwrap();
    assert_eq!(lines.recv().await.unwrap().data, "hello");
    assert_eq!(lines.recv().await, None);
    control.remove_service(&service).await.unwrap();
    let told = agent.task().await;
    assert_eq!(told.desired, TaskState::Remove);
    agent.report(&told, TaskState::Shutdown).await;
    cluster.until("the task is forgotten", |tables| tables.all::<Task>().len() == 0).await;
    cluster.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_down_and_a_node_that_returns_is_ready() {
    let cluster = Cluster::start().await;
    let key = new_keys();
    let identity = cluster.join(&key, Vec::new()).await.unwrap();
    let again = cluster.join(&key, Vec::new()).await.unwrap();
    assert_eq!(again.node(), identity.node(), "joining again is no second node");
    let node = identity.node().clone();
    let agent = cluster.session(&identity).await;
    assert_eq!(cluster.state(&node), Some(NodeState::Ready));
    let is = |state| {
        let node = node.clone();
        move |tables: &skep_store::Tables| tables.get::<Node>(&node).is_some_and(|node| node.status.state == state)
    };
    let refused = cluster.manager.control().remove_node(&node, NodeRemoval::IfDown).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("node {node} is not down and can't be removed"));
    cluster.until("a node that says nothing is down", is(NodeState::Down)).await;
    drop(agent);
    let mut agent = cluster.session(&identity).await;
    assert_eq!(cluster.state(&node), Some(NodeState::Ready));
    agent.client.leave(proto::LeaveRequest {}).await.unwrap();
    assert_eq!(cluster.state(&node), Some(NodeState::Down));
    cluster.manager.control().remove_node(&node, NodeRemoval::IfDown).await.unwrap();
    assert_eq!(cluster.state(&node), None);
    let mut client = skep_rpc::dispatcher_client(&cluster.addr, &identity).await.unwrap();
    let refused = client.leave(proto::LeaveRequest {}).await.unwrap_err();
    assert!(refused.message().contains("not a member"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_over_ipv6_and_is_known_by_the_address_that_it_came_from() {
    let cluster = Cluster::start_at(Ipv6Addr::LOCALHOST.into()).await;
    assert!(cluster.addr.starts_with("[::1]:"));
    let identity = cluster.join(&new_keys(), vec!["fd00::/64".to_owned(), "::/0".to_owned()]).await.unwrap();
    let mut agent = cluster.session(&identity).await;
    let FromManager::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
    assert_eq!(welcome.managers, std::slice::from_ref(&cluster.addr));
    let addr = cluster.store.view(|tables| tables.get::<Node>(identity.node()).and_then(|node| node.status.addr));
    assert_eq!(addr, Some(Ipv6Addr::LOCALHOST.into()));
    // The port answers by IPv4 too; but this swarm's nodes do not.
    let by_ipv4 = cluster.addr.replace("[::1]", "127.0.0.1");
    let cluster = Cluster { addr: by_ipv4, ..cluster };
    let refused = cluster.join(&new_keys(), Vec::new()).await.unwrap_err().to_string();
    assert!(refused.contains("reach each other by IPv6"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_which_ports_it_leaves_to_its_own_processes() {
    let cluster = Cluster::start().await;
    let identity = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    let mut agent = cluster.session(&identity).await;
    let conflict = PortConflict {
        protocol: Protocol::Tcp,
        port: 8080.try_into().unwrap(),
        holder: "nginx (process 812)".to_owned(),
    };
    let told = |conflicts: &[PortConflict]| {
        let conflicts = conflicts.iter().map(skep_rpc::encode).collect();
        ToManager::PortConflicts(proto::PortConflicts { conflicts })
    };
    let is = |node: &NodeId, conflicts: &[PortConflict]| {
        let (node, conflicts) = (node.clone(), conflicts.to_vec());
        move |t: &skep_store::Tables| t.get::<Node>(&node).is_some_and(|n| n.status.port_conflicts == conflicts)
    };
    agent.say(told(std::slice::from_ref(&conflict))).await;
    cluster.until("the conflict is known", is(identity.node(), std::slice::from_ref(&conflict))).await;
    let version = cluster.store.view(skep_store::Tables::version);
    agent.say(told(std::slice::from_ref(&conflict))).await;
    agent.say(told(&[])).await;
    cluster.until("the conflict is over", is(identity.node(), &[])).await;
    assert_eq!(cluster.store.view(skep_store::Tables::version).0, version.0 + 1, "nothing new, nothing written");
    // The node knows by itself: it is not told its own words.
    while let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), agent.incoming.message()).await {
        let Some(FromManager::Assignments(told)) = heard.unwrap().unwrap().message else { continue };
        assert!(told.full || told.node.is_empty(), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_handed_the_keys_of_their_talk_and_bad_joins_are_refused() {
    let cluster = Cluster::start().await;
    let joined = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    let mut agent = cluster.session(&joined).await;
    let told = loop {
        if let FromManager::Assignments(told) = agent.hear().await {
            break told;
        }
    };
    let keys: GossipKeys = skep_rpc::decode(&told.gossip_keys.unwrap().keys).unwrap();
    assert_eq!(Some(keys), cluster.store.view(|t| t.cluster().and_then(|c| c.gossip_keys.clone())));
    let refused = cluster.join(&new_keys(), vec!["10.0.7.0/24".to_owned()]).await.unwrap_err().to_string();
    assert!(refused.contains("10.0.0.0/16") && refused.contains("10.0.7.0/24"), "{refused}");
    let control = cluster.manager.control();
    let old: JoinToken = control.join_tokens().unwrap().worker.parse().unwrap();
    let (version, spec) = cluster.store.view(|t| t.cluster().map(|c| (c.meta.version, c.spec.clone()))).unwrap();
    control.update_cluster(version, spec, Rotate { worker: true, ..Rotate::default() }).await.unwrap();
    let refused = MembershipClient::join(&cluster.addr, &old, JoinRequest::default()).await.unwrap_err().to_string();
    assert!(refused.contains("A valid join token is necessary to join this cluster"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_a_certificate_for_the_role_that_the_managers_know_and_a_removed_one_gets_none() {
    let cluster = Cluster::start().await;
    let identity = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    assert_eq!(identity.role(), Role::Worker);
    let credential = || cluster.store.view(|t| t.get::<Node>(identity.node()).map(|n| n.credential.clone())).unwrap();
    assert_eq!(credential(), identity.credentials().keys().digest());
    let promote = |role| {
        let mut node = cluster.store.view(|t| Node::clone(t.get::<Node>(identity.node()).unwrap()));
        node.spec.role = role;
        cluster.writer.update(|_| Ok::<_, skep_manager::ControlError>(((), vec![node.into()])))
    };
    for role in [Role::Manager, Role::Worker] {
        promote(role).await.unwrap();
        let keys = new_keys();
        let given = MembershipClient::renew(&cluster.addr, &identity, keys.request().unwrap()).await.unwrap();
        let roots = Roots::from_pem(&given.roots).unwrap();
        identity.replace(NodeCredentials::new(keys.clone(), &given.certificate, roots).unwrap()).unwrap();
        assert_eq!((identity.role(), credential()), (role, keys.digest()));
    }
    let garbage = MembershipClient::renew(&cluster.addr, &identity, vec![1, 2, 3]).await.unwrap_err().to_string();
    assert!(garbage.contains("signing request cannot be granted"), "{garbage}");
    cluster.manager.control().remove_node(identity.node(), NodeRemoval::Force).await.unwrap();
    let request = new_keys().request().unwrap();
    let refused = MembershipClient::renew(&cluster.addr, &identity, request).await.unwrap_err().to_string();
    assert!(refused.contains("not a member"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_daemon_is_held_up_is_not_given_up_for_a_while() {
    let cluster = Cluster::start().await;
    let node = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    let agent = cluster.session(&node).await;
    let id = node.node().clone();
    cluster.until("it is ready", |tables| tables.get::<Node>(&id).unwrap().status.state == NodeState::Ready).await;
    cluster.there.0.store(true, Ordering::Relaxed);
    let silent = tokio::time::Instant::now();
    drop(agent);
    // Of the first manager no daemon is there, and a heartbeat is a second here.
    let gone = |tables: &skep_store::Tables| tables.get::<Node>(&id).unwrap().status.state == NodeState::Down;
    cluster.until("it is given up in the end", gone).await;
    assert!(silent.elapsed() > Duration::from_secs(5), "{:?}", silent.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_daemon_is_gone_is_given_up_though_it_was_there_before() {
    let cluster = Cluster::start().await;
    let node = cluster.join(&new_keys(), Vec::new()).await.unwrap();
    let agent = cluster.session(&node).await;
    let id = node.node().clone();
    cluster.there.0.store(true, Ordering::Relaxed);
    let silent = tokio::time::Instant::now();
    drop(agent);
    tokio::time::sleep_until(silent + Duration::from_secs(2)).await;
    assert_ne!(cluster.state(&id), Some(NodeState::Down));
    cluster.there.0.store(false, Ordering::Relaxed);
    let gone = |tables: &skep_store::Tables| tables.get::<Node>(&id).unwrap().status.state == NodeState::Down;
    cluster.until("it is given up", gone).await;
    assert!(silent.elapsed() < Duration::from_secs(5), "{:?}", silent.elapsed());
}
