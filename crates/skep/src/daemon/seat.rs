//! What a manager has besides what every node has: a member of the Raft group, the leader's loops, and the manager port.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use skep_ca::UnlockKey;
use skep_manager::{
    Control, ControlError, Found, Group, GroupError, GroupMember, InitCluster, Manager, ManagerConfig, Presence,
};
use skep_model::ClusterId;
use skep_raft::{Leadership, Raft, RaftConfig, RaftError, Reachability};
use skep_rpc::{NodeIdentity, Services, TunnelIo};
use skep_store::{Store, Writer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::leader::LeaderFinder;
use super::lock;
use super::node_file::ManagerSeat;

/// How long a manager that leaves waits for the others to go on without it.
const PARTING: Duration = Duration::from_secs(3);

/// A manager's parts, running.
pub(crate) struct Seat {
    raft: Raft,
    manager: Manager,
    store: Store,
    finder: LeaderFinder,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    /// Keeps what is on the disk locked as the swarm says.
    _lock: AbortOnDropHandle<()>,
    /// Sees whether the member of the group gives up.
    _watch: AbortOnDropHandle<()>,
}

/// A member of the Raft group that is started and does not manage yet: the moment in which a new swarm is written.
pub(crate) struct Opened {
    raft: Raft,
    store: Store,
    writer: Arc<Writer>,
    seat: ManagerSeat,
    identity: NodeIdentity,
    listener: TcpListener,
}

/// How a member of the group starts, and the unlock key, where one is needed.
#[derive(Debug, Clone)]
pub(crate) enum Begin {
    /// On what is on its disk: its group of before, or nothing.
    AsBefore(Option<UnlockKey>),
    /// As a group of its own, with everything that is on its disk.
    Alone(Option<UnlockKey>),
}

impl Begin {
    fn unlock_key(&self) -> Option<UnlockKey> {
        match self {
            Self::AsBefore(key) | Self::Alone(key) => key.clone(),
        }
    }
}

impl Opened {
    /// Takes the manager port and starts on what is on the disk.
    pub(crate) async fn new(
        data_root: &Path,
        seat: &ManagerSeat,
        identity: NodeIdentity,
        begin: Begin,
    ) -> Result<Self> {
        let listener = skep_rpc::listen(seat.listen).with_context(|| {
            format!("cannot listen on {}: is another manager running? Give --listen-addr another port", seat.listen)
        })?;
        let store = Store::default();
        let config = RaftConfig {
            dir: data_root.join("raft"),
            raft_id: seat.raft_id,
            addr: seat.advertise,
            identity: identity.clone(),
            unlock_key: begin.unlock_key(),
        };
        let raft = match begin {
            Begin::AsBefore(_) => Raft::start(config, store.clone()).await?,
            Begin::Alone(_) => Raft::recover_alone(config, store.clone()).await?,
        };
        let writer = Arc::new(Writer::new(store.clone(), Arc::new(raft.clone())));
        Ok(Self { raft, store, writer, seat: seat.clone(), identity, listener })
    }

    /// The first member of a new group.
    pub(crate) async fn initialize(&self) -> Result<()> {
        Ok(self.raft.initialize().await?)
    }

    /// The first objects of a new swarm.
    pub(crate) async fn write_swarm(&self, init: InitCluster) -> Result<ClusterId, ControlError> {
        let changes = skep_manager::init_cluster(init)?;
        self.writer.update(|_| Ok::<_, ControlError>(((), changes))).await?;
        self.store.view(|tables| tables.cluster().map(|c| c.id.clone())).ok_or(ControlError::NoCluster)
    }

    /// This manager is the only one from now on.
    pub(crate) async fn write_alone(&self) -> Result<(), ControlError> {
        let (own, raft_id, addr) = (self.identity.node(), self.seat.raft_id, self.seat.advertise);
        let written = self
            .writer
            .update(|tables| Ok::<_, ControlError>(((), skep_manager::manage_alone(tables, own, raft_id, addr))));
        Ok(written.await?)
    }

    /// Begins to manage. What other managers pass on comes out of the other end of `tunnels`; `again` is told when the daemon has to start again.
    pub(crate) fn manage(self, tunnels: mpsc::Sender<TunnelIo>, again: Arc<Notify>) -> Seat {
        let addr = self.seat.advertise;
        let manager = Manager::start(ManagerConfig {
            node: self.identity.node().clone(),
            addr,
            writer: self.writer,
            leading: told(&self.raft, Leadership::is_leader),
            leader: told(&self.raft, move |leadership| match leadership {
                Leadership::Leader { .. } => Some(addr),
                Leadership::Follower { addr, .. } => Some(*addr),
                Leadership::Unknown | Leadership::Stopped(_) => None,
            }),
            group: Arc::new(RaftGroup(self.raft.clone())),
            presence: Arc::new(Knock),
        });
        let services = Services::default()
            .membership(manager.membership())
            .dispatcher(manager.dispatcher())
            .raft(self.raft.service())
            .api(tunnels);
        let (stop, mut stopped) = watch::channel(false);
        let authenticate = manager.authenticate();
        let (listener, identity) = (self.listener, self.identity.clone());
        let server = tokio::spawn(async move {
            // An error means that the sender is gone, which is the same.
            let stopping = async move { drop(stopped.wait_for(|stop| *stop).await) };
            if let Err(e) = skep_rpc::serve(listener, services, authenticate, identity, stopping).await {
                error!("{e}");
            }
        });
        info!(%addr, "managing");
        let finder = LeaderFinder::new(self.raft.clone(), self.store.clone(), self.identity);
        let lock = lock::follow(self.store.clone(), self.raft.vault().clone());
        let _lock = AbortOnDropHandle::new(tokio::spawn(lock));
        let raft = self.raft.clone();
        let _watch = AbortOnDropHandle::new(tokio::spawn(async move {
            raft.gave_up().await;
            error!("this manager's member of the Raft group has given up, with its disk intact");
            again.notify_one();
        }));
        Seat { raft: self.raft, manager, store: self.store, finder, stop, server, _lock, _watch }
    }
}

/// What leadership means for somebody, as it changes.
fn told<T: PartialEq + Send + Sync + 'static>(
    raft: &Raft,
    meaning: impl Fn(&Leadership) -> T + Send + 'static,
) -> watch::Receiver<T> {
    let mut leadership = raft.leadership();
    let (tell, told) = watch::channel(meaning(&leadership.borrow_and_update()));
    tokio::spawn(async move {
        while leadership.changed().await.is_ok() && !tell.is_closed() {
            let now = meaning(&leadership.borrow_and_update());
            tell.send_if_modified(|before| std::mem::replace(before, now) != *before);
        }
    });
    told
}

