//! This node, in or out of a swarm: what is opened when, and the ways from one to the other.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skep_agent::{Agent, AgentConfig, Parts};
use skep_ca::{JoinToken, NodeKeys, RootCa};
use skep_engine::backend::node::SwarmState;
use skep_engine::backend::swarm::{InitOptions, JoinOptions, Leave};
use skep_engine::{Error, ErrorKind};
use skep_manager::InitCluster;
use skep_mesh::{Bpf, MapSizes};
use skep_model::{Availability, EngineDescription, NodeDescription, NodeId, NodeResources, Platform, Role, Timestamp};
use skep_network::{Facts, KernelNetwork, KernelPorts, NodeNetwork};
use skep_raft::Vault;
use skep_rpc::{MembershipClient, NodeIdentity, RpcError, TunnelIo, proto};
use skep_runtime::images::Images;
use skep_runtime::{Embedded, EmbeddedConfig, Runtime, Shim};
use skep_store::Store;
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::advertise;
use super::certificates::{self, Certificates};
use super::flags::{Flags, Reply};
use super::host::Host;
use super::identity;
use super::leader::LeaderFinder;
use super::node_file::{ManagerSeat, Membership, NodeFile};
use super::renewal::Renewal;
use super::role;
use super::seat::{Begin, Opened, Seat};

/// How long a manager that has joined may need to be one.
const JOINING: Duration = Duration::from_secs(20);
/// How long managers may need to have a leader again.
const ELECTION: Duration = Duration::from_secs(5);

/// UDP port of the overlay unless a swarm says otherwise (IANA: vxlan).
const DATA_PATH_PORT: u16 = 4789;

/// The node: what it always has, and what it has as a member of a swarm.
pub(crate) struct LocalNode {
    /// The daemon's own identity, kept over restarts, apart from any swarm.
    pub(crate) id: String,
    pub(crate) flags: Flags,
    /// When the daemon started.
    pub(crate) started: Timestamp,
    pub(crate) images: Arc<Images>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) network: Arc<dyn NodeNetwork>,
    file: NodeFile,
    certificates: Certificates,
    /// Held for writing by whoever joins or leaves.
    member: RwLock<Option<Member>>,
    state: Mutex<SwarmState>,
    /// The store of a manager; changes when the node becomes one or ceases to be one.
    store: watch::Sender<Option<Store>>,
    /// A manager's way to the leader.
    finder: Mutex<Option<LeaderFinder>>,
    /// Whoever serves the API takes what other managers pass on from the other end.
    tunnels: mpsc::Sender<TunnelIo>,
}

/// What a member of a swarm has.
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) agent: Agent,
    pub(crate) seat: Option<Seat>,
    /// What it proves itself with.
    pub(crate) identity: NodeIdentity,
    /// Follows the role that the managers give this node.
    role: AbortOnDropHandle<()>,
    /// Renews the node's certificate.
    renewal: AbortOnDropHandle<()>,
}

impl LocalNode {
    /// Opens what every node has.
    pub(crate) fn open(flags: Flags, tunnels: mpsc::Sender<TunnelIo>) -> Result<Self> {
        let data = &flags.data_root;
        let images = Arc::new(Images::open(&data.join("images"))?);
        let runtime = Embedded::open(EmbeddedConfig {
            root: data.join("containers"),
            volumes: data.join("volumes"),
            images: images.clone(),
            cgroup_parent: flags.cgroup_parent.clone(),
            shim: Shim::Myself,
        })?;
        Ok(Self {
            id: engine_id(&data.join("engine-id"))?,
            started: Timestamp::now(),
            images,
            runtime: Arc::new(runtime),
            network: Arc::new(KernelNetwork::new()?),
            file: NodeFile::new(data),
            certificates: Certificates::new(data),
            member: RwLock::new(None),
            state: Mutex::new(SwarmState::Inactive),
            store: watch::Sender::new(None),
            finder: Mutex::default(),
            tunnels,
            flags,
        })
    }

