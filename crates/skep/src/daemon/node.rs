//! This node: what it always has, and what it has as a member of a swarm. The ways in, through and out are in files of their own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use skep_agent::{Agent, AgentConfig, Parts};
use skep_engine::backend::node::SwarmState;
use skep_engine::{Error, ErrorKind};
use skep_mesh::{Bpf, MapSizes};
use skep_model::{EngineDescription, GenericResources, NodeDescription, NodeId, NodeResources, Platform, Timestamp};
use skep_network::{Facts, KernelNetwork, KernelPorts, NodeNetwork};
use skep_raft::Vault;
use skep_registry::Puller;
use skep_rpc::{NodeIdentity, TunnelIo};
use skep_runtime::images::Images;
use skep_runtime::{Embedded, EmbeddedConfig, NodeEvents, OciRuntime, Runtime, Shim, Volumes};
use skep_store::Store;
use tokio::sync::{Notify, RwLock, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::advertise;
use super::certificates::{self, Certificates};
use super::flags::{Flags, Reply};
use super::host::Host;
use super::identity;
use super::leader::LeaderFinder;
use super::node_file::{Membership, NodeFile};
use super::renewal::Renewal;
use super::role;
use super::seat::{Begin, Opened, Seat};

/// UDP port of the overlay unless a swarm says otherwise (IANA: vxlan).
pub(super) const DATA_PATH_PORT: u16 = 4789;

/// The node: what it always has, and what it has as a member of a swarm.
pub(crate) struct LocalNode {
    /// The daemon's own identity, kept over restarts, apart from any swarm.
    pub(crate) id: String,
    pub(crate) flags: Flags,
    /// What its operator says that the node has.
    pub(crate) generic: GenericResources,
    /// What makes containers, where it is not skep itself.
    pub(crate) oci_runtime: Option<OciRuntime>,
    /// When the daemon started.
    pub(crate) started: Timestamp,
    pub(crate) images: Arc<Images>,
    pub(crate) volumes: Arc<Volumes>,
    /// What happens to containers and volumes.
    pub(crate) events: NodeEvents,
    /// Where images come from.
    pub(crate) puller: Puller,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) network: Arc<dyn NodeNetwork>,
    pub(super) file: NodeFile,
    pub(super) certificates: Certificates,
    /// Held for writing by whoever joins or leaves.
    pub(super) member: RwLock<Option<Member>>,
    state: Mutex<SwarmState>,
    /// The store of a manager; changes when the node becomes one or ceases to be one.
    pub(super) store: watch::Sender<Option<Store>>,
    /// A manager's way to the leader.
    pub(super) finder: Mutex<Option<LeaderFinder>>,
    /// Whoever serves the API takes what other managers pass on from the other end.
    tunnels: mpsc::Sender<TunnelIo>,
    /// Told when the daemon has to start again.
    pub(super) again: Arc<Notify>,
}

/// What a member of a swarm has.
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) agent: Agent,
    pub(crate) seat: Option<Seat>,
    /// What it proves itself with.
    pub(crate) identity: NodeIdentity,
    /// Follows the role that the managers give this node.
    pub(super) role: AbortOnDropHandle<()>,
    /// Renews the node's certificate.
    pub(super) renewal: AbortOnDropHandle<()>,
}

