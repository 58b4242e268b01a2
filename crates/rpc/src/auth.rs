//! The gate in front of all services.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use skep_ca::JoinToken;
use skep_model::{ClusterId, NodeId, Role};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::connection::Caller;
use crate::identity::JOIN_TOKEN;
use crate::rules::{Rule, rule};
use crate::{Admitted, Peer};

/// Under this key a refusal tells the client which one it is, apart from the words.
pub(crate) const REFUSAL: &str = "skep-refusal";

/// How long a wrong token waits for its answer. Nobody guesses 128 bits; this keeps a confused script from being a load.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(300);
/// How many wrong tokens may wait at a time; further ones are refused at once, so that waiting costs the server no more than this. A good token is
/// never held up by wrong ones.
const WRONG_TOKENS: usize = 64;

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The join token is missing, malformed, of another swarm, or was rotated away.
    #[error("A valid join token is necessary to join this cluster")]
    Token,
    /// So many wrong tokens are tried at present that this one is not even told slowly.
    #[error(
        "too many wrong join tokens are tried on this manager at present: check the token and try again in a moment"
    )]
    Busy,
    /// The caller showed no certificate.
    #[error("only members of the swarm may ask this, and the caller showed no certificate")]
    NoCertificate,
    /// The caller's certificate is of another swarm.
    #[error("this node's certificate is of another swarm; leave the swarm on it and join again")]
    OtherCluster,
    /// The node is not, or no longer, a member.
    #[error("this node is not a member of the swarm: it may have been removed; leave the swarm on it and join again")]
    UnknownNode,
    /// Only managers may ask this.
    #[error("only a manager may ask this, and this node is a worker")]
    NotManager,
    /// The node that was asked is no manager (yet, or any more).
    #[error("the node that answers here is not a manager of a swarm; use the address of a manager")]
    NotReady,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Token,
        Self::Busy,
        Self::NoCertificate,
        Self::OtherCluster,
        Self::UnknownNode,
        Self::NotManager,
        Self::NotReady,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::UnknownNode => "unknown-node",
            Self::Busy => "busy",
            Self::NoCertificate => "no-certificate",
            Self::OtherCluster => "other-cluster",
            Self::NotManager => "not-manager",
            Self::NotReady => "not-ready",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Token | Self::NoCertificate | Self::OtherCluster | Self::UnknownNode => Code::Unauthenticated,
            Self::Busy => Code::ResourceExhausted,
            Self::NotManager => Code::PermissionDenied,
            Self::NotReady => Code::FailedPrecondition,
        }
    }

    /// The refusal that a status carries, if it is one.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        let word = status.metadata().get(REFUSAL)?.to_str().ok()?;
        Self::ALL.into_iter().find(|refusal| refusal.word() == word)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::new(refusal.code(), refusal.to_string());
        status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(refusal.word()));
        status
    }
}

/// Says who is a member. The manager implements it on its store. Called for every request: it must be quick and not block.
pub trait Authenticate: Send + Sync + 'static {
    /// What a join token admits to.
    ///
    /// # Errors
    /// [`Refusal::Token`] when to nothing. Compare with [`JoinToken::admits`], which takes constant time.
    fn admit(&self, token: &JoinToken) -> Result<Role, Refusal>;

    /// The role of the member `node`, as the managers know it now. That the caller is this node is already proved by its certificate.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`] when it is no member (any more).
    fn identify(&self, node: &NodeId) -> Result<Role, Refusal>;
}

/// Puts [`Gate`] in front of the services.
#[derive(Clone)]
pub(crate) struct GateLayer(Arc<Keeper>);

impl GateLayer {
    pub(crate) fn new(authenticate: Arc<dyn Authenticate>, cluster: ClusterId) -> Self {
        Self(Arc::new(Keeper { authenticate, cluster, wrong_tokens: Semaphore::new(WRONG_TOKENS) }))
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, keeper: self.0.clone() }
    }
}

/// Lets requests through whose sender may ask them, and says to the service who it is.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    keeper: Arc<Keeper>,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Send,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(rule) = rule(request.uri().path()) else {
            let unknown = Status::unimplemented("this manager has no such call: do both run the same version of skep?");
            return std::future::ready(Ok(unknown.into_http())).boxed();
        };
        match self.keeper.identify(rule, &mut request) {
            Ok(()) => self.inner.call(request).boxed(),
            Err(refusal) => self.keeper.clone().refuse(refusal).map(Ok).boxed(),
        }
    }
}

