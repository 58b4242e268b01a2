//! Keeps the node's certificate valid, true to its role, and under the root that the swarm has; and the roots that it trusts.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use skep_ca::{NodeCredentials, NodeKeys, Roots, renew_at};
use skep_model::{Node, Role, Timestamp, Trust};
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
    /// What managers say of certificates.
    pub(crate) trust: watch::Receiver<Option<Trust>>,
    pub(crate) managers: watch::Receiver<Vec<String>>,
}

/// What the managers say of this node's certificate, all at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Word {
    role: Option<Role>,
    trust: Option<Trust>,
}

impl Word {
    /// Whether another certificate than this one is wanted.
    fn asks_for_another(&self, held: &NodeCredentials) -> bool {
        let issuer = self.trust.as_ref().and_then(|trust| trust.issuer.as_ref());
        self.role.is_some_and(|role| role != held.identity().role)
            || issuer.is_some_and(|issuer| *issuer != held.issuer().to_pem())
    }

    /// The roots to trust, where they are others than these.
    fn other_roots(&self, held: &Roots) -> Result<Option<Roots>> {
        let Some(trust) = &self.trust else { return Ok(None) };
        let roots = Roots::from_pem(&trust.roots).context("the root certificates that the manager names")?;
        Ok((roots != *held).then_some(roots))
    }
}

/// Why something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The managers have said something new.
    Said,
    /// The certificate has lived for long.
    Aged,
}

impl Renewal {
    /// Renews whenever it is time, or the managers want the node to have another certificate, and trusts what they say that it should trust, for as
    /// long as the node is a member. Ends by being dropped.
    pub(crate) async fn run(mut self) {
        let mut answered = Word::default();
        let mut pause = PAUSES.0;
        loop {
            let (word, due) = self.due(&answered).await;
            match self.follow(&word, due).await {
                Ok(()) => {
                    answered = word;
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

    /// Returns once there is something to do, with what the managers say. A word of theirs that was `answered` already does not count again: what they
    /// say may lag behind the certificate that they have given.
    async fn due(&mut self, answered: &Word) -> (Word, Due) {
        let credentials = self.identity.credentials();
        let due = renew_at(credentials.issued(), credentials.not_after(), rand::random());
        loop {
            let role = self.told.borrow_and_update().as_ref().and_then(role::wanted);
            let word = Word { role, trust: self.trust.borrow_and_update().clone() };
            if word != *answered && word != Word::default() {
                return (word, Due::Said);
            }
            let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
            if left.is_zero() {
                return (word, Due::Aged);
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                changed = self.told.changed() => if changed.is_err() {
                    // The agent has ended, and this task will.
                    std::future::pending::<()>().await;
                },
                changed = self.trust.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Trusts first whom it should trust, for it may have to speak with them to get the certificate that it should have.
    async fn follow(&self, word: &Word, due: Due) -> Result<()> {
        let held = self.identity.credentials();
        let renews = due == Due::Aged || word.asks_for_another(&held);
        if let Some(roots) = word.other_roots(held.roots())? {
            match held.trusting(roots) {
                Ok(credentials) => {
                    self.use_from_now_on(&credentials)?;
                    info!(roots = credentials.roots().all().len(), "this node trusts other root certificates");
                }
                // The certificate that it is given will be of one of them.
                Err(_) if renews => {}
                Err(e) => return Err(e.into()),
            }
        }
        if renews { self.renew().await } else { Ok(()) }
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
        self.use_from_now_on(&credentials)?;
        info!(role = ?credentials.identity().role, until = %credentials.not_after(), "this node has a new certificate");
        Ok(())
    }

    /// The disk first: a certificate that is in use is there after a restart too.
    fn use_from_now_on(&self, credentials: &NodeCredentials) -> Result<()> {
        self.certificates.store(credentials)?;
        Ok(self.identity.replace(credentials.clone())?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_ca::{PeerIdentity, RootCa, SigningRequest};
    use skep_model::{
        Authority, Availability, ClusterId, Meta, NodeId, NodeSpec, NodeState, NodeStatus, RotationStage,
    };
    use skep_rpc::proto::membership_server::Membership;
    use skep_rpc::proto::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};
    use skep_rpc::{Authenticate, Refusal, Services};
    use tokio_util::task::AbortOnDropHandle;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A manager that gives whoever asks a certificate for the role that it is told, under the root that it is told.
    #[derive(Clone)]
    struct Managers {
        root: RootCa,
        cluster: ClusterId,
        gives: watch::Receiver<Role>,
        authority: watch::Receiver<Authority>,
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
            let authority = self.authority.borrow().clone();
            let certificate = RootCa::of(&authority).unwrap().sign(&csr, &identity, Timestamp::now()).unwrap();
            Ok(Response::new(RenewResponse { certificate, roots: authority.trusted.concat() }))
        }
    }

    fn told(node: &NodeId, role: Role) -> Option<Node> {
        let spec = NodeSpec { name: None, labels: [].into(), role, availability: Availability::Active };
        let state = NodeState::Ready;
        let status = NodeStatus {
            state,
            message: String::new(),
            addr: None,
            port_conflicts: Vec::new(),
            machine_answers: false,
        };
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
        authority: watch::Sender<Authority>,
        trust: watch::Sender<Option<Trust>>,
        _managers: watch::Sender<Vec<String>>,
        _running: [AbortOnDropHandle<()>; 2],
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn start(issued_days_ago: i64) -> Self {
            let (gives, given) = watch::channel(Role::Worker);
            let root = RootCa::generate(Timestamp::now()).unwrap();
            let (authority, issuing) = watch::channel(root.authority());
            let managers = Managers { root, cluster: ClusterId::random(), gives: given, authority: issuing };
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
            let (trust, trusted) = watch::channel(None);
            let renewal = Renewal {
                identity: identity.clone(),
                certificates: certificates.clone(),
                told,
                trust: trusted,
                managers,
            };
            let renewing = tokio::spawn(renewal.run());
            let _running = [serving, renewing].map(AbortOnDropHandle::new);
            Self { identity, certificates, gives, says, authority, trust, _managers: keep, _running, _dir: dir }
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

    #[tokio::test]
    async fn roots_are_trusted_as_soon_as_they_are_named_and_the_certificate_follows_when_it_should() {
        let rig = Rig::start(0);
        let first = rig.identity.credentials();
        let new = RootCa::generate(Timestamp::now()).unwrap();
        let tell = |authority: &Authority| {
            rig.authority.send_replace(authority.clone());
            rig.trust.send_replace(Some(authority.trust()));
        };
        let mut authority = new.succeed(&rig.authority.borrow().clone(), Timestamp::now()).unwrap();
        tell(&authority);
        let both = rig.renewed(&first).await;
        assert_eq!((both.roots().all().len(), both.issuer()), (2, first.issuer()));
        assert_eq!(both.keys().digest(), first.keys().digest(), "it is the same certificate");
        authority.rotation.as_mut().unwrap().stage = RotationStage::Issuing;
        tell(&authority);
        let under_new = rig.renewed(&both).await;
        assert_eq!((under_new.roots().all().len(), under_new.issuer()), (2, new.certificate()));
        // The old root goes, and with it what it has said of the new one.
        tell(&new.authority());
        let only = rig.renewed(&under_new).await;
        assert_eq!(only.roots().all(), [new.certificate().clone()]);
        assert_eq!(only.keys().digest(), under_new.keys().digest());
        assert_eq!(rig.certificates.load().unwrap().chain_pem(), only.chain_pem());
    }
}
