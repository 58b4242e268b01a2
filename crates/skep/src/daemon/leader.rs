//! The way from this manager to the one that leads.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use skep_engine::Error;
use skep_engine::backend::leader::{Leader, Tunnel};
use skep_raft::{Leadership, Raft};
use skep_rpc::{ApiClient, NodeIdentity, RpcError, TunnelIo};
use skep_store::Store;
use tokio::sync::watch;

/// For how long a leader is looked for: longer than an election takes, and no longer than somebody likes to wait for being told that there is
/// none.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a leader that is not in reach is tried again, should nobody say before that there is another.
const AGAIN: Duration = Duration::from_millis(100);

/// Finds the leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderFinder {
    raft: Raft,
    store: Store,
    identity: NodeIdentity,
    known: Arc<Mutex<Option<(SocketAddr, ApiClient)>>>,
}

impl LeaderFinder {
    pub(crate) fn new(raft: Raft, store: Store, identity: NodeIdentity) -> Self {
        Self { raft, store, identity, known: Arc::default() }
    }

    /// Whether it is this manager, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.raft.leadership().borrow().is_leader()
    }

    /// Where the leader is asked.
    pub(crate) async fn find(&self) -> Result<Leader, Error> {
        match tokio::time::timeout(PATIENCE, self.look()).await {
            Ok(found) => Ok(found),
            Err(_) if self.store.view(|tables| tables.cluster().is_none()) => Err(Error::manager_not_ready()),
            Err(_) => Err(Error::no_leader()),
        }
    }

    async fn look(&self) -> Leader {
        let mut leadership = self.raft.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            match now {
                Leadership::Leader { .. } if self.raft.confirm().await.is_ok() => return Leader::Here,
                Leadership::Follower { leader, addr } => {
                    let lost = lost(leadership.clone(), leader).boxed();
                    // Who is cut off does not answer, and another one may lead before that is noticed.
                    if let Either::Left((Ok(connection), lost)) = select(Box::pin(self.open(addr)), lost).await {
                        return Leader::Elsewhere(Tunnel { connection: Box::new(connection), lost });
                    }
                }
                _ => {}
            }
            tokio::select! {
                Ok(()) = leadership.changed() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn open(&self, addr: SocketAddr) -> Result<TunnelIo, RpcError> {
        let mut client = self.client(addr)?;
        skep_rpc::open_tunnel(&mut client, &addr.to_string()).await
    }

    /// One connection serves all requests, for as long as the same manager leads.
    fn client(&self, addr: SocketAddr) -> Result<ApiClient, RpcError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, client)) if *at == addr => Ok(client.clone()),
            _ => {
                let client = skep_rpc::api_client(&addr.to_string(), &self.identity)?;
                *known = Some((addr, client.clone()));
                Ok(client)
            }
        }
    }
}

/// Resolves when `leader` is not the leader any more, as far as this manager knows.
async fn lost(mut leadership: watch::Receiver<Leadership>, leader: u64) {
    let other = |now: &Leadership| !matches!(now, Leadership::Follower { leader: is, .. } if *is == leader);
    // The guard must not be held over an await; an error says that this manager has stopped.
    drop(leadership.wait_for(other).await);
}
