//! The Docker Engine API as a server: what `docker`, SDKs, Traefik and Portainer talk to.
//!
//! A request comes in at [`Server`], which knows sockets and nothing else; `routes` finds the endpoint; the body becomes
//! one of the wire types in [`types`] (Go's JSON rules, see [`types::go_json`]); [`translate`] turns it into the words of
//! `skep-model` or refuses it with a sentence; and a [`Backend`] does it. The answer takes the same way back. Whatever a wire
//! field asks for that skep cannot do is refused by name: nothing is dropped silently.
//!
//! Beside Docker's API it has skep's own, `/skep/v1/…`, and what Prometheus scrapes ([`metrics`]).
//!
//! The main types: [`Backend`] is all that the daemon has to offer, [`ClusterView`] is what it shows of the swarm,
//! [`Error`] is how it says no. The crate holds no state besides the last few events and the programs that clients run in containers, does no scheduling, and never decides
//! anything that a manager decides.

#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
mod events;
mod execs;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod metrics;
mod routes;
mod server;
mod stream;
pub mod translate;
pub mod types;

pub use backend::Backend;
pub use backend::cluster::{ClusterView, JoinTokens};
pub use error::{Error, ErrorKind};
pub use routes::{NEWEST, OLDEST};
pub use server::{Listeners, ServeError, Server};
