//! Who calls: what a client adds to its requests and what a service learns from them.

use std::net::SocketAddr;

use skep_ca::{JoinToken, NodeKey};
use skep_model::{NodeId, Role};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub(crate) const JOIN_TOKEN: &str = "skep-join-token";
pub(crate) const NODE_ID: &str = "skep-node-id";
pub(crate) const NODE_KEY: &str = "skep-node-key";

/// What a member proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Which node it is.
    pub node: NodeId,
    /// The secret that its managers know it by.
    pub key: NodeKey,
}

/// A member that calls, as [`crate::Authenticate`] has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// What it is to the swarm.
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

/// Which member sent a request, for services that are let in by node identity.
///
/// # Errors
/// When the request did not come through [`crate::serve`].
pub fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the request was not authenticated"))
}

/// What the sender of a request may become, for services that are let in by join token.
///
/// # Errors
/// When the request did not come through [`crate::serve`].
pub fn admitted<T>(request: &Request<T>) -> Result<Admitted, Status> {
    request.extensions().get().copied().ok_or_else(|| Status::internal("the request was not authenticated"))
}

/// Adds to each request who sends it.
#[derive(Debug, Clone)]
pub struct Credentials(Vec<(&'static str, MetadataValue<Ascii>)>);

impl Credentials {
    pub(crate) fn of_token(token: &JoinToken) -> Self {
        Self(vec![(JOIN_TOKEN, secret(&token.to_string()))])
    }

    pub(crate) fn of_node(identity: &NodeIdentity) -> Self {
        Self(vec![(NODE_ID, secret(identity.node.as_str())), (NODE_KEY, secret(&identity.key.to_string()))])
    }
}

/// A channel whose requests carry [`Credentials`].
pub(crate) type Authenticated = InterceptedService<Channel, Credentials>;

impl Credentials {
    pub(crate) fn on(self, channel: Channel) -> Authenticated {
        InterceptedService::new(channel, self)
    }
}

/// Marked as sensitive, so that neither `Debug` nor the header compression keeps it.
fn secret(text: &str) -> MetadataValue<Ascii> {
    let mut value = MetadataValue::try_from(text).expect("tokens, ids and keys are digits, letters and dashes");
    value.set_sensitive(true);
    value
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}
