//! A member of the group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use openraft::error::{ClientWriteError, Fatal, InitializeError, RaftError as CoreError};
use openraft::{BasicNode, ChangeMembers, Config, ServerState, SnapshotPolicy};
use skep_model::Version;
use skep_rpc::NodeIdentity;
use skep_store::{Log, Proposal, ProposeError, Store};
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use crate::RaftError;
use crate::fault::Fault;
use crate::group::Group;
use crate::leadership::{self, Leadership};
use crate::log::{LogStore, Order, recover};
use crate::machine::Machine;
use crate::network::rpc::Rpc;
use crate::network::{Network, Transport};
use crate::reach::{Heard, Reachability};
use crate::service::{Answers, RaftService};
use crate::types::{Applied, Core};
use crate::vault::{UnlockKey, Vault};

/// How long a proposal may take while this member leads: this is for disks that hang. A leader that is cut off learns of it within
/// about a second, and then nobody waits any longer.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a majority may take to confirm who leads.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// As Docker's: a snapshot each so many entries, and so many entries before it kept for members that lag a little.
const SNAPSHOT_INTERVAL: NonZeroU64 = NonZeroU64::new(10_000).unwrap();
const KEPT: u64 = 500;
/// How long to wait for the first election of a group of one, and for the log to be closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a member needs to know of itself.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// The member's own directory; it is made when it is missing.
    pub dir: PathBuf,
    /// The member's number: random, given once, and never used again, not even by the same machine after it has left.
    pub raft_id: u64,
    /// Where other members reach it: the manager port.
    pub addr: SocketAddr,
    /// What it proves to other members.
    pub identity: NodeIdentity,
    /// The key of a swarm that is locked. A new member is locked with it at once; one that is not locked does not look at it.
    pub unlock_key: Option<UnlockKey>,
}

/// A member of the group. Clones are the same member; it stops when the last one is gone, or on [`Raft::shutdown`].
#[derive(Clone)]
pub struct Raft(Arc<Shared>);

struct Shared {
    core: Core,
    config: RaftConfig,
    group: Group,
    heard: Heard,
    vault: Vault,
    fault: Fault,
    leadership: watch::Receiver<Leadership>,
    follower: AbortHandle,
    closed: watch::Receiver<()>,
    /// Held while the group is being changed.
    changing: Mutex<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // It holds the core, which would go on without anybody.
        self.follower.abort();
    }
}

impl Raft {
    /// Starts the member on what is on its disk: nothing, and then it waits to be [initialised](Self::initialize) or to be called by
    /// others; or its log, and then `store` is filled from it. A member that is alone in its group leads within milliseconds.
    ///
    /// # Errors
    /// When the directory cannot be used, or what is in it is damaged, of another member, or in use.
    pub async fn start(config: RaftConfig, store: Store) -> Result<Self, RaftError> {
        Self::start_with_snapshots(config, store, SNAPSHOT_INTERVAL).await
    }

