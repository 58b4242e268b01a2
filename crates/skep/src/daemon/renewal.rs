//! Keeps the node's certificate valid, and true to its role.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use skep_ca::{NodeCredentials, NodeKeys, Roots, renew_at};
use skep_model::{Node, Role, Timestamp};
use skep_rpc::{MembershipClient, NodeIdentity};
use tokio::sync::watch;
use tracing::{info, warn};

use super::certificates::Certificates;
use super::role;

/// Pauses after a renewal that failed: from the first to the last, each twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The clock is looked at again this often: it may be set, and timers stand still while a machine sleeps.
const LOOK: Duration = Duration::from_secs(3600);

/// What it takes to renew.
pub(crate) struct Renewal {
    pub(crate) identity: NodeIdentity,
    pub(crate) certificates: Certificates,
    /// What managers say of this node: also its role.
    pub(crate) told: watch::Receiver<Option<Node>>,
    pub(crate) managers: watch::Receiver<Vec<String>>,
}

impl Renewal {
    /// Renews whenever it is time, or the managers have given the node another role, for as long as the node is a member. Ends by being dropped.
    pub(crate) async fn run(mut self) {
        let mut answered = None;
        let mut pause = PAUSES.0;
        loop {
            let said = self.due(answered).await;
            match self.renew().await {
                Ok(()) => {
                    answered = said;
                    pause = PAUSES.0;
                }
                Err(e) => {
                    warn!("cannot renew this node's certificate: {e:#}; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Returns once there is something to renew, with the role that the managers say that the node has. A word of theirs that was `answered` already
    /// does not count again: what they say may lag behind the certificate that they have given.
    async fn due(&mut self, answered: Option<Role>) -> Option<Role> {
        let credentials = self.identity.credentials();
        let held = credentials.identity().role;
        let due = renew_at(credentials.not_before(), credentials.not_after(), rand::random());
        loop {
            let said = self.told.borrow_and_update().as_ref().and_then(role::wanted);
            if said.is_some_and(|said| said != held) && said != answered {
                return said;
            }
            let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
            if left.is_zero() {
                return said;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                changed = self.told.changed() => if changed.is_err() {
                    // The agent has ended, and this task will.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Asks one manager after the other, and takes over what the first one gives.
    async fn renew(&self) -> Result<()> {
        let managers = self.managers.borrow().clone();
        let keys = NodeKeys::generate()?;
        let mut last = anyhow::anyhow!("no manager is known");
        for addr in managers {
            match MembershipClient::renew(&addr, &self.identity, keys.request()?).await {
                Ok(given) => return self.take(keys, &given.certificate, &given.roots),
                Err(e) => last = e.into(),
            }
        }
        Err(last)
    }

    fn take(&self, keys: NodeKeys, certificate: &str, roots: &str) -> Result<()> {
        let credentials =
            NodeCredentials::new(keys, certificate, Roots::from_pem(roots)?).context("what the manager gave")?;
        let given = credentials.identity();
        if given.node != *self.identity.node() || given.cluster != *self.identity.cluster() {
            bail!("the manager gave a certificate for another node ({})", given.node);
        }
        // The disk first: a certificate that is in use is there after a restart too.
        self.certificates.store(&credentials)?;
        self.identity.replace(credentials.clone())?;
        info!(role = ?credentials.identity().role, until = %credentials.not_after(), "this node has a new certificate");
        Ok(())
    }
}
