//! The gate in front of all services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use skep_ca::{JoinToken, NodeKey};
use skep_model::{NodeId, Role};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::identity::{JOIN_TOKEN, NODE_ID, NODE_KEY};
use crate::{Admitted, Peer};

/// Under this key a refusal tells the client which one it is, apart from the words.
pub(crate) const REFUSAL: &str = "skep-refusal";

/// How long a wrong token waits for its answer. Nobody guesses 128 bits; this keeps a confused script from being a load.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(300);

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The join token is missing, malformed, of another swarm, or was rotated away.
    #[error("A valid join token is necessary to join this cluster")]
    Token,
    /// The node is not, or no longer, a member, or it did not say which node it is.
    #[error("this node is not a member of the swarm: it may have been removed; leave the swarm on it and join again")]
    UnknownNode,
    /// The node's key is not the one that it joined with.
    #[error("the node key is not the one that this node joined with; leave the swarm on it and join again")]
    WrongKey,
    /// Only managers may ask this.
    #[error("only a manager may ask this, and this node is a worker")]
    NotManager,
    /// The node that was asked is no manager (yet, or any more).
    #[error("the node that answers here is not a manager of a swarm; use the address of a manager")]
    NotReady,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Token, Self::UnknownNode, Self::WrongKey, Self::NotManager, Self::NotReady];

    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::UnknownNode => "unknown-node",
            Self::WrongKey => "wrong-key",
            Self::NotManager => "not-manager",
            Self::NotReady => "not-ready",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Token | Self::UnknownNode | Self::WrongKey => Code::Unauthenticated,
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

    /// The role of the member `node`, if `key` is its key.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`] or [`Refusal::WrongKey`]. Compare with [`NodeKey::matches`], which takes constant time.
    fn identify(&self, node: &NodeId, key: &NodeKey) -> Result<Role, Refusal>;
}

/// Puts [`Gate`] in front of the services.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<dyn Authenticate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, authenticate: self.0.clone() }
    }
}

/// Lets requests through whose sender is known, and says to the service who it is.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    authenticate: Arc<dyn Authenticate>,
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
        match identify(self.authenticate.as_ref(), &mut request) {
            Ok(()) => self.inner.call(request).boxed(),
            Err(refusal) => refuse(refusal).map(Ok).boxed(),
        }
    }
}

async fn refuse(refusal: Refusal) -> http::Response<Body> {
    if refusal == Refusal::Token {
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
    }
    Status::from(refusal).into_http()
}

/// Finds out who sends `request` and notes it in its extensions. Paths that are not known need a node's identity, as most do:
/// a service that is added later is closed until somebody opens it.
fn identify(authenticate: &dyn Authenticate, request: &mut http::Request<Body>) -> Result<(), Refusal> {
    let addr = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    // Only a connection that is already gone has no address.
    let addr = addr.ok_or(Refusal::NotReady)?;
    // A port that answers by both families shows IPv4 addresses as IPv6 ones.
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    if service == "skep.v1.Membership" {
        let admitted = admit(authenticate, request.headers(), addr)?;
        request.extensions_mut().insert(admitted);
        return Ok(());
    }
    let managers_only = matches!(service, "skep.v1.Raft" | "skep.v1.Api");
    let peer = member(authenticate, request.headers(), addr)?;
    if managers_only && peer.role != Role::Manager {
        return Err(Refusal::NotManager);
    }
    request.extensions_mut().insert(peer);
    Ok(())
}

fn admit(auth: &dyn Authenticate, headers: &http::HeaderMap, addr: SocketAddr) -> Result<Admitted, Refusal> {
    let token: JoinToken = text(headers, JOIN_TOKEN).and_then(|text| text.parse().ok()).ok_or(Refusal::Token)?;
    Ok(Admitted { role: auth.admit(&token)?, addr })
}

fn member(auth: &dyn Authenticate, headers: &http::HeaderMap, addr: SocketAddr) -> Result<Peer, Refusal> {
    let node: NodeId = text(headers, NODE_ID).and_then(|text| text.parse().ok()).ok_or(Refusal::UnknownNode)?;
    let key: NodeKey = text(headers, NODE_KEY).and_then(|text| text.parse().ok()).ok_or(Refusal::WrongKey)?;
    let role = auth.identify(&node, &key)?;
    Ok(Peer { node, role, addr })
}

fn text<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
