//! Names: what a task's resolver answers.
//!
//! Every task has a resolver at 127.0.0.11, served by its node's daemon. What is named on a network is a [`Zone`]: the network's services, their
//! aliases and tasks, made of what managers and nodes have told ([`inside`]); what programs outside of the swarm may ask for is one too
//! ([`outside`]). [`answer`] looks a [`Question`] up in the zones of whoever asks: a pure function. A [`Resolver`] owns the sockets, and a
//! [`Forwarder`] asks others for the names that are nobody's here.
//!
//! Nothing is kept of what was asked or answered, and nobody learns a name of a network that they are not on. `docs/dns.md` has the whole.

#![forbid(unsafe_code)]

mod answer;
mod counters;
mod error;
mod forwarder;
pub mod inside;
pub mod outside;
mod question;
mod resolv_conf;
mod server;
mod zone;

pub use answer::{Answer, Scope, answer};
pub use counters::{Asked, Became, Counters};
pub use error::DnsError;
pub use forwarder::{Forwarder, Upstream};
pub use question::{Question, Received, Reply};
pub use resolv_conf::NodeResolvers;
pub use server::{ADDRESS, Asker, Resolver, Sockets, Unknown};
pub use zone::{Named, Ports, Target, Zone};