/// Who is at a node's port for the talk of nodes. A daemon that is stopped or starved takes no part in it, but its kernel completes the
/// handshake for it; where the daemon has ended the kernel refuses, and where the node has, nobody answers.
struct Knock;

/// Long enough for a LAN, and for a machine with little time.
const KNOCK_TIMEOUT: Duration = Duration::from_millis(400);

#[async_trait]
impl Presence for Knock {
    async fn look_for(&self, addr: IpAddr) -> Found {
        let opening = TcpStream::connect(SocketAddr::new(addr, skep_netdb::GOSSIP_PORT));
        match tokio::time::timeout(KNOCK_TIMEOUT, opening).await {
            Ok(Ok(_)) => Found::Daemon,
            Ok(Err(refused)) if refused.kind() == std::io::ErrorKind::ConnectionRefused => Found::Machine,
            // No way there (the last router says so, or nobody answers on the cable), or no answer.
            Ok(Err(_)) | Err(_) => Found::Nobody,
        }
    }
}

/// The Raft group as the manager changes it.
struct RaftGroup(Raft);

#[async_trait]
impl Group for RaftGroup {
    fn own(&self) -> u64 {
        self.0.raft_id()
    }

    fn members(&self) -> BTreeMap<u64, GroupMember> {
        let answers = |reachable| reachable == Reachability::Reachable;
        let voters =
            self.0.reachable().into_iter().map(|(id, is)| (id, GroupMember { votes: true, answers: answers(is) }));
        let learners = self.0.learners().into_iter().map(|id| (id, GroupMember { votes: false, answers: false }));
        learners.chain(voters).collect()
    }

    async fn add(&self, raft_id: u64, addr: SocketAddr) -> Result<(), GroupError> {
        self.0.add_member(raft_id, addr).await.map_err(group_error)
    }

    async fn remove(&self, raft_id: u64) -> Result<(), GroupError> {
        self.0.remove_member(raft_id).await.map_err(group_error)?;
        if raft_id == self.own() {
            // Whoever proposes something before this manager knows that it leads no more would not be told whether it was done.
            let mut leadership = self.0.leadership();
            let stepping_down = leadership.wait_for(|leadership| !leadership.is_leader());
            if tokio::time::timeout(PARTING, stepping_down).await.is_err() {
                warn!("this manager was removed from the managers, and leads still");
            }
        }
        Ok(())
    }
}

fn group_error(error: RaftError) -> GroupError {
    match error {
        RaftError::NotLeader => GroupError::NotLeader,
        error => GroupError::Failed(error.to_string()),
    }
}

impl Seat {
    /// The manager's API.
    pub(crate) fn control(&self) -> &Control {
        self.manager.control()
    }

    /// What it knows.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The way to the leader.
    pub(crate) fn finder(&self) -> &LeaderFinder {
        &self.finder
    }

    /// How many managers agree on things at present.
    pub(crate) fn managers(&self) -> usize {
        self.raft.members().len()
    }

    /// Returns once it is one of the managers, knows the swarm, and knows who leads.
    pub(crate) async fn joined(&self) {
        let mut leadership = self.raft.leadership();
        let led = |now: &Leadership| matches!(now, Leadership::Leader { .. } | Leadership::Follower { .. });
        // An error means that it has stopped; then nobody waits.
        drop(leadership.wait_for(led).await);
        let mut events = self.store.watch();
        while self.store.view(|tables| tables.cluster().is_none()) && events.next().await.is_some() {}
    }

    /// Returns once the other managers do without this one, or have had time for it.
    pub(crate) async fn parted(&self) {
        let mut leadership = self.raft.leadership();
        let left = async { while leadership.borrow_and_update().is_leader() && leadership.changed().await.is_ok() {} };
        if tokio::time::timeout(PARTING, left).await.is_err() {
            info!("this manager leads still while it leaves");
        }
    }

    /// Stops managing. Everything acknowledged is on the disk already.
    pub(crate) async fn close(self) {
        self.stop.send_replace(true);
        self.manager.shutdown().await;
        if let Err(e) = self.server.await {
            error!("the manager port: {e}");
        }
        self.raft.shutdown().await;
    }
}
