//! How nodes speak with each other: gRPC over TCP, on the manager port (2377).
//!
//! All bytes between nodes pass through two functions: [`serve`] on the side that listens (at what [`listen()`] opens) and [`dial`] on the side that
//! calls; encryption will be put under these two. A caller says who it is in the metadata of each request: by a
//! [`JoinToken`](skep_ca::JoinToken) while it joins ([`MembershipClient`]), by a [`NodeIdentity`] ever after
//! ([`dispatcher_client`], [`raft_client`]). The server asks [`Authenticate`] and hands the answer to the service: [`admitted`] says
//! what a token admits to, [`peer`] says which node calls. No request reaches a service without one of the two.
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
mod server;
mod tunnel;

pub use auth::{Authenticate, Refusal};
pub use client::{
    ApiClient, DispatcherClient, MembershipClient, RaftClient, api_client, dispatcher_client, raft_client,
};
pub use codec::{DecodeError, decode, encode};
pub use dial::{DEFAULT_PORT, dial, dial_lazy};
pub use error::{RpcError, not_leader};
pub use identity::{Admitted, Credentials, NodeIdentity, Peer, admitted, peer};
pub use listen::listen;
pub use server::{Services, serve};
pub use tunnel::{TunnelIo, open_tunnel};

/// The largest message that is sent or taken, in bytes: full assignments of a large node fit many times over, and a
/// damaged length does not exhaust the memory.
pub const MESSAGE_LIMIT: usize = 64 << 20;
