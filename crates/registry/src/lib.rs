//! Images from registries (OCI distribution specification, and what Docker's registries do besides).
//!
//! [`Puller`] brings an image from a registry into the store of this node: [`Puller::pull`] for people and for tasks,
//! [`Puller::inspect`] to learn which content a tag means, [`Puller::login`] to try credentials. However many ask for the same image at the
//! same time, it is fetched once; a layer that two images have is downloaded once; what the store has is not asked for.
//!
//! A registry is a stranger. What it sends is bounded in size and in time; every byte is checked against the digest by which it was asked
//! for before the store sees it; and nothing half done stays when something is wrong. Credentials go to the registry that they are for and to the
//! token server that it names, never to where it redirects, and never over plain HTTP unless the operator has named the registry insecure.
//!
//! From the bottom: `http` opens connections and knows whom to trust, `session` speaks with one repository and proves who asks, `manifest`
//! understands what is said, `blob` downloads and resumes, `pull` puts it together. The crate never decides which image a task gets.

#![forbid(unsafe_code)]

mod blob;
mod challenge;
mod config;
mod error;
mod fake;
mod flight;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http;
mod manifest;
mod pull;
mod repository;
mod session;
mod source;
mod tls;
mod token;
mod url;

pub use config::{BadInsecure, BadMirror, Insecure, Mirror, Patience, RegistryConfig};
pub use error::RegistryError;
pub use fake::FakeSource;
pub use flight::{LayerState, News, Outcome, PullEvent, Pulling};
pub use manifest::Platform;
pub use pull::{Distribution, PullRequest, Puller};
pub use source::ImageSource;
