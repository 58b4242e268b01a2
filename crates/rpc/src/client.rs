//! Clients of the services between nodes.

use std::time::Duration;

use skep_ca::JoinToken;
use skep_model::NodeId;
use tonic::Request;
use tonic::transport::Channel;

use crate::identity::WithToken;
use crate::proto::membership_client::MembershipClient as Generated;
use crate::proto::{self, JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use crate::{MESSAGE_LIMIT, NodeIdentity, RpcError, dial, dial_lazy, dial_with_token};

/// What a node says to its manager.
pub type DispatcherClient = proto::dispatcher_client::DispatcherClient<Channel>;
/// What managers say to each other to agree.
pub type RaftClient = proto::raft_client::RaftClient<Channel>;
/// By what a manager passes people's requests on ([`crate::open_tunnel`]).
pub type ApiClient = proto::api_client::ApiClient<Channel>;

/// A join or a renewal may wait for the managers to agree, on slow disks too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks a manager to make this machine a member, and to keep it one.
#[derive(Debug, Clone, Copy)]
pub struct MembershipClient;

impl MembershipClient {
    /// Joins by the manager at `addr` (`host:port`). With a signing request for the same key it may be repeated: the node stays the same. The token
    /// is sent only to a manager of the swarm that it is for.
    ///
    /// # Errors
    /// [`RpcError::Unreachable`] after three seconds; [`RpcError::Untrusted`] or [`RpcError::Clock`] when the other side is no such manager;
    /// [`RpcError::Refused`] with [`crate::Refusal::Token`] within a second; [`RpcError::Timeout`] after twenty; what the manager says otherwise.
    pub async fn join(addr: &str, token: &JoinToken, request: JoinRequest) -> Result<JoinResponse, RpcError> {
        let channel = dial_with_token(addr, token).await?;
        let mut client = Generated::new(WithToken::new(token).on(channel))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let mut request = Request::new(request);
        request.set_timeout(JOIN_TIMEOUT);
        let answer = client.join(request).await.map_err(|status| RpcError::from_status(addr, &status))?;
        Ok(answer.into_inner())
    }

    /// Asks the manager at `addr` for the node's next certificate.
    ///
    /// # Errors
    /// As those of any call of a member: see [`dial`](crate::dial()) and [`RpcError::from_status`].
    pub async fn renew(addr: &str, identity: &NodeIdentity, csr: Vec<u8>) -> Result<RenewResponse, RpcError> {
        let mut client = Generated::new(dial(addr, identity).await?);
        let mut request = Request::new(RenewRequest { csr: csr.into() });
        request.set_timeout(JOIN_TIMEOUT);
        let answer = client.renew(request).await.map_err(|status| RpcError::from_status(addr, &status))?;
        Ok(answer.into_inner())
    }
}

/// Connects to the dispatcher of the manager at `addr` (`host:port`) as a member. What its calls return is a [`tonic::Status`]:
/// [`RpcError::from_status`] tells what it means.
///
/// # Errors
/// As [`dial`](crate::dial()).
pub async fn dispatcher_client(addr: &str, identity: &NodeIdentity) -> Result<DispatcherClient, RpcError> {
    let channel = dial(addr, identity).await?;
    Ok(DispatcherClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

/// Speaks with the manager at `addr` (`host:port`) as a manager; connects at the first call. With `node` it must be that manager.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn raft_client(addr: &str, identity: &NodeIdentity, node: Option<NodeId>) -> Result<RaftClient, RpcError> {
    let channel = dial_lazy(addr, identity, node)?;
    Ok(RaftClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

/// Passes people's requests on to the manager at `addr` (`host:port`); connects at the first one.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn api_client(addr: &str, identity: &NodeIdentity) -> Result<ApiClient, RpcError> {
    Ok(ApiClient::new(dial_lazy(addr, identity, None)?))
}
