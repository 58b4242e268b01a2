//! Who calls: what a node proves itself with, and what a service learns of its callers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use skep_ca::{CaError, JoinToken, NodeCredentials};
use skep_model::{ClusterId, NodeId, Role};
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::tls;

pub(crate) const JOIN_TOKEN: &str = "skep-join-token";

/// What a member proves itself with, wherever it calls or answers. Clones are the same identity, and the certificate in it can be
/// replaced at any time: connections that are made from then on use the new one, those that stand go on.
#[derive(Clone)]
pub struct NodeIdentity(Arc<Shared>);

struct Shared {
    cluster: ClusterId,
    node: NodeId,
    current: watch::Sender<Arc<Current>>,
}

/// A certificate, and what follows from it.
pub(crate) struct Current {
    credentials: NodeCredentials,
    pub(crate) server: Arc<ServerConfig>,
}

impl Current {
    fn new(credentials: NodeCredentials) -> Result<Arc<Self>, CaError> {
        let server = Arc::new(tls::server(&credentials)?);
        Ok(Arc::new(Self { credentials, server }))
    }

    pub(crate) fn credentials(&self) -> &NodeCredentials {
        &self.credentials
    }
}

impl NodeIdentity {
    /// The identity that `credentials` give.
    ///
    /// # Errors
    /// When the TLS library cannot use them.
    pub fn new(credentials: NodeCredentials) -> Result<Self, CaError> {
        let identity = credentials.identity();
        let (cluster, node) = (identity.cluster.clone(), identity.node.clone());
        let current = watch::Sender::new(Current::new(credentials)?);
        Ok(Self(Arc::new(Shared { cluster, node, current })))
    }

    /// Replaces the certificate by another one of the same node.
    ///
    /// # Errors
    /// [`CaError::OtherCluster`] or [`CaError::OtherNode`] when it is not, and as [`Self::new`]: then the old one stays.
    pub fn replace(&self, credentials: NodeCredentials) -> Result<(), CaError> {
        let new = credentials.identity();
        if new.cluster != self.0.cluster {
            return Err(CaError::OtherCluster);
        }
        if new.node != self.0.node {
            return Err(CaError::OtherNode { expected: self.0.node.clone(), found: new.node.clone() });
        }
        self.0.current.send_replace(Current::new(credentials)?);
        Ok(())
    }

    /// Which node it is.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }

    /// Of which swarm.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.0.cluster
    }

    /// What the node may do by its present certificate.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.current.borrow().credentials.identity().role
    }

    /// Key and certificate as they are now.
    #[must_use]
    pub fn credentials(&self) -> NodeCredentials {
        self.0.current.borrow().credentials.clone()
    }

    /// Returns once another certificate has taken the place of `known`, or other roots are trusted, with what there is then.
    pub async fn changed_from(&self, known: &NodeCredentials) -> NodeCredentials {
        let mut current = self.0.current.subscribe();
        let differs = |now: &NodeCredentials| now.chain_pem() != known.chain_pem() || now.roots() != known.roots();
        let changed = current.wait_for(|current| differs(&current.credentials)).await;
        // The sender is this identity's own: it is there for as long as this is.
        changed.expect("the identity is there").credentials.clone()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.borrow().clone()
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("cluster", &self.0.cluster)
            .field("node", &self.0.node)
            .finish_non_exhaustive()
    }
}

/// A member that calls, as its certificate says and [`crate::Authenticate`] has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// What it is to the swarm: what both its certificate and the managers say that it is.
    pub role: Role,
    /// The address that it calls from.
    pub addr: SocketAddr,
}

/// A machine that calls with a good join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// What the token lets it become.
    pub role: Role,
    /// The address that it calls from.
    pub addr: SocketAddr,
}

/// Which member sent a request, for RPCs that need a certificate.
///
/// # Errors
/// When the request did not come through [`crate::serve`].
pub fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the request was not authenticated"))
}

/// What the sender of a request may become, for the RPC that needs a join token.
///
/// # Errors
/// When the request did not come through [`crate::serve`].
pub fn admitted<T>(request: &Request<T>) -> Result<Admitted, Status> {
    request.extensions().get().copied().ok_or_else(|| Status::internal("the request was not authenticated"))
}

/// Adds a join token to each request.
#[derive(Debug, Clone)]
pub(crate) struct WithToken(MetadataValue<Ascii>);

impl WithToken {
    pub(crate) fn new(token: &JoinToken) -> Self {
        let mut value = MetadataValue::try_from(token.to_string()).expect("tokens are digits, letters and dashes");
        // Neither `Debug` nor the header compression keeps it.
        value.set_sensitive(true);
        Self(value)
    }

    pub(crate) fn on(self, channel: Channel) -> InterceptedService<Channel, Self> {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(JOIN_TOKEN, self.0.clone());
        Ok(request)
    }
}
