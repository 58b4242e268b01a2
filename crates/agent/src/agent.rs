//! The agent: everything that runs on a node for the swarm, held together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use skep_mesh::Datapath;
use skep_model::seen::{FlowFilter, FlowList, MeshReport, TraceQuestion, TraceReport};
use skep_model::{Health, Node, NodeDescription, TaskId, Trust};
use skep_netdb::{Contacts, Driver as Gossip, DriverHandle as GossipHandle, GOSSIP_PORT, Listen, NetDb};
use skep_network::{NodeNetwork, NodePorts};
use skep_registry::ImageSource;
use skep_rpc::{NodeIdentity, proto};
use skep_runtime::Runtime;
use skep_runtime::images::Images;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::assignments::{Assignments, AssignmentsFile};
use crate::context::{Context, ListenersAt};
use crate::direct::Prober;
use crate::endpoints::EndpointsFile;
use crate::images::TaskImages;
use crate::logs::LogPusher;
use crate::mesh::{Inputs, Mesh};
use crate::names::{Names, Outside, SocketsAt, resolv_conf};
use crate::report::Reporter;
use crate::seen::Observer;
use crate::session::Session;
use crate::tasks::Tasks;
use crate::underlay::{Driver, Underlay};
use crate::{AgentError, containers};

/// How long the word that a node leaves may take to reach a manager, and other nodes.
const FAREWELL: Duration = Duration::from_secs(2);

/// After news of other nodes were stored the next are no sooner than this many times as long as that took.
const REST: u32 = 10;

/// Who the node is and where it keeps things.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// What it proves to managers.
    pub identity: NodeIdentity,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Managers to turn to: `host:port`.
    pub managers: Vec<String>,
    /// UDP port of the overlay.
    pub data_path_port: u16,
    /// Whether this node answers clients of other nodes itself where it can, and lets others answer its own.
    pub reply_direct: bool,
    /// Assignments and statuses, kept over reboots.
    pub data_dir: PathBuf,
    /// Pinned network namespaces, gone with a reboot.
    pub netns_dir: PathBuf,
    /// Where programs outside of tasks may ask for names.
    pub outside: Outside,
}

/// What the agent works with.
pub struct Parts {
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Images of this node.
    pub images: Arc<Images>,
    /// Where images come from that it lacks.
    pub source: Arc<dyn ImageSource>,
    /// Devices of this node.
    pub network: Arc<dyn NodeNetwork>,
    /// Says what listens in a namespace.
    pub listeners: ListenersAt,
    /// Makes the sockets of a task's resolver.
    pub resolvers: SocketsAt,
    /// The mesh's data plane.
    pub datapath: Box<dyn Datapath>,
    /// Ports of this node.
    pub ports: Arc<dyn NodePorts>,
}

/// What the agent knows, for `docker info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentState {
    /// Why no manager holds a session with this node; `None` when one does.
    pub trouble: Option<String>,
    /// Managers that it may turn to.
    pub managers: Vec<String>,
}

/// A running agent. Dropping it stops it and leaves tasks and traffic as they are.
pub struct Agent {
    config: AgentConfig,
    pub(crate) context: Arc<Context>,
    observer: Observer,
    assignments: watch::Receiver<Arc<Assignments>>,
    managers: watch::Receiver<Vec<String>>,
    connected: watch::Receiver<Result<(), String>>,
    /// The node as the managers have told it since the daemon started.
    told: watch::Receiver<Option<Node>>,
    /// Certificates as the managers have told since the daemon started.
    trusted: watch::Receiver<Option<Trust>>,
    /// Its part among the managers: number, and where its manager port answers.
    manages: watch::Sender<Option<(u64, SocketAddr)>>,
    leaving: watch::Sender<bool>,
    tasks: JoinHandle<()>,
    session: AbortHandle,
    gossip: (GossipHandle, AbortHandle),
    others: Vec<AbortHandle>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.session.abort();
        self.tasks.abort();
        self.gossip.1.abort();
        self.others.iter().for_each(AbortHandle::abort);
    }
}