    /// Goes on where the last daemon stopped.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<()> {
        let Some(membership) = self.file.load()? else { return Ok(()) };
        let mut member = self.member.write().await;
        self.set_state(SwarmState::Pending);
        let identity = identity::resumed(&self.certificates, &membership)?;
        let opened = match &membership.manager {
            Some(_) if Vault::is_locked(&self.raft_dir())? => {
                warn!("this manager is locked: `docker swarm unlock` opens it; tasks and traffic go on");
                None
            }
            Some(seat) => {
                Some(Opened::new(&self.flags.data_root, seat, identity.clone(), Begin::AsBefore(None)).await?)
            }
            None => None,
        };
        *member = Some(self.enter(membership, identity, opened).await?);
        Ok(())
    }

    /// Stops managing and following; tasks and traffic stay.
    pub(crate) async fn suspend(&self) {
        if let Some(Member { agent, seat, role, .. }) = self.member.write().await.take() {
            drop(role);
            drop(agent);
            if let Some(seat) = seat {
                seat.close().await;
            }
        }
    }

    /// The way to the leader, on a manager.
    pub(crate) fn finder(&self) -> Option<LeaderFinder> {
        self.finder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the node is to a swarm.
    pub(crate) fn state(&self) -> SwarmState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: SwarmState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What it has as a member, held still.
    pub(crate) async fn member(&self) -> tokio::sync::RwLockReadGuard<'_, Option<Member>> {
        self.member.read().await
    }

    /// The store of a manager, as the node becomes one and ceases to be one.
    pub(crate) fn store(&self) -> watch::Receiver<Option<Store>> {
        self.store.subscribe()
    }

    /// Starts a swarm with this node as its manager.
    pub(crate) async fn init(self: &Arc<Self>, options: InitOptions) -> Result<NodeId, Error> {
        let mut member = self.try_write()?;
        match member.as_mut() {
            Some(member) if options.force_new_cluster => return self.recover(member, &options).await,
            Some(_) => return Err(Error::already_in_swarm()),
            None => {}
        }
        let facts = self.facts().await?;
        let addr = advertise::resolve(&facts, options.advertise_addr.as_ref())?;
        self.same_data_path(&facts, options.data_path_addr.as_ref(), addr)?;
        let listen = advertise::listen(&facts, &options.listen_addr)?;
        let port = options.advertise_addr.as_ref().map_or(listen.port(), |a| a.port);
        let (root, identity) = identity::founded().map_err(unknown)?;
        let node = identity.node().clone();
        let seat = ManagerSeat { raft_id: rand_id(), listen, advertise: SocketAddr::new(addr, port) };
        let outcome = self.found(&mut member, options, (facts, addr), (seat, root, identity)).await;
        if outcome.is_err() {
            self.set_state(SwarmState::Inactive);
            self.forget();
        }
        outcome.map(|()| node)
    }

    async fn found(
        self: &Arc<Self>,
        member: &mut Option<Member>,
        options: InitOptions,
        (facts, addr): (Facts, IpAddr),
        (seat, root, identity): (ManagerSeat, RootCa, NodeIdentity),
    ) -> Result<(), Error> {
        self.set_state(SwarmState::Pending);
        let opened = Opened::new(&self.flags.data_root, &seat, identity.clone(), Begin::AsBefore(None))
            .await
            .map_err(unknown)?;
        opened.initialize().await.map_err(unknown)?;
        let data_path_port = options.data_path_port.unwrap_or(DATA_PATH_PORT);
        if data_path_port != DATA_PATH_PORT {
            return Err(Error::unimplemented(format!(
                "--data-path-port {data_path_port} is not supported yet: leave it out, and the overlay uses UDP port {DATA_PATH_PORT}"
            )));
        }
        let init = InitCluster {
            cluster: identity.cluster().clone(),
            root,
            node: identity.node().clone(),
            credential: identity.credentials().keys().digest(),
            description: self.description().map_err(unknown)?,
            addr: seat.advertise,
            raft_id: seat.raft_id,
            availability: options.availability,
            spec: options.spec,
            default_pools: options.default_addr_pool,
            subnet_size: options.subnet_size.unwrap_or(24),
            data_path_port,
            routes: facts.routes,
        };
        let cluster = opened.write_swarm(init).await.map_err(|e| super::backend::refusal(&e))?;
        let membership = Membership {
            cluster,
            node: identity.node().clone(),
            addr,
            managers: vec![seat.advertise.to_string()],
            data_path_port,
            listen: seat.listen,
            advertise_port: seat.advertise.port(),
            manager: Some(seat),
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        *member = Some(self.enter(membership, identity, Some(opened)).await.map_err(unknown)?);
        Ok(())
    }

    /// Joins a swarm.
    pub(crate) async fn join(self: &Arc<Self>, options: JoinOptions) -> Result<(), Error> {
        let mut member = self.try_write()?;
        if member.is_some() {
            return Err(Error::already_in_swarm());
        }
        let token: JoinToken = options.token.parse().map_err(|e: skep_ca::CaError| Error::invalid(e.to_string()))?;
        let facts = self.facts().await?;
        let advertised = match &options.advertise_addr {
            Some(given) => Some(advertise::resolve(&facts, Some(given))?),
            None => None,
        };
        if let Some(addr) = advertised {
            self.same_data_path(&facts, options.data_path_addr.as_ref(), addr)?;
        }
        let listen = advertise::listen(&facts, &options.listen_addr)?;
        let port = options.advertise_addr.as_ref().map_or(listen.port(), |a| a.port);
        let keys = NodeKeys::generate().map_err(unknown)?;
        let request = proto::JoinRequest {
            csr: keys.request().map_err(unknown)?.into(),
            description: skep_rpc::encode(&self.description().map_err(unknown)?),
            advertise_addr: advertised.map(|a| a.to_string()).unwrap_or_default(),
            availability: availability(options.availability).to_owned(),
            routes: facts.routes.iter().map(ToString::to_string).collect(),
        };
        self.set_state(SwarmState::Pending);
        let joined = self.admitted(&mut member, &options, (listen, port), (&token, keys), request).await;
        if member.is_none() {
            self.set_state(SwarmState::Inactive);
            self.forget();
        }
        joined
    }

    async fn admitted(
        self: &Arc<Self>,
        member: &mut Option<Member>,
        options: &JoinOptions,
        listen: (SocketAddr, u16),
        (token, keys): (&JoinToken, NodeKeys),
        request: proto::JoinRequest,
    ) -> Result<(), Error> {
        let (manager, answer) = ask_to_join(&options.remote_addrs, token, request).await?;
        let garbled =
            |what: &str| Error::new(ErrorKind::Unknown, format!("the manager at {manager} answered with a bad {what}"));
        let identity = identity::joined(token, keys, &answer).map_err(|e| garbled(&format!("certificate: {e:#}")))?;
        let membership = Membership {
            cluster: identity.cluster().clone(),
            node: identity.node().clone(),
            addr: answer.node_addr.parse().map_err(|_| garbled("node address"))?,
            managers: vec![manager.clone()],
            data_path_port: DATA_PATH_PORT,
            listen: listen.0,
            advertise_port: listen.1,
            manager: None,
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        let mut entered = self.enter(membership, identity, None).await.map_err(unknown)?;
        entered.agent.joined().await;
        let manages = if answer.role == "manager" { self.join_managers(&mut entered).await } else { Ok(()) };
        match manages {
            Ok(()) | Err(Error { kind: ErrorKind::Unavailable, .. }) => *member = Some(entered),
            Err(_) => drop(entered.agent.leave().await),
        }
        manages
    }

    /// A node that has joined as a manager becomes one.
    async fn join_managers(&self, member: &mut Member) -> Result<(), Error> {
        self.open_seat(member).await.map_err(unknown)?;
        let Some(seat) = &member.seat else { return Ok(()) };
        tokio::time::timeout(JOINING, seat.joined()).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.",
            )
        })
    }

    /// Leaves the swarm and forgets it.
    pub(crate) async fn leave(&self, leave: Leave) -> Result<(), Error> {
        let mut member = self.try_write()?;
        let Some(current) = member.as_ref() else { return Err(Error::not_in_swarm()) };
        if current.membership.manager.is_some() && leave == Leave::Gently {
            return Err(manages_still(current.seat.as_ref().map_or(1, Seat::managers)));
        }
        // The file first: a daemon killed in the middle must not come back as a member.
        self.file.remove().map_err(unknown)?;
        if let Some(Member { agent, seat, role, renewal, .. }) = member.take() {
            drop(role);
            // It must not write a certificate that is being removed.
            renewal.abort();
            for e in agent.leave().await {
                warn!("leaving the swarm: {e}");
            }
            if let Some(seat) = seat {
                if seat.managers() > 1 {
                    seat.parted().await;
                }
                self.give_up(seat).await;
            }
        }
        self.forget();
        self.set_state(SwarmState::Inactive);
        info!("left the swarm");
        Ok(())
    }

    /// Starts what a member has.
    async fn enter(
        self: &Arc<Self>,
        membership: Membership,
        identity: NodeIdentity,
        opened: Option<Opened>,
    ) -> Result<Member> {
        // First, for the agent turns to it.
        let seat = opened.map(|opened| opened.manage(self.tunnels()));
        let agent = self.start_agent(&membership, identity.clone()).await?;
        let locked = membership.manager.is_some() && seat.is_none();
        self.set_state(if locked { SwarmState::Locked } else { SwarmState::Worker });
        self.remember_managers(&membership, &agent);
        let renewal = Renewal {
            identity: identity.clone(),
            certificates: self.certificates.clone(),
            told: agent.told(),
            managers: agent.managers(),
        };
        let renewal = AbortOnDropHandle::new(tokio::spawn(renewal.run()));
        let role = role::follow(Arc::downgrade(self), agent.told(), identity.clone());
        let role = AbortOnDropHandle::new(tokio::spawn(role));
        let mut member = Member { membership, agent, seat: None, identity, role, renewal };
        if let Some(seat) = seat {
            self.take_seat(&mut member, seat);
        }
        Ok(member)
    }

    /// Is a manager from now on.
    pub(super) fn take_seat(&self, member: &mut Member, seat: Seat) {
        *self.finder.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat.finder().clone());
        self.store.send_replace(Some(seat.store().clone()));
        self.set_state(SwarmState::Manager);
        let opened = member.membership.manager.as_ref().map(|seat| (seat.raft_id, seat.advertise));
        member.agent.manages(opened);
        member.seat = Some(seat);
    }

    /// Stops managing.
    pub(super) async fn give_up(&self, seat: Seat) {
        *self.finder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.store.send_replace(None);
        seat.close().await;
    }

    /// The managers want this node among them, and it is not yet.
    async fn open_seat(&self, member: &mut Member) -> Result<()> {
        // One that is locked is a manager, which somebody else has to open.
        if member.seat.is_some() || member.membership.manager.is_some() {
            return Ok(());
        }
        let mut membership = member.membership.clone();
        let seat = ManagerSeat {
            raft_id: rand_id(),
            listen: membership.listen,
            advertise: SocketAddr::new(membership.addr, membership.advertise_port),
        };
        // Something that an earlier time as a manager has left is of no use to this one.
        remove_dir(&self.raft_dir())?;
        let opened = Opened::new(&self.flags.data_root, &seat, member.identity.clone(), Begin::AsBefore(None)).await?;
        membership.manager = Some(seat);
        membership.managers = member.agent.managers().borrow().clone();
        self.file.store(&membership)?;
        member.membership = membership;
        self.take_seat(member, opened.manage(self.tunnels()));
        info!("promoted: this node becomes a manager");
        Ok(())
    }

    /// The managers do without this node from now on.
    async fn close_seat(&self, member: &mut Member) -> Result<()> {
        if member.membership.manager.take().is_none() {
            return Ok(());
        }
        member.membership.managers = member.agent.managers().borrow().clone();
        self.file.store(&member.membership)?;
        member.agent.manages(None);
        if let Some(seat) = member.seat.take() {
            self.give_up(seat).await;
        }
        self.set_state(SwarmState::Worker);
        info!("demoted: this node is a worker");
        remove_dir(&self.raft_dir())
    }

    /// Becomes what the managers want it to be.
    pub(crate) async fn follow(&self, wanted: Role) -> Result<()> {
        let mut member = self.member.write().await;
        let Some(member) = member.as_mut() else { return Ok(()) };
        match wanted {
            Role::Manager => self.open_seat(member).await,
            Role::Worker => self.close_seat(member).await,
        }
    }

    async fn start_agent(&self, membership: &Membership, identity: NodeIdentity) -> Result<Agent> {
        let config = AgentConfig {
            identity,
            description: self.description()?,
            managers: membership.managers.clone(),
            data_path_port: membership.data_path_port,
            reply_direct: self.flags.reply == Reply::Direct,
            data_dir: self.agent_dir(),
            netns_dir: self.flags.exec_root.join("netns"),
        };
        let pins = self.flags.exec_root.join("bpf");
        let sizes = MapSizes::for_memory(Host::read().memory);
        let datapath = tokio::task::spawn_blocking(move || Bpf::open(&pins, sizes)).await??;
        let parts = Parts {
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            network: self.network.clone(),
            listeners: |netns| skep_network::listeners(netns),
            datapath: Box::new(datapath),
            ports: Arc::new(KernelPorts),
        };
        Ok(Agent::start(config, parts).await?)
    }

    /// Managers that become known are remembered for the next start.
    fn remember_managers(&self, membership: &Membership, agent: &Agent) {
        let (mut managers, file, node) = (agent.managers(), self.file.clone(), membership.node.clone());
        tokio::spawn(async move {
            while managers.changed().await.is_ok() {
                let known = managers.borrow_and_update().clone();
                if let Err(e) = file.remember(&node, known) {
                    warn!("{e:#}");
                }
            }
        });
    }

    pub(super) fn store_membership(&self, membership: &Membership) -> Result<()> {
        self.file.store(membership)
    }

    pub(super) fn tunnels(&self) -> mpsc::Sender<TunnelIo> {
        self.tunnels.clone()
    }

    fn raft_dir(&self) -> PathBuf {
        self.flags.data_root.join("raft")
    }

    fn agent_dir(&self) -> PathBuf {
        self.flags.data_root.join("agent")
    }

    /// Removes what only a member has. The swarm may have refused halfway: what is not there is no error.
    fn forget(&self) {
        if let Err(e) = self.file.remove() {
            error!("{e:#}");
        }
        for dir in [self.raft_dir(), self.agent_dir(), self.flags.data_root.join(certificates::DIRECTORY)] {
            if let Err(e) = remove_dir(&dir) {
                error!("{e:#}");
            }
        }
    }

    /// What the node says of itself to managers.
    fn description(&self) -> Result<NodeDescription> {
        let host = Host::read();
        Ok(NodeDescription {
            hostname: host.hostname,
            platform: Platform { architecture: host.architecture, os: "linux".to_owned() },
            resources: NodeResources { nano_cpus: u64::from(host.cpus) * 1_000_000_000, memory: host.memory },
            engine: EngineDescription {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                labels: self.flags.label_map()?,
            },
        })
    }

    pub(super) async fn facts(&self) -> Result<Facts, Error> {
        self.network.facts().await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))
    }

    /// Overlay packets go by the advertised address in this version.
    fn same_data_path(
        &self,
        facts: &Facts,
        given: Option<&skep_engine::backend::swarm::Host>,
        addr: IpAddr,
    ) -> Result<(), Error> {
        let Some(given) = given else { return Ok(()) };
        let wanted = advertise::resolve_host(facts, given)?;
        if wanted == addr {
            return Ok(());
        }
        Err(Error::unimplemented(format!(
            "a data path address ({wanted}) other than the advertised one ({addr}) is not supported yet: leave --data-path-addr out"
        )))
    }

    pub(super) fn try_write(&self) -> Result<tokio::sync::RwLockWriteGuard<'_, Option<Member>>, Error> {
        self.member.try_write().map_err(|_| {
            Error::new(ErrorKind::Unavailable, "this node is busy joining or leaving a swarm; try again in a moment")
        })
    }
}