    /// As [`Self::start`], with a snapshot each `interval` entries of the log instead of each 10,000: Docker's `--snapshot-interval`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_snapshots(
        config: RaftConfig,
        store: Store,
        interval: NonZeroU64,
    ) -> Result<Self, RaftError> {
        Self::start_with(config, store, SnapshotPolicy::LogsSinceLast(interval.get()), KEPT).await
    }

    pub(crate) async fn start_with(
        config: RaftConfig,
        store: Store,
        snapshot_policy: SnapshotPolicy,
        keep: u64,
    ) -> Result<Self, RaftError> {
        let transport = Rpc::new(config.identity.clone(), store.clone());
        let opened = {
            let config = config.clone();
            let opening = tokio::task::spawn_blocking(move || open(&config, store));
            opening.await.map_err(|why| RaftError::stopped(&why))??
        };
        Self::start_on(opened, config, transport, snapshot_policy, keep).await
    }

    /// Starts on an open log, and speaks over any transport.
    pub(crate) async fn start_on(
        (log, machine, closed): (LogStore, Machine, watch::Receiver<()>),
        config: RaftConfig,
        transport: impl Transport,
        snapshot_policy: SnapshotPolicy,
        keep: u64,
    ) -> Result<Self, RaftError> {
        let timing = Config {
            cluster_name: "skep".to_owned(),
            // A leader is missed after the longest election timeout; candidates then wait for up to as long again: about a second.
            heartbeat_interval: 100,
            election_timeout_min: 300,
            election_timeout_max: 600,
            install_snapshot_timeout: 60_000,
            snapshot_policy,
            max_in_snapshot_log_to_keep: keep,
            purge_batch_size: 1,
            ..Config::default()
        };
        let timing = Arc::new(timing.validate().expect("the timing is consistent"));
        let (group, heard) = (Group::of(&log), Heard::default());
        let (vault, fault) = (log.vault().clone(), log.fault().clone());
        let network = Network { transport: Arc::new(transport), group: group.clone(), heard: heard.clone() };
        let core = Core::new(config.raft_id, timing, network, log, machine).await;
        let core = core.map_err(|why| RaftError::stopped(&why))?;
        lead_when_alone(&core).await?;
        let (sender, leadership) = watch::channel(Leadership::Unknown);
        let follower = tokio::spawn(leadership::follow(core.clone(), fault.clone(), sender)).abort_handle();
        Ok(Self(Arc::new(Shared {
            core,
            config,
            group,
            heard,
            vault,
            fault,
            leadership,
            follower,
            closed,
            changing: Mutex::default(),
        })))
    }

    /// Starts the member as a group of one with everything that is on its disk, and waits until it leads: for the operator who has lost
    /// the majority of a group for good. What was acknowledged is there if this member had it; what it had and nobody
    /// acknowledged is there too. The former members are strangers from then on, whatever they still have.
    ///
    /// # Errors
    /// [`RaftError::NothingToRecover`] when it was in no group, and as [`Self::start`].
    pub async fn recover_alone(config: RaftConfig, store: Store) -> Result<Self, RaftError> {
        let rewriting = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || recover::rewrite(&config))
        };
        rewriting.await.map_err(|why| RaftError::stopped(&why))??;
        let raft = Self::start(config, store).await?;
        raft.led().await?;
        Ok(raft)
    }

    /// Makes this member a group of one, and waits until it leads.
    ///
    /// # Errors
    /// [`RaftError::AlreadyInitialized`] when it is in a group already.
    pub async fn initialize(&self) -> Result<(), RaftError> {
        if self.is_initialized().await? {
            return Err(RaftError::AlreadyInitialized);
        }
        self.0.group.found().await?;
        let member = BTreeMap::from([(self.0.config.raft_id, BasicNode::new(self.0.config.addr))]);
        self.0.core.initialize(member).await.map_err(|error| match error {
            CoreError::APIError(InitializeError::NotAllowed(_)) => RaftError::AlreadyInitialized,
            error => RaftError::stopped(&error),
        })?;
        self.led().await
    }

    /// Whether the member is in a group.
    ///
    /// # Errors
    /// [`RaftError::Stopped`].
    pub async fn is_initialized(&self) -> Result<bool, RaftError> {
        self.0.core.is_initialized().await.map_err(|why| RaftError::stopped(&why))
    }

    pub(crate) async fn led(&self) -> Result<(), RaftError> {
        let mut leadership = self.leadership();
        let leading = leadership.wait_for(Leadership::is_leader);
        match tokio::time::timeout(PATIENCE, leading).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(RaftError::NotLeader),
        }
    }

    /// Who leads, and changes of that.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Returns once the member has stopped although its disk is well and nobody told it to; otherwise never. openraft gives up a leader that is
    /// outvoted at the moment at which it begins to send a snapshot (0.9.25: "replication channel closed"). Nothing is lost by it: the
    /// member can be started again on what is on its disk.
    pub async fn gave_up(&self) {
        let mut leadership = self.leadership();
        // An error means that whoever follows the member has gone, which says nothing.
        let stopped = leadership.wait_for(|now| matches!(now, Leadership::Stopped(_))).await.is_ok();
        if !stopped || !self.has_given_up() {
            std::future::pending::<()>().await;
        }
    }

    /// Only that: anything else would happen again after each start.
    pub(crate) fn has_given_up(&self) -> bool {
        let metrics = self.0.core.metrics();
        let outvoted = |fatal: &Fatal<u64>| matches!(fatal, Fatal::StorageError(error) if error.to_string().contains("replication channel closed"));
        self.0.fault.is_none() && metrics.borrow().running_state.as_ref().is_err_and(outvoted)
    }

    /// The member's number.
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        self.0.config.raft_id
    }

    /// The service by which other members reach this one: for [`skep_rpc::Services::raft`]. It keeps the member running.
    #[must_use]
    pub fn service(&self) -> RaftService {
        RaftService(self.answers())
    }

    pub(crate) fn answers(&self) -> Answers {
        Answers { core: self.0.core.clone(), member: self.0.config.raft_id, group: self.0.group.clone() }
    }

    /// The members that vote, and where they answer.
    #[must_use]
    pub fn members(&self) -> BTreeMap<u64, String> {
        let metrics = self.0.core.metrics();
        let membership = metrics.borrow().membership_config.clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership.nodes().filter(|(id, _)| voters.contains(id)).map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    /// Members that are being brought up to date, and do not vote yet.
    #[must_use]
    pub fn learners(&self) -> BTreeSet<u64> {
        let metrics = self.0.core.metrics();
        let membership = metrics.borrow().membership_config.clone();
        membership.membership().learner_ids().collect()
    }

    /// What this member's files are sealed with: for locking the swarm and unlocking it.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Which members answer. Only the leader knows of the others; a member that does not lead knows of itself.
    #[must_use]
    pub fn reachable(&self) -> BTreeMap<u64, Reachability> {
        let leads = self.0.leadership.borrow().is_leader();
        let reachability = |id| match id {
            id if id == self.raft_id() => Reachability::Reachable,
            _ if !leads => Reachability::Unknown,
            id if self.0.heard.lately(id) => Reachability::Reachable,
            _ => Reachability::Unreachable,
        };
        self.members().into_keys().map(|id| (id, reachability(id))).collect()
    }

    /// Waits until a majority has confirmed that this member leads. What the store shows then is at least as new as everything that was
    /// acknowledged anywhere before the call. A leader that was cut off a moment ago may still believe that it leads, for a second at
    /// most: who must not read something outdated in that second calls this first.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`] after two seconds at most, or [`RaftError::Stopped`].
    pub async fn confirm(&self) -> Result<(), RaftError> {
        match tokio::time::timeout(CONFIRM_TIMEOUT, self.0.core.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Err(_) | Ok(Err(CoreError::APIError(_))) => Err(RaftError::NotLeader),
            Ok(Err(fatal)) => Err(RaftError::stopped(&fatal)),
        }
    }

    /// What openraft says of itself.
    #[cfg(test)]
    pub(crate) fn metrics(&self) -> String {
        let metrics = self.0.core.metrics();
        let metrics = metrics.borrow();
        format!("{} {:?}", *metrics, metrics.running_state)
    }

    /// Adds a member that has been started and not initialised: it is brought up to date first and votes then. Leader only.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`], or [`RaftError::Stopped`].
    pub async fn add_member(&self, raft_id: u64, addr: SocketAddr) -> Result<(), RaftError> {
        let _changing = self.0.changing.lock().await;
        self.check_belongs(None)?;
        self.0.core.add_learner(raft_id, BasicNode::new(addr), true).await.map_err(not_leader)?;
        self.check_belongs(None)?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([raft_id]))).await
    }

    /// Removes a member, for good: its number is never used again. Leader only; a leader that removes itself stops leading.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`], or [`RaftError::Stopped`].
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), RaftError> {
        let _changing = self.0.changing.lock().await;
        self.check_belongs(Some(raft_id))?;
        if self.learners().contains(&raft_id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([raft_id]))).await;
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([raft_id]))).await
    }

    /// A leader that was asked to remove itself leads until that is committed. openraft takes changes of the group from it until then, and is not
    /// prepared for them: in a debug build it stops over one.
    /// The same when such a change was left halfway: only to be asked once more to remove itself ends that.
    fn check_belongs(&self, removed: Option<u64>) -> Result<(), RaftError> {
        let own = self.raft_id();
        let metrics = self.0.core.metrics();
        let membership = metrics.borrow().membership_config.clone();
        let stays = membership.membership().get_joint_config().last().is_some_and(|voters| voters.contains(&own));
        let leaves = removed == Some(own) && membership.voter_ids().any(|voter| voter == own);
        if stays || leaves { Ok(()) } else { Err(RaftError::NotLeader) }
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), RaftError> {
        // Not retained: a member that does not vote any more is not a learner either.
        self.0.core.change_membership(change, false).await.map(drop).map_err(not_leader)
    }

    /// Stops the member. When it returns, its files are closed. Nothing acknowledged is lost without it.
    pub async fn shutdown(&self) {
        if let Err(error) = self.0.core.shutdown().await {
            tracing::warn!(%error, "the manager's log did not stop cleanly");
        }
        self.0.group.close();
        // An error says that the file is closed, which is what is waited for.
        let mut closed = self.0.closed.clone();
        if tokio::time::timeout(PATIENCE, closed.changed()).await.is_err() {
            tracing::warn!("the manager's log is still in use");
        }
    }
}

