//! How nodes speak with each other: gRPC over TCP, on the manager port (2377).
//!
//! All bytes between nodes pass through two functions: [`serve`] on the side that listens (at what [`listen()`] opens) and [`dial`](dial()) on the side
//! that calls. Both are mutual TLS 1.3 with the swarm's own certificates: a node shows the one in its [`NodeIdentity`], which can be replaced while
//! connections stand, and a client takes for a manager only who proves to be one. A machine that joins has no certificate yet; it recognizes the
//! swarm by its [`JoinToken`](skep_ca::JoinToken) ([`MembershipClient`]).
//!
//! Who may call what is written down in one place, `rules`; an RPC that is not named there is closed. The server asks
//! [`Authenticate`] at each request whether the node is still a member, and hands the answer to the service: [`admitted`] says
//! what a token admits to, [`peer`] says which node calls, in the smaller of the roles that its certificate and the managers say. No request reaches a
//! service without one of the two.
//!
//! The messages are in [`proto`], generated from `proto/skep.proto`; objects of the model travel inside as JSON ([`encode`], [`decode`]).
//! Errors of the calling side are [`RpcError`]; they name the address and what to do.
//!
//! This crate knows no store and takes no decision: who is a member is for the manager to say.

#![forbid(unsafe_code)]

mod auth;
mod client;
mod codec;
mod connection;
mod dial;
mod error;
mod identity;
mod listen;
pub mod proto;
mod rules;
mod server;
mod tls;
mod tunnel;

pub use auth::{Authenticate, Refusal};
pub use client::{
    ApiClient, DispatcherClient, MembershipClient, RaftClient, api_client, dispatcher_client, raft_client,
};
pub use codec::{DecodeError, decode, encode};
pub use dial::{DEFAULT_PORT, dial, dial_lazy, dial_with_token};
pub use error::{RpcError, not_leader};
pub use identity::{Admitted, NodeIdentity, Peer, admitted, peer};
pub use listen::listen;
pub use server::{Services, serve};
pub use tunnel::{TunnelIo, open_tunnel};

/// The largest message that is sent or taken, in bytes: full assignments of a large node fit many times over, and a
/// damaged length does not exhaust the memory.
pub const MESSAGE_LIMIT: usize = 64 << 20;