impl LocalNode {
    /// Opens what every node has.
    pub(crate) fn open(flags: Flags, tunnels: mpsc::Sender<TunnelIo>) -> Result<Self> {
        let data = &flags.data_root;
        let images = Arc::new(Images::open(&data.join("images"))?);
        let events = NodeEvents::default();
        let volumes = Arc::new(Volumes::open(&data.join("volumes"), events.clone())?);
        let oci_runtime = flags.oci_runtime()?;
        let runtime = Embedded::open(EmbeddedConfig {
            root: data.join("containers"),
            volumes: volumes.clone(),
            images: images.clone(),
            cgroup_parent: flags.cgroup_parent.clone(),
            shim: Shim::Myself,
            oci_runtime: oci_runtime.clone(),
            events: events.clone(),
        })?;
        Ok(Self {
            id: engine_id(&data.join("engine-id"))?,
            generic: flags.generic()?,
            oci_runtime,
            started: Timestamp::now(),
            puller: Puller::new(images.clone(), &flags.registries()),
            images,
            volumes,
            events,
            runtime: Arc::new(runtime),
            network: Arc::new(KernelNetwork::new()?),
            file: NodeFile::new(data),
            certificates: Certificates::new(data),
            member: RwLock::new(None),
            state: Mutex::new(SwarmState::Inactive),
            store: watch::Sender::new(None),
            finder: Mutex::default(),
            tunnels,
            again: Arc::default(),
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

    pub(super) fn set_state(&self, state: SwarmState) {
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

    /// Starts what a member has.
    pub(super) async fn enter(
        self: &Arc<Self>,
        membership: Membership,
        identity: NodeIdentity,
        opened: Option<Opened>,
    ) -> Result<Member> {
        // First, for the agent turns to it.
        let seat = opened.map(|opened| opened.manage(self.tunnels(), self.again.clone()));
        let agent = self.start_agent(&membership, identity.clone()).await?;
        let locked = membership.manager.is_some() && seat.is_none();
        self.set_state(if locked { SwarmState::Locked } else { SwarmState::Worker });
        self.remember_managers(&membership, &agent);
        let renewal = Renewal {
            identity: identity.clone(),
            certificates: self.certificates.clone(),
            told: agent.told(),
            trust: agent.trust(),
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

    async fn start_agent(&self, membership: &Membership, identity: NodeIdentity) -> Result<Agent> {
        let config = AgentConfig {
            identity,
            description: self.description(&self.network.facts().await?)?,
            managers: membership.managers.clone(),
            data_path_port: membership.data_path_port,
            reply_direct: self.flags.reply == Reply::Direct,
            data_dir: self.agent_dir(),
            netns_dir: self.flags.exec_root.join("netns"),
            outside: self.flags.outside(),
        };
        let pins = self.flags.exec_root.join("bpf");
        let sizes = MapSizes::for_memory(Host::read().memory);
        let datapath = tokio::task::spawn_blocking(move || Bpf::open(&pins, sizes)).await??;
        let parts = Parts {
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            source: Arc::new(self.puller.clone()),
            network: self.network.clone(),
            listeners: |netns| skep_network::listeners(netns),
            resolvers: |netns| skep_dns::Sockets::inside(netns),
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

    pub(super) fn raft_dir(&self) -> PathBuf {
        self.flags.data_root.join("raft")
    }

    fn agent_dir(&self) -> PathBuf {
        self.flags.data_root.join("agent")
    }

    /// Removes what only a member has. The swarm may have refused halfway: what is not there is no error.
    pub(super) fn forget(&self) {
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
    pub(super) fn description(&self, facts: &Facts) -> Result<NodeDescription> {
        let host = Host::read();
        let (routes, routes6) = facts.telling_routes();
        Ok(NodeDescription {
            hostname: host.hostname,
            platform: Platform { architecture: host.architecture, os: "linux".to_owned() },
            resources: NodeResources {
                nano_cpus: u64::from(host.cpus) * 1_000_000_000,
                memory: host.memory,
                generic: self.generic.clone(),
            },
            engine: EngineDescription {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                labels: self.flags.label_map()?,
            },
            routes,
            routes6,
            // Who shows a certificate says so.
            tls: None,
        })
    }

    pub(super) async fn facts(&self) -> Result<Facts, Error> {
        self.network.facts().await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))
    }

    /// Overlay packets go by the advertised address in this version.
    pub(super) fn same_data_path(
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

pub(super) fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| dir.display().to_string()),
        _ => Ok(()),
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

pub(super) fn rand_id() -> u64 {
    rand::random()
}

pub(super) fn unknown(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unknown, format!("{error:#}"))
}
