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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_ca::{PeerIdentity, RootCa, SigningRequest};
    use skep_model::{Availability, ClusterId, Meta, NodeId, NodeSpec, NodeState, NodeStatus};
    use skep_rpc::proto::membership_server::Membership;
    use skep_rpc::proto::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};
    use skep_rpc::{Authenticate, Refusal, Services};
    use tokio_util::task::AbortOnDropHandle;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A manager that gives whoever asks a certificate for the role that it is told.
    #[derive(Clone)]
    struct Managers {
        root: RootCa,
        cluster: ClusterId,
        gives: watch::Receiver<Role>,
    }

    impl Managers {
        fn credentials(&self, node: &NodeId, role: Role, issued: Timestamp) -> NodeCredentials {
            let keys = NodeKeys::generate().unwrap();
            let identity = PeerIdentity { cluster: self.cluster.clone(), node: node.clone(), role };
            let chain = self.root.sign_own(&keys, &identity, issued).unwrap();
            NodeCredentials::new(keys, &chain, Roots::new(vec![self.root.certificate().clone()]).unwrap()).unwrap()
        }
    }

    impl Authenticate for Managers {
        fn admit(&self, _: &skep_ca::JoinToken) -> Result<Role, Refusal> {
            Err(Refusal::Token)
        }

        fn identify(&self, _: &NodeId) -> Result<Role, Refusal> {
            Ok(Role::Worker)
        }
    }

    #[tonic::async_trait]
    impl Membership for Managers {
        async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
            Err(Status::unavailable("nobody joins here"))
        }

        async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
            let peer = skep_rpc::peer(&request)?;
            let csr = SigningRequest::from_der(&request.get_ref().csr).unwrap();
            let role = *self.gives.borrow();
            let identity = PeerIdentity { cluster: self.cluster.clone(), node: peer.node, role };
            let certificate = self.root.sign(&csr, &identity, Timestamp::now()).unwrap();
            Ok(Response::new(RenewResponse { certificate, roots: self.root.certificate().to_pem() }))
        }
    }

    fn told(node: &NodeId, role: Role) -> Option<Node> {
        let spec = NodeSpec { name: None, labels: [].into(), role, availability: Availability::Active };
        let state = NodeState::Ready;
        let status = NodeStatus { state, message: String::new(), addr: None, port_conflicts: Vec::new() };
        Some(Node {
            id: node.clone(),
            meta: Meta::new(Timestamp::UNIX_EPOCH),
            spec,
            description: None,
            status,
            manager: None,
            overlay_addr: None,
            credential: String::new(),
        })
    }

    /// A node whose renewal runs.
    struct Rig {
        identity: NodeIdentity,
        certificates: Certificates,
        gives: watch::Sender<Role>,
        says: watch::Sender<Option<Node>>,
        _managers: watch::Sender<Vec<String>>,
        _running: [AbortOnDropHandle<()>; 2],
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn start(issued_days_ago: i64) -> Self {
            let (gives, given) = watch::channel(Role::Worker);
            let root = RootCa::generate(Timestamp::now()).unwrap();
            let managers = Managers { root, cluster: ClusterId::random(), gives: given };
            let manager = managers.credentials(&NodeId::random(), Role::Manager, Timestamp::now());
            let listener = skep_rpc::listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let services = Services::default().membership(managers.clone());
            let (authenticate, server) = (Arc::new(managers.clone()), NodeIdentity::new(manager).unwrap());
            let serving = tokio::spawn(async move {
                skep_rpc::serve(listener, services, authenticate, server, std::future::pending()).await.unwrap();
            });
            let issued = Timestamp::now().as_second() - issued_days_ago * 86_400;
            let issued = Timestamp::from_second(issued).unwrap();
            let node = NodeId::random();
            let identity = NodeIdentity::new(managers.credentials(&node, Role::Worker, issued)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let certificates = Certificates::new(dir.path());
            certificates.store(&identity.credentials()).unwrap();
            let (says, told) = watch::channel(told(&node, Role::Worker));
            // The first one is away.
            let (keep, managers) = watch::channel(vec!["127.0.0.1:1".to_owned(), addr]);
            let renewal = Renewal { identity: identity.clone(), certificates: certificates.clone(), told, managers };
            let renewing = tokio::spawn(renewal.run());
            let _running = [serving, renewing].map(AbortOnDropHandle::new);
            Self { identity, certificates, gives, says, _managers: keep, _running, _dir: dir }
        }

        async fn renewed(&self, before: &NodeCredentials) -> NodeCredentials {
            let renewed = self.identity.changed_from(before);
            tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("it should renew")
        }
    }

    #[tokio::test]
    async fn an_aging_certificate_is_renewed_with_a_new_key_and_kept_on_the_disk() {
        let issued = Timestamp::now().as_second() - 80 * 86_400;
        let rig = Rig::start(80);
        let old = rig.certificates.load().unwrap();
        let new = rig.renewed(&old).await;
        assert!((old.not_after().as_second() - issued - 90 * 86_400).abs() < 60);
        assert!(new.not_after().as_second() - Timestamp::now().as_second() > 89 * 86_400);
        assert_ne!(new.keys().digest(), old.keys().digest());
        assert_eq!(rig.certificates.load().unwrap().keys().digest(), new.keys().digest());
    }

    #[tokio::test]
    async fn another_role_is_another_certificate_at_once_and_a_word_that_lags_is_not_asked_about_again() {
        let rig = Rig::start(0);
        let first = rig.identity.credentials();
        rig.gives.send_replace(Role::Manager);
        let own = rig.identity.node().clone();
        rig.says.send_replace(told(&own, Role::Manager));
        let second = rig.renewed(&first).await;
        assert_eq!(rig.identity.role(), Role::Manager);
        // Demoted: the manager that is asked knows nothing of it yet, and gives what it has.
        rig.says.send_replace(told(&own, Role::Worker));
        let third = rig.renewed(&second).await;
        assert_eq!(rig.identity.role(), Role::Manager);
        // The same word again is no news, and is not asked about again.
        rig.says.send_replace(told(&own, Role::Worker));
        let again = tokio::time::timeout(Duration::from_millis(300), rig.identity.changed_from(&third)).await;
        assert!(again.is_err(), "it asked again");
    }
}
