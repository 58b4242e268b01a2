//! Members to test with.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use openraft::SnapshotPolicy;
use skep_ca::{JoinToken, NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots};
use skep_model::{
    Availability, ClusterId, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp, Version,
};
use skep_rpc::{Authenticate, NodeIdentity, Refusal, Services};
use skep_store::{Change, Events, Log, Proposal, ProposeError, Store, Tables};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Leadership, Raft, RaftConfig, RaftError};

/// Longer than anything here takes, also on a machine that is busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Takes everybody for a manager who has a certificate.
struct Anybody;

impl Authenticate for Anybody {
    fn admit(&self, _: &JoinToken) -> Result<Role, Refusal> {
        Err(Refusal::Token)
    }

    fn identify(&self, _: &NodeId) -> Result<Role, Refusal> {
        Ok(Role::Manager)
    }
}

/// A manager of the one swarm of these tests.
pub(super) fn identity() -> NodeIdentity {
    static SWARM: LazyLock<(ClusterId, RootCa)> =
        LazyLock::new(|| (ClusterId::random(), RootCa::generate(Timestamp::now()).unwrap()));
    let (cluster, root) = &*SWARM;
    let keys = NodeKeys::generate().unwrap();
    let identity = PeerIdentity { cluster: cluster.clone(), node: NodeId::random(), role: Role::Manager };
    let chain = root.sign_own(&keys, &identity, Timestamp::now()).unwrap();
    let roots = Roots::new(vec![root.certificate().clone()]).unwrap();
    NodeIdentity::new(NodeCredentials::new(keys, &chain, roots).unwrap()).unwrap()
}

pub(super) fn config(dir: &Path, raft_id: u64, addr: SocketAddr) -> RaftConfig {
    RaftConfig { dir: dir.to_owned(), raft_id, addr, identity: identity(), unlock_key: None }
}

/// A member that answers on a port of its own.
pub(super) struct Member {
    pub(super) raft: Raft,
    pub(super) store: Store,
    /// What the store has told since before the member started.
    pub(super) events: Events,
    pub(super) addr: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Member {
    /// On an address of before, or on a new one.
    pub(super) async fn start(dir: &Path, raft_id: u64, addr: Option<SocketAddr>, policy: SnapshotPolicy) -> Self {
        let addr = addr.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let store = Store::default();
        let events = store.watch();
        let config = config(dir, raft_id, addr);
        let identity = config.identity.clone();
        let raft = Raft::start_with(config, store.clone(), policy, 5).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let services = Services::default().raft(raft.service());
        let serving = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            skep_rpc::serve(listener, services, Arc::new(Anybody), identity, stopped).await.unwrap();
        });
        Self { raft, store, events, addr, stop, serving }
    }

    pub(super) async fn leads(&self) -> u64 {
        let mut leadership = self.raft.leadership();
        let leading = leadership.wait_for(Leadership::is_leader);
        match &*tokio::time::timeout(PATIENCE, leading).await.expect("it should lead by now").unwrap() {
            Leadership::Leader { term } => *term,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn knows(&self, node: &NodeId) {
        eventually(&self.store, |tables| tables.get::<Node>(node).is_some()).await;
    }

    /// Off, as a machine is that loses its power: the port is closed and nobody is told.
    pub(super) async fn stop(self) {
        self.serving.abort();
        drop(self.serving.await);
        drop(self.stop);
        self.raft.shutdown().await;
    }
}

/// Waits for the store to become so.
pub(super) async fn eventually(store: &Store, so: impl Fn(&Tables) -> bool) {
    let mut events = store.watch();
    let waiting = async {
        while !store.view(&so) {
            drop(events.next().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the store should be so by now");
}

pub(super) fn node() -> Node {
    Node {
        id: NodeId::random(),
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

pub(super) fn proposal(node: &Node) -> Proposal {
    Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes: vec![Change::from(node.clone())] }
}

/// Proposes a node of its own.
pub(super) async fn propose(raft: &Raft) -> Result<(NodeId, Version), ProposeError> {
    let node = node();
    let version = raft.propose(proposal(&node)).await?;
    Ok((node.id, version))
}

/// Starts, as soon as a member that was dropped has let go of the files.
pub(super) async fn start_when_free(config: RaftConfig, store: Store) -> Result<Raft, RaftError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Raft::start(config.clone(), store.clone()).await {
            Err(RaftError::LogInUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            started => return started,
        }
    }
}