/// Knows who may ask what.
struct Keeper {
    authenticate: Arc<dyn Authenticate>,
    cluster: ClusterId,
    wrong_tokens: Semaphore,
}

impl Keeper {
    /// Finds out who sends `request`, whether he may, and notes it in its extensions.
    fn identify(&self, rule: Rule, request: &mut http::Request<Body>) -> Result<(), Refusal> {
        // Every connection says it.
        let caller = request.extensions().get::<Caller>().cloned().ok_or(Refusal::NotReady)?;
        if rule == Rule::JoinToken {
            let admitted = self.admit(request.headers(), &caller)?;
            request.extensions_mut().insert(admitted);
            return Ok(());
        }
        let peer = self.member(caller)?;
        if rule == Rule::Manager && peer.role != Role::Manager {
            return Err(Refusal::NotManager);
        }
        request.extensions_mut().insert(peer);
        Ok(())
    }

    fn admit(&self, headers: &http::HeaderMap, caller: &Caller) -> Result<Admitted, Refusal> {
        let token = headers.get(JOIN_TOKEN).and_then(|text| text.to_str().ok());
        let token: JoinToken = token.and_then(|text| text.parse().ok()).ok_or(Refusal::Token)?;
        Ok(Admitted { role: self.authenticate.admit(&token)?, addr: caller.addr })
    }

    fn member(&self, Caller { addr, identity }: Caller) -> Result<Peer, Refusal> {
        let identity = identity.ok_or(Refusal::NoCertificate)?;
        if identity.cluster != self.cluster {
            return Err(Refusal::OtherCluster);
        }
        let known = self.authenticate.identify(&identity.node)?;
        Ok(Peer { node: identity.node, role: smaller(identity.role, known), addr })
    }

    async fn refuse(self: Arc<Self>, refusal: Refusal) -> http::Response<Body> {
        if refusal != Refusal::Token {
            return Status::from(refusal).into_http();
        }
        let Ok(_waiting) = self.wrong_tokens.try_acquire() else { return Status::from(Refusal::Busy).into_http() };
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        Status::from(refusal).into_http()
    }
}

/// Who was promoted needs the new certificate first; who was demoted keeps the old one for a while and may do no more with it.
fn smaller(certificate: Role, known: Role) -> Role {
    match (certificate, known) {
        (Role::Manager, Role::Manager) => Role::Manager,
        _ => Role::Worker,
    }
}

#[cfg(test)]
mod tests {
    use skep_ca::PeerIdentity;

    use super::*;

    /// Knows every node as a manager.
    struct Everybody;

    impl Authenticate for Everybody {
        fn admit(&self, _: &JoinToken) -> Result<Role, Refusal> {
            Err(Refusal::Token)
        }

        fn identify(&self, _: &NodeId) -> Result<Role, Refusal> {
            Ok(Role::Manager)
        }
    }

    #[test]
    fn a_certificate_of_another_swarm_is_refused_whoever_signed_it() {
        let cluster = ClusterId::random();
        let layer = GateLayer::new(Arc::new(Everybody), cluster.clone());
        let call = |cluster: ClusterId| {
            let identity = PeerIdentity { cluster, node: NodeId::random(), role: Role::Manager };
            let addr = "192.0.2.1:1".parse().unwrap();
            let mut request = http::Request::new(Body::empty());
            request.extensions_mut().insert(Caller { addr, identity: Some(identity) });
            layer.0.identify(Rule::Manager, &mut request)
        };
        assert_eq!(call(cluster), Ok(()));
        assert_eq!(call(ClusterId::random()), Err(Refusal::OtherCluster));
    }

    #[test]
    fn what_did_not_come_through_the_door_is_refused() {
        let layer = GateLayer::new(Arc::new(Everybody), ClusterId::random());
        let mut request = http::Request::new(Body::empty());
        for rule in [Rule::JoinToken, Rule::Member, Rule::Manager] {
            assert_eq!(layer.0.identify(rule, &mut request), Err(Refusal::NotReady));
        }
    }
}
