//! Autolock: what a manager has on its disk is of use to nobody without the unlock key, and the daemon needs it to start.

use std::sync::Arc;
use std::time::Duration;

use skep_ca::UnlockKey;
use skep_engine::{Error, ErrorKind};
use skep_model::{Cluster, UnlockSecret};
use skep_raft::Vault;
use skep_store::Store;
use tracing::{error, info};

use super::node::{LocalNode, unknown};
use super::seat::{Begin, Opened};

/// When a key file that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The key of a swarm that is locked.
pub(super) fn key_of(cluster: &Cluster) -> Option<UnlockKey> {
    let UnlockSecret(text) = cluster.unlock_key.as_ref()?;
    // What is none was not written by a manager, and must not keep anybody out.
    text.parse().inspect_err(|e| error!("the swarm's unlock key: {e}")).ok()
}

/// Keeps this manager's data key wrapped as the swarm says, until it is dropped.
pub(super) async fn follow(store: Store, vault: Vault) {
    let mut events = store.watch();
    let mut wrapped = None;
    loop {
        let wanted = store.view(|tables| tables.cluster().map(|cluster| key_of(cluster)));
        let mut again = false;
        if let Some(wanted) = wanted.filter(|wanted| wrapped.as_ref() != Some(wanted)) {
            match wrap(vault.clone(), wanted.clone()).await {
                Ok(()) => wrapped = Some(wanted),
                Err(e) => {
                    error!("this manager is not locked as the swarm is: {e}");
                    again = true;
                }
            }
        }
        tokio::select! {
            batch = events.next() => if batch.is_none() {
                return;
            },
            () = tokio::time::sleep(AGAIN), if again => {}
        }
    }
}

async fn wrap(vault: Vault, key: Option<UnlockKey>) -> Result<(), String> {
    let wrapping = tokio::task::spawn_blocking(move || vault.rewrap(key.as_ref()));
    wrapping.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

impl LocalNode {
    /// Opens what was locked when the daemon started.
    pub(crate) async fn unlock(self: &Arc<Self>, key: &str) -> Result<(), Error> {
        let mut member = self.try_write()?;
        let Some(member) = member.as_mut() else { return Err(Error::not_in_swarm()) };
        let seat = match (&member.membership.manager, &member.seat) {
            (Some(seat), None) => seat.clone(),
            _ => return Err(Error::new(ErrorKind::FailedPrecondition, "swarm is not locked")),
        };
        let key: UnlockKey = key.trim().parse().map_err(|e: skep_ca::CaError| Error::invalid(e.to_string()))?;
        let begin = Begin::AsBefore(Some(key));
        let opened = Opened::new(&self.flags.data_root, &seat, member.identity.clone(), begin).await;
        let opened = opened.map_err(|e| match e.downcast_ref() {
            Some(skep_raft::RaftError::WrongUnlockKey) => Error::new(ErrorKind::Unauthenticated, e.to_string()),
            _ => unknown(e),
        })?;
        self.take_seat(member, opened.manage(self.tunnels(), self.again.clone()));
        info!("unlocked");
        Ok(())
    }
}