fn open(config: &RaftConfig, store: Store) -> Result<(LogStore, Machine, watch::Receiver<()>), RaftError> {
    std::fs::create_dir_all(&config.dir).map_err(|why| RaftError::io(&config.dir, &why))?;
    let (log, closed) = LogStore::open(&config.dir, config.raft_id, config.unlock_key.as_ref(), Order::Checked)?;
    match Machine::open(&config.dir, store, &log) {
        Ok(machine) => Ok((log, machine, closed)),
        Err(error) => {
            // Who tries again at once must not find the file in use.
            drop(log);
            let mut closed = closed;
            drop(tokio::runtime::Handle::current().block_on(closed.changed()));
            Err(error)
        }
    }
}

/// A member that is alone need not wait for anybody's silence before it calls an election.
async fn lead_when_alone(core: &Core) -> Result<(), RaftError> {
    let state = core.with_raft_state(|state| {
        let membership = state.membership_state.effective().membership().clone();
        (membership, state.server_state)
    });
    let (membership, state) = state.await.map_err(|why| RaftError::stopped(&why))?;
    let voters: Vec<u64> = membership.voter_ids().collect();
    let own = core.metrics().borrow().id;
    if voters == [own] && state != ServerState::Leader {
        core.trigger().elect().await.map_err(|why| RaftError::stopped(&why))?;
    }
    Ok(())
}

