//! What a manager has besides what every node has: a member of the Raft group, the leader's loops, and the manager port.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use skep_manager::{Control, ControlError, InitCluster, Manager, ManagerConfig};
use skep_model::ClusterId;
use skep_raft::{Raft, RaftConfig};
use skep_rpc::{NodeIdentity, Services};
use skep_store::{Store, Writer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::node_file::ManagerSeat;

/// A manager's parts, running.
pub(crate) struct Seat {
    raft: Raft,
    manager: Manager,
    store: Store,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// A member of the Raft group that is started and does not manage yet: the moment in which a new swarm is written.
pub(crate) struct Opened {
    raft: Raft,
    store: Store,
    writer: Arc<Writer>,
    seat: ManagerSeat,
    listener: TcpListener,
}

impl Opened {
    /// Takes the manager port and starts on what is on the disk.
    pub(crate) async fn new(data_root: &Path, seat: &ManagerSeat, identity: NodeIdentity) -> Result<Self> {
        let listener = skep_rpc::listen(seat.listen).with_context(|| {
            format!("cannot listen on {}: is another manager running? Give --listen-addr another port", seat.listen)
        })?;
        let store = Store::default();
        let config = RaftConfig {
            dir: data_root.join("raft"),
            raft_id: seat.raft_id,
            addr: seat.advertise,
            identity,
            unlock_key: None,
        };
        let raft = Raft::start(config, store.clone()).await?;
        let writer = Arc::new(Writer::new(store.clone(), Arc::new(raft.clone())));
        Ok(Self { raft, store, writer, seat: seat.clone(), listener })
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

    /// Begins to manage.
    pub(crate) fn manage(self, own: skep_model::NodeId) -> Seat {
        let leading = leading(&self.raft);
        let manager =
            Manager::start(ManagerConfig { node: own, addr: self.seat.advertise, writer: self.writer, leading });
        let services = Services::default()
            .membership(manager.membership())
            .dispatcher(manager.dispatcher())
            .raft(self.raft.service());
        let (stop, mut stopped) = watch::channel(false);
        let authenticate = manager.authenticate();
        let listener = self.listener;
        let server = tokio::spawn(async move {
            // An error means that the sender is gone, which is the same.
            let stopping = async move { drop(stopped.wait_for(|stop| *stop).await) };
            if let Err(e) = skep_rpc::serve(listener, services, authenticate, stopping).await {
                error!("{e}");
            }
        });
        info!(addr = %self.seat.advertise, "managing");
        Seat { raft: self.raft, manager, store: self.store, stop, server }
    }
}

/// Whether this manager leads, as a plain yes or no.
fn leading(raft: &Raft) -> watch::Receiver<bool> {
    let mut leadership = raft.leadership();
    let (tell, leading) = watch::channel(leadership.borrow_and_update().is_leader());
    tokio::spawn(async move {
        while leadership.changed().await.is_ok() && !tell.is_closed() {
            tell.send_replace(leadership.borrow_and_update().is_leader());
        }
    });
    leading
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