impl Agent {
    /// Starts. Tasks that this node had are taken over where they are; what belongs to no task is removed.
    ///
    /// # Errors
    /// When the directories cannot be used, or the kernel refuses what the network needs.
    pub async fn start(config: AgentConfig, parts: Parts) -> Result<Self, AgentError> {
        let tasks_dir = config.data_dir.join("tasks");
        for dir in [&tasks_dir, &config.netns_dir] {
            fs::create_dir_all(dir).map_err(|source| AgentError::Disk { path: dir.clone(), source })?;
        }
        parts.network.prepare().await?;
        let file = AssignmentsFile::new(&config.data_dir);
        let (assignments, assigned) = watch::channel(Arc::new(file.load()?));
        let (underlay, underlay_seen) = watch::channel(Underlay::default());
        let netdb = NetDb::new(config.identity.node().clone());
        let sources = (assigned.clone(), netdb.view());
        let names = Names::new(parts.resolvers, &resolv_conf(), config.outside.clone(), sources);
        let context = Arc::new(Context {
            runtime: parts.runtime,
            images: TaskImages { store: parts.images, source: parts.source },
            network: parts.network,
            listeners: parts.listeners,
            netdb,
            mesh: Mesh::new(parts.datapath, parts.ports),
            names,
            reporter: Reporter::default(),
            assignments: assigned.clone(),
            underlay: underlay_seen,
            tasks_dir,
            netns_dir: config.netns_dir.clone(),
            host_ports: std::sync::Mutex::default(),
            health: std::sync::Mutex::default(),
        });
        let known = assigned.borrow().clone();
        Tasks::sweep(&context, &known).await?;
        let endpoints = EndpointsFile::new(&config.data_dir);
        take_over_endpoints(&context, &endpoints, &known).await?;
        Ok(Self::spawn(config, context, assignments, underlay, (file, endpoints)))
    }

    fn spawn(
        config: AgentConfig,
        context: Arc<Context>,
        assignments: watch::Sender<Arc<Assignments>>,
        underlay: watch::Sender<Underlay>,
        files: (AssignmentsFile, EndpointsFile),
    ) -> Self {
        let assigned = context.assignments.clone();
        let (managers, managers_seen) = watch::channel(config.managers.clone());
        let (connected, connected_seen) = watch::channel(Err("starting".to_owned()));
        let (leaving, leaving_seen) = watch::channel(false);
        let (tell, told) = watch::channel(None);
        let (trust, trusted) = watch::channel(None);
        let (manages, manages_seen) = watch::channel(None);
        let session = Session {
            identity: config.identity.clone(),
            description: config.description.clone(),
            managers,
            assignments,
            reporter: context.reporter.clone(),
            port_conflicts: context.mesh.port_conflicts(),
            netdb: context.netdb.clone(),
            logs: LogPusher::new(context.runtime.clone()),
            connected,
            told: tell,
            trust,
            manages: manages_seen,
        };
        let (gossip, contacts) = talk(&context);
        let mut others = follow_the_swarm(&config, &context, underlay);
        others.push(tokio::spawn(context.names.clone().run()).abort_handle());
        others.push(tokio::spawn(tell_contacts(assigned.clone(), contacts)).abort_handle());
        others.push(tokio::spawn(keep(files, assigned.clone(), context.netdb.clone())).abort_handle());
        let tasks = tokio::spawn(Tasks::new(context.clone()).run(assigned.clone(), leaving_seen));
        let session = tokio::spawn(session.run()).abort_handle();
        let observer = Observer::new(context.mesh.clone(), context.netdb.clone(), context.reporter.clone());
        Self {
            config,
            context,
            observer,
            assignments: assigned,
            managers: managers_seen,
            connected: connected_seen,
            told,
            trusted,
            manages,
            leaving,
            tasks,
            session,
            gossip,
            others,
        }
    }

    /// What managers have told this node.
    #[must_use]
    pub fn assignments(&self) -> Arc<Assignments> {
        self.assignments.borrow().clone()
    }

    /// Whether a manager holds a session with it.
    #[must_use]
    pub fn state(&self) -> AgentState {
        AgentState { trouble: self.connected.borrow().clone().err(), managers: self.managers.borrow().clone() }
    }

    /// Managers that it may turn to, as they become known.
    #[must_use]
    pub fn managers(&self) -> watch::Receiver<Vec<String>> {
        self.managers.clone()
    }

    /// The node as managers know it, from what they have told since the daemon started: what it is to be.
    #[must_use]
    pub fn told(&self) -> watch::Receiver<Option<Node>> {
        self.told.clone()
    }

