//! Clients that say who they are with each request.

use std::time::Duration;

use skep_ca::JoinToken;
use tonic::Request;

use crate::identity::Authenticated;
use crate::proto::{self, JoinRequest, JoinResponse};
use crate::{Credentials, MESSAGE_LIMIT, NodeIdentity, RpcError, dial, dial_lazy};

/// What a node says to its manager.
pub type DispatcherClient = proto::dispatcher_client::DispatcherClient<Authenticated>;
/// What managers say to each other to agree.
pub type RaftClient = proto::raft_client::RaftClient<Authenticated>;
/// By what a manager passes people's requests on ([`crate::open_tunnel`]).
pub type ApiClient = proto::api_client::ApiClient<Authenticated>;

/// A join may wait for the managers to agree, on slow disks too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks a manager to make this machine a member.
#[derive(Debug, Clone, Copy)]
pub struct MembershipClient;

impl MembershipClient {
    /// Joins by the manager at `addr` (`host:port`). With the same `node_key` it may be repeated: the node stays the same.
    ///
    /// # Errors
    /// [`RpcError::Unreachable`] after three seconds; [`RpcError::Refused`] with [`crate::Refusal::Token`] within one;
    /// [`RpcError::Timeout`] after twenty; what the manager says otherwise.
    pub async fn join(addr: &str, token: &JoinToken, request: JoinRequest) -> Result<JoinResponse, RpcError> {
        let channel = dial(addr).await?;
        let mut client = proto::membership_client::MembershipClient::new(Credentials::of_token(token).on(channel))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let mut request = Request::new(request);
        request.set_timeout(JOIN_TIMEOUT);
        let answer = client.join(request).await.map_err(|status| RpcError::from_status(addr, &status))?;
        Ok(answer.into_inner())
    }
}

/// Connects to the dispatcher of the manager at `addr` (`host:port`) as a member. What its calls return is a [`tonic::Status`]:
/// [`RpcError::from_status`] tells what it means.
///
/// # Errors
/// [`RpcError::BadAddress`], or [`RpcError::Unreachable`] after three seconds.
pub async fn dispatcher_client(addr: &str, identity: &NodeIdentity) -> Result<DispatcherClient, RpcError> {
    let channel = dial(addr).await?;
    Ok(DispatcherClient::new(Credentials::of_node(identity).on(channel))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT))
}

/// Speaks with the manager at `addr` (`host:port`) as a manager; connects at the first call.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn raft_client(addr: &str, identity: &NodeIdentity) -> Result<RaftClient, RpcError> {
    let channel = dial_lazy(addr)?;
    Ok(RaftClient::new(Credentials::of_node(identity).on(channel))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT))
}

/// Passes people's requests on to the manager at `addr` (`host:port`); connects at the first one.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn api_client(addr: &str, identity: &NodeIdentity) -> Result<ApiClient, RpcError> {
    Ok(ApiClient::new(Credentials::of_node(identity).on(dial_lazy(addr)?)))
}