fn not_leader(error: CoreError<u64, ClientWriteError<u64, BasicNode>>) -> RaftError {
    match error {
        CoreError::APIError(ClientWriteError::ForwardToLeader(_)) => RaftError::NotLeader,
        error => RaftError::stopped(&error),
    }
}

#[async_trait]
impl Log for Raft {
    async fn propose(&self, proposal: Proposal) -> Result<Version, ProposeError> {
        let mut leadership = self.leadership();
        let leading = leadership.borrow_and_update().clone();
        match &leading {
            Leadership::Leader { .. } => {}
            Leadership::Stopped(why) => return Err(ProposeError::Fatal(why.clone())),
            Leadership::Unknown | Leadership::Follower { .. } => return Err(ProposeError::NoLeader),
        }
        let writing = tokio::time::timeout(PROPOSE_TIMEOUT, self.0.core.client_write(proposal));
        let losing = leadership.wait_for(|now| *now != leading);
        let written = tokio::select! {
            biased;
            written = writing => written.map_err(|_| ProposeError::Unknown)?,
            lost = losing => return Err(match lost.as_deref() {
                Ok(Leadership::Stopped(why)) => ProposeError::Fatal(why.clone()),
                _ => ProposeError::Unknown,
            }),
        };
        match written {
            Ok(response) => match response.data {
                Applied::Version(version) => Ok(version),
                Applied::Outdated => Err(ProposeError::Outdated(skep_store::Outdated)),
                Applied::Nothing => Err(ProposeError::Fatal("the proposal was applied as something else".to_owned())),
            },
            // Also what openraft answers when the next leader makes it forget the entry: another member may still have it.
            Err(CoreError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::Unknown),
            Err(error) => Err(ProposeError::Fatal(self.0.fault.or(&error))),
        }
    }
}
