//! The running part of a manager.

use std::net::SocketAddr;
use std::sync::Arc;

use skep_ca::{JoinToken, RootCertificate};
use skep_model::{Node, NodeId, Role};
use skep_rpc::{Authenticate, Refusal};
use skep_store::{Store, Writer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dispatcher::{DispatcherService, Hub, MembershipService, Presence};
use crate::group::{self, Group};
use crate::{Control, gossip_keys, leader, root_rotation};

/// What a manager needs.
pub struct ManagerConfig {
    /// The node that it is on.
    pub node: NodeId,
    /// Where its manager port answers.
    pub addr: SocketAddr,
    /// Reads and changes the swarm.
    pub writer: Arc<Writer>,
    /// Whether this manager leads.
    pub leading: watch::Receiver<bool>,
    /// Where the manager answers that leads, as far as this one knows.
    pub leader: watch::Receiver<Option<SocketAddr>>,
    /// The managers that agree on everything.
    pub group: Arc<dyn Group>,
    /// Whether nodes are there that say nothing.
    pub presence: Arc<dyn Presence>,
}

/// A manager at work.
pub struct Manager {
    control: Control,
    hub: Arc<Hub>,
    tasks: JoinSet<()>,
}

impl Manager {
    /// Begins to manage: decides whenever `leading` says so. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(config: ManagerConfig) -> Self {
        let ManagerConfig { node, addr, writer, leading, leader, group, presence } = config;
        let hub = Arc::new(Hub::new(writer.clone(), leading.clone(), leader, addr, (group.clone(), presence)));
        tracing::debug!(%node, %addr, "the manager starts");
        let mut tasks = JoinSet::new();
        tasks.spawn(leader::run(writer.clone(), leading.clone()));
        tasks.spawn(group::run(writer.clone(), group.clone(), leading.clone()));
        tasks.spawn(gossip_keys::run(writer.clone(), leading.clone()));
        tasks.spawn(root_rotation::run(writer.clone(), leading));
        tasks.spawn(hub.clone().write_statuses());
        tasks.spawn(hub.clone().watch_nodes());
        Self { control: Control::new(writer, hub.clone(), group), hub, tasks }
    }

    /// The service that lets machines join.
    #[must_use]
    pub fn membership(&self) -> MembershipService {
        MembershipService::new(self.hub.clone())
    }

    /// The service that nodes are in session with.
    #[must_use]
    pub fn dispatcher(&self) -> DispatcherService {
        DispatcherService::new(self.hub.clone())
    }

    /// Who is let in.
    #[must_use]
    pub fn authenticate(&self) -> Arc<dyn Authenticate> {
        Arc::new(Gatekeeper(self.control.store().clone()))
    }

    /// The operations that people ask for.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends the sessions and stops deciding. What has been acknowledged is kept.
    pub async fn shutdown(mut self) {
        self.hub.close();
        self.tasks.shutdown().await;
    }
}

/// Knows the members from the store.
struct Gatekeeper(Store);

impl Authenticate for Gatekeeper {
    fn admit(&self, token: &JoinToken) -> Result<Role, Refusal> {
        self.0.view(|tables| {
            let cluster = tables.cluster().ok_or(Refusal::NotReady)?;
            // A manager that has not heard yet that the root was replaced tells nobody that the new token is wrong.
            let (mut worker, mut manager) = (false, false);
            for root in &cluster.authority.trusted {
                let root = RootCertificate::from_pem(root).map_err(|_| Refusal::NotReady)?;
                // Both are always compared: the answer takes the same time whichever it is.
                worker |= token.admits(&root, &cluster.join.worker);
                manager |= token.admits(&root, &cluster.join.manager);
            }
            match (worker, manager) {
                (true, _) => Ok(Role::Worker),
                (_, true) => Ok(Role::Manager),
                _ => Err(Refusal::Token),
            }
        })
    }

    fn identify(&self, node: &NodeId) -> Result<Role, Refusal> {
        self.0.view(|tables| {
            if tables.cluster().is_none() {
                // One that is new knows nobody yet, and those that are to tell it are managers by their certificates.
                return Ok(Role::Manager);
            }
            let node = tables.get::<Node>(node).ok_or(Refusal::UnknownNode)?;
            // One that is demoted is needed until the others have agreed to do without it.
            Ok(if node.manager.is_some() { Role::Manager } else { node.spec.role })
        })
    }
}
