//! This node, in or out of a swarm: what is opened when, and the ways from one to the other.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use skep_agent::{Agent, AgentConfig, Parts};
use skep_ca::{JoinToken, NodeKeys, RootCa};
use skep_engine::backend::node::SwarmState;
use skep_engine::backend::swarm::{InitOptions, JoinOptions, Leave};
use skep_engine::{Error, ErrorKind};
use skep_manager::InitCluster;
use skep_mesh::{Bpf, MapSizes};
use skep_model::{Availability, EngineDescription, NodeDescription, NodeId, NodeResources, Platform, Timestamp};
use skep_network::{Facts, KernelNetwork, KernelPorts, NodeNetwork};
use skep_rpc::{MembershipClient, NodeIdentity, RpcError, proto};
use skep_runtime::images::Images;
use skep_runtime::{Embedded, EmbeddedConfig, Runtime, Shim};
use skep_store::Store;
use tokio::sync::{RwLock, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::advertise;
use super::certificates::{self, Certificates};
use super::flags::{Flags, Reply};
use super::host::Host;
use super::identity;
use super::node_file::{ManagerSeat, Membership, NodeFile};
use super::renewal::Renewal;
use super::seat::{Opened, Seat};

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
}

/// What a member of a swarm has.
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) agent: Agent,
    pub(crate) seat: Option<Seat>,
    /// Renews the node's certificate.
    _renewal: AbortOnDropHandle<()>,
}