/// Asks one manager after the other, and the one that leads as soon as one says which that is. What a manager of the token's swarm answers,
/// counts.
async fn ask_to_join(
    managers: &[String],
    token: &JoinToken,
    request: proto::JoinRequest,
) -> Result<(String, proto::JoinResponse), Error> {
    let mut last = Error::invalid("at least one manager's address is needed to join a swarm");
    let mut ahead: VecDeque<String> = managers.iter().cloned().collect();
    let deadline = Instant::now() + ELECTION;
    while let Some(manager) = ahead.pop_front() {
        match MembershipClient::join(&manager, token, request.clone()).await {
            Ok(answer) => return Ok((manager, answer)),
            Err(e @ RpcError::NoLeader { .. }) if Instant::now() > deadline => {
                return Err(Error::new(ErrorKind::Unavailable, e.to_string()));
            }
            Err(RpcError::NoLeader { leader: Some(leader), .. }) if leader != manager => ahead.push_front(leader),
            // One will be elected soon.
            Err(RpcError::NoLeader { .. }) => {
                tokio::time::sleep(ELECTION / 20).await;
                ahead.push_back(manager);
            }
            Err(e @ (RpcError::Unreachable { .. } | RpcError::Timeout { .. })) => {
                last = Error::new(ErrorKind::Unavailable, e.to_string());
            }
            // Somebody else has that address; the next one may be a manager's.
            Err(e @ (RpcError::Untrusted { .. } | RpcError::Clock { .. })) => last = Error::invalid(e.to_string()),
            Err(e) => return Err(Error::invalid(e.to_string())),
        }
    }
    Err(last)
}

/// Why a manager does not leave by the way.
fn manages_still(managers: usize) -> Error {
    let then = match managers {
        0 | 1 => "Removing the last manager erases all current state of the swarm.".to_owned(),
        2 => "Of two managers one cannot decide anything alone: promote another node first, or demote this one."
            .to_owned(),
        many => format!(
            "{} of {many} managers would be left; `docker node demote` on this node makes it a worker, which leaves without more ado.",
            many - 1
        ),
    };
    let message = format!(
        "You are attempting to leave the swarm on a node that is participating as a manager. {then} Use `--force` to ignore this message."
    );
    Error::new(ErrorKind::Unavailable, message)
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| dir.display().to_string()),
        _ => Ok(()),
    }
}

fn availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

/// Made once, and then read.
fn engine_id(path: &Path) -> Result<String> {
    if let Ok(id) = std::fs::read_to_string(path) {
        return Ok(id.trim().to_owned());
    }
    let id = NodeId::random().to_string();
    std::fs::write(path, &id).with_context(|| path.display().to_string())?;
    Ok(id)
}

fn rand_id() -> u64 {
    rand::random()
}

pub(super) fn unknown(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unknown, format!("{error:#}"))
}