    /// What managers say of certificates, from what they have told since the daemon started.
    #[must_use]
    pub fn trust(&self) -> watch::Receiver<Option<Trust>> {
        self.trusted.clone()
    }

    /// Lets the managers know that this node is one of them, by that number and at that address; or that it is none any more.
    pub fn manages(&self, seat: Option<(u64, SocketAddr)>) {
        self.manages.send_replace(seat);
    }

    /// Returns once a manager holds a session with this node and has told it what to run.
    pub async fn joined(&self) {
        let mut connected = self.connected.clone();
        let mut assignments = self.assignments.clone();
        // An error means that the agent is being dropped: then nobody waits.
        let _ = connected.wait_for(Result::is_ok).await;
        let own = self.config.identity.node();
        let _ = assignments.wait_for(|a| a.members.contains_key(own)).await;
    }

    /// What this node's mesh is and has counted.
    ///
    /// # Errors
    /// [`AgentError::NoMesh`] before it is up; when the data plane cannot be read.
    pub async fn mesh(&self) -> Result<MeshReport, AgentError> {
        let report = self.observer.report(self.assignments()).await?;
        Ok(MeshReport { questions: self.context.names.questions(), ..report })
    }

    /// Flows that this node remembers.
    ///
    /// # Errors
    /// As [`Self::mesh`].
    pub async fn flows(&self, filter: FlowFilter) -> Result<FlowList, AgentError> {
        self.observer.flows(filter).await
    }

    /// What would become of a connection to this node, and why.
    ///
    /// # Errors
    /// As [`Self::mesh`].
    pub async fn trace(&self, question: TraceQuestion) -> Result<TraceReport, AgentError> {
        self.observer.trace(self.assignments(), question).await
    }

    /// What the health checks of this node's tasks come to, of those that have any.
    #[must_use]
    pub fn health(&self) -> BTreeMap<TaskId, Health> {
        let all = self.context.health.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(task, health)| (task.clone(), health.borrow().clone())).collect()
    }

    /// The images that containers of this node are made of.
    ///
    /// # Errors
    /// When the runtime cannot say.
    pub async fn images_in_use(&self) -> Result<BTreeSet<skep_runtime::images::ImageId>, AgentError> {
        Ok(self.context.runtime.list().await?.into_iter().map(|c| c.image).collect())
    }

    /// Leaves the swarm: says so, ends all tasks, takes the mesh away and forgets everything. Goes on after errors and returns them.
    pub async fn leave(mut self) -> Vec<AgentError> {
        let mut errors = Vec::new();
        if tokio::time::timeout(FAREWELL, self.say_goodbye()).await.is_err() {
            warn!("no manager was in reach to be told that this node leaves; it will count as down");
        }
        self.session.abort();
        self.leaving.send_replace(true);
        if let Err(e) = (&mut self.tasks).await {
            warn!("ending the tasks: {e}");
        }
        self.others.iter().for_each(AbortHandle::abort);
        // Its table is empty now, and that is its last word.
        self.context.netdb.set_addresses(BTreeSet::new());
        let _ = tokio::time::timeout(FAREWELL, self.gossip.0.leave()).await;
        self.gossip.1.abort();
        errors.extend(self.context.mesh.close().await.err().map(AgentError::from));
        errors.extend(self.context.network.remove_overlay(OVERLAY).await.err().map(AgentError::from));
        for dir in [&self.config.data_dir, &self.config.netns_dir] {
            errors.extend(remove_dir(dir).err());
        }
        errors
    }

    async fn say_goodbye(&self) {
        let managers = self.managers.borrow().clone();
        for addr in managers {
            let Ok(mut client) = skep_rpc::dispatcher_client(&addr, &self.config.identity).await else { continue };
            if client.leave(proto::LeaveRequest {}).await.is_ok() {
                return;
            }
        }
    }
}

/// The overlay device's name.
const OVERLAY: &str = "skep-vx";