impl LocalNode {
    /// Opens what every node has.
    pub(crate) fn open(flags: Flags) -> Result<Self> {
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
            flags,
        })
    }

    /// Goes on where the last daemon stopped.
    pub(crate) async fn resume(&self) -> Result<()> {
        let Some(membership) = self.file.load()? else { return Ok(()) };
        let mut member = self.member.write().await;
        self.set_state(SwarmState::Pending);
        let identity = identity::resumed(&self.certificates, &membership)?;
        let opened = match &membership.manager {
            Some(seat) => Some(Opened::new(&self.flags.data_root, seat, identity.clone()).await?),
            None => None,
        };
        *member = Some(self.enter(membership, identity, opened).await?);
        Ok(())
    }

    /// Stops managing and following; tasks and traffic stay.
    pub(crate) async fn suspend(&self) {
        if let Some(Member { agent, seat, .. }) = self.member.write().await.take() {
            drop(agent);
            if let Some(seat) = seat {
                seat.close().await;
            }
        }
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
    pub(crate) async fn init(&self, options: InitOptions) -> Result<NodeId, Error> {
        let mut member = self.try_write()?;
        if member.is_some() {
            return Err(Error::already_in_swarm());
        }
        if options.force_new_cluster {
            return Err(Error::unimplemented(
                "--force-new-cluster comes with several managers; this version has one, whose state is never lost by others",
            ));
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
        &self,
        member: &mut Option<Member>,
        options: InitOptions,
        (facts, addr): (Facts, IpAddr),
        (seat, root, identity): (ManagerSeat, RootCa, NodeIdentity),
    ) -> Result<(), Error> {
        self.set_state(SwarmState::Pending);
        let opened = Opened::new(&self.flags.data_root, &seat, identity.clone()).await.map_err(unknown)?;
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
            manager: Some(seat),
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        *member = Some(self.enter(membership, identity, Some(opened)).await.map_err(unknown)?);
        Ok(())
    }

    /// Joins a swarm.
    pub(crate) async fn join(&self, options: JoinOptions) -> Result<(), Error> {
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
        let keys = NodeKeys::generate().map_err(unknown)?;
        let request = proto::JoinRequest {
            csr: keys.request().map_err(unknown)?.into(),
            description: skep_rpc::encode(&self.description().map_err(unknown)?),
            advertise_addr: advertised.map(|a| a.to_string()).unwrap_or_default(),
            availability: availability(options.availability).to_owned(),
            routes: facts.routes.iter().map(ToString::to_string).collect(),
        };
        self.set_state(SwarmState::Pending);
        let joined = self.admitted(&mut member, &options.remote_addrs, &token, keys, request).await;
        if joined.is_err() {
            self.set_state(SwarmState::Inactive);
            self.forget();
        }
        joined
    }

    async fn admitted(
        &self,
        member: &mut Option<Member>,
        managers: &[String],
        token: &JoinToken,
        keys: NodeKeys,
        request: proto::JoinRequest,
    ) -> Result<(), Error> {
        let (manager, answer) = ask_to_join(managers, token, request).await?;
        let garbled =
            |what: &str| Error::new(ErrorKind::Unknown, format!("the manager at {manager} answered with a bad {what}"));
        let identity = identity::joined(token, keys, &answer).map_err(|e| garbled(&format!("certificate: {e:#}")))?;
        let membership = Membership {
            cluster: identity.cluster().clone(),
            node: identity.node().clone(),
            addr: answer.node_addr.parse().map_err(|_| garbled("node address"))?,
            managers: vec![manager.clone()],
            data_path_port: DATA_PATH_PORT,
            manager: None,
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        let entered = self.enter(membership, identity, None).await.map_err(unknown)?;
        entered.agent.joined().await;
        *member = Some(entered);
        Ok(())
    }

    /// Leaves the swarm and forgets it.
    pub(crate) async fn leave(&self, leave: Leave) -> Result<(), Error> {
        let mut member = self.try_write()?;
        let Some(current) = member.as_ref() else { return Err(Error::not_in_swarm()) };
        if current.seat.is_some() && leave == Leave::Gently {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.",
            ));
        }
        // The file first: a daemon killed in the middle must not come back as a member.
        self.file.remove().map_err(unknown)?;
        if let Some(Member { agent, seat, _renewal: renewal, .. }) = member.take() {
            // It must not write a certificate that is being removed.
            renewal.abort();
            for e in agent.leave().await {
                warn!("leaving the swarm: {e}");
            }
            self.store.send_replace(None);
            if let Some(seat) = seat {
                seat.close().await;
            }
        }
        self.forget();
        self.set_state(SwarmState::Inactive);
        info!("left the swarm");
        Ok(())
    }

    /// Starts what a member has.
    async fn enter(&self, membership: Membership, identity: NodeIdentity, opened: Option<Opened>) -> Result<Member> {
        let seat = opened.map(Opened::manage);
        let agent = self.start_agent(&membership, identity.clone()).await?;
        self.store.send_replace(seat.as_ref().map(|s| s.store().clone()));
        self.set_state(if seat.is_some() { SwarmState::Manager } else { SwarmState::Worker });
        self.remember_managers(&membership, &agent);
        let renewal = Renewal {
            identity,
            certificates: self.certificates.clone(),
            assignments: agent.assigned(),
            managers: agent.managers(),
        };
        let _renewal = AbortOnDropHandle::new(tokio::spawn(renewal.run()));
        Ok(Member { membership, agent, seat, _renewal })
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
        let (mut managers, file, mut membership) = (agent.managers(), self.file.clone(), membership.clone());
        tokio::spawn(async move {
            while managers.changed().await.is_ok() {
                membership.managers = managers.borrow_and_update().clone();
                if let Err(e) = file.update(&membership) {
                    warn!("{e:#}");
                }
            }
        });
    }

    fn agent_dir(&self) -> PathBuf {
        self.flags.data_root.join("agent")
    }

    /// Removes what only a member has. The swarm may have refused halfway: what is not there is no error.
    fn forget(&self) {
        if let Err(e) = self.file.remove() {
            error!("{e:#}");
        }
        for dir in ["raft", "agent", certificates::DIRECTORY] {
            let dir = self.flags.data_root.join(dir);
            if let Err(e) = std::fs::remove_dir_all(&dir)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                error!("{}: {e}", dir.display());
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

    async fn facts(&self) -> Result<Facts, Error> {
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

    fn try_write(&self) -> Result<tokio::sync::RwLockWriteGuard<'_, Option<Member>>, Error> {
        self.member.try_write().map_err(|_| {
            Error::new(ErrorKind::Unavailable, "this node is busy joining or leaving a swarm; try again in a moment")
        })
    }
}

/// Asks one manager after the other. What a manager of the token's swarm answers, counts.
async fn ask_to_join(
    managers: &[String],
    token: &JoinToken,
    request: proto::JoinRequest,
) -> Result<(String, proto::JoinResponse), Error> {
    let mut last = Error::invalid("at least one manager's address is needed to join a swarm");
    for manager in managers {
        match MembershipClient::join(manager, token, request.clone()).await {
            Ok(answer) => return Ok((manager.clone(), answer)),
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

fn unknown(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unknown, format!("{error:#}"))
}