fn remove_dir(dir: &Path) -> Result<(), AgentError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(AgentError::Disk { path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Starts what keeps the overlay and the mesh as managers and nodes say.
fn follow_the_swarm(
    config: &AgentConfig,
    context: &Arc<Context>,
    underlay: watch::Sender<Underlay>,
) -> Vec<AbortHandle> {
    let own = config.identity.node().clone();
    let driver = Driver {
        own: own.clone(),
        network: context.network.clone(),
        port: config.data_path_port,
        assignments: context.assignments.clone(),
        underlay,
        netdb: context.netdb.clone(),
    };
    let (proven, direct) = watch::channel(BTreeSet::new());
    let prober = Prober { own: own.clone(), mesh: context.mesh.clone(), view: context.netdb.view(), proven };
    let inputs = Inputs {
        own,
        assignments: context.assignments.clone(),
        view: context.netdb.view(),
        underlay: context.underlay.clone(),
        reply_direct: config.reply_direct,
        direct,
    };
    let mut running =
        vec![tokio::spawn(driver.run()).abort_handle(), tokio::spawn(context.mesh.clone().run(inputs)).abort_handle()];
    if config.reply_direct {
        running.push(tokio::spawn(prober.run()).abort_handle());
    }
    running
}

/// What was known before the daemon started is true until somebody says otherwise: what other nodes had told, and what this node had told
/// them of every task that runs still. Nobody may take the first word of a new daemon, an empty table, for the truth; and the data
/// plane is not touched before all these tasks are in the mesh again.
pub(crate) async fn take_over_endpoints(
    context: &Context,
    file: &EndpointsFile,
    known: &Assignments,
) -> Result<(), AgentError> {
    let own = context.netdb.own_node();
    context.netdb.set_members(known.members.values().cloned().collect());
    let mut tables = file.load()?;
    let told = tables.remove(&own).unwrap_or_default();
    for (owner, table) in tables {
        context.netdb.merge(owner, table);
    }
    let mut running = BTreeSet::new();
    for task in known.tasks.keys() {
        let state = context.runtime.state(&containers::container_id(task)).await?;
        if matches!(state, Some(skep_runtime::ContainerState::Running { .. })) {
            running.insert(task.clone());
        }
    }
    context.netdb.take_over(told, |key| running.contains(&key.task));
    context.mesh.expect(running);
    Ok(())
}

/// Begins to tell other nodes what runs here, and to hear from them.
fn talk(context: &Context) -> ((GossipHandle, AbortHandle), watch::Sender<Contacts>) {
    let (told, seen) = watch::channel(contacts(&context.assignments.borrow()));
    let (driver, handle) = Gossip::new(context.netdb.clone(), Listen::Any, seen);
    ((handle, tokio::spawn(driver.run()).abort_handle()), told)
}

/// With whom to speak, and by which keys.
fn contacts(assignments: &Assignments) -> Contacts {
    let members = assignments.members.values();
    let members = members.map(|member| (member.node.clone(), (member.underlay, GOSSIP_PORT).into()));
    Contacts { members: members.collect(), keys: assignments.gossip_keys.clone() }
}

/// Ends only by being dropped.
async fn tell_contacts(mut assignments: watch::Receiver<Arc<Assignments>>, told: watch::Sender<Contacts>) {
    while assignments.changed().await.is_ok() {
        let now = contacts(&assignments.borrow_and_update());
        told.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }
}

/// Keeps assignments, members and endpoints on disk and in discovery. News of this node are stored at once; those of others, of which a large
/// swarm has hundreds a second, wait for more. Ends only by being dropped.
async fn keep(
    (assignments_file, endpoints_file): (AssignmentsFile, EndpointsFile),
    mut assignments: watch::Receiver<Arc<Assignments>>,
    netdb: NetDb,
) {
    let mut own = netdb.own();
    let mut view = netdb.view();
    loop {
        let now = assignments.borrow_and_update().clone();
        netdb.set_members(now.members.values().cloned().collect());
        own.borrow_and_update();
        view.borrow_and_update();
        let (began, files, tables) =
            (Instant::now(), (assignments_file.clone(), endpoints_file.clone()), netdb.clone());
        let store = move || [files.0.store(&now), files.1.store(&tables)];
        match tokio::task::spawn_blocking(store).await {
            Ok(kept) => kept.into_iter().filter_map(Result::err).for_each(|e| {
                warn!("a restart of the daemon would not find the newest state: {e}");
            }),
            Err(e) => warn!("a restart of the daemon would not find the newest state: {e}"),
        }
        let rested = Instant::now() + began.elapsed() * REST;
        let others = async {
            sleep_until(rested).await;
            view.changed().await
        };
        tokio::select! {
            Ok(()) = assignments.changed() => {}
            Ok(()) = own.changed() => {}
            Ok(()) = others => {}
        }
    }
}
