//! Who may speak: join tokens, which let a machine into the swarm, and certificates, by which members know each other.
//!
//! Every swarm has a root certificate of its own, [`RootCa`], which the managers keep in the store ([`skep_model::Authority`]). It signs
//! one certificate for each node, which says which node of which swarm it is and in which role: [`PeerIdentity`]. A node makes its
//! key pair itself ([`NodeKeys`]), and the private half never leaves it: what it sends is a signing request, of which the root reads the
//! public key and nothing else ([`SigningRequest`]). What a node then has is [`NodeCredentials`]: the key, the certificate and the
//! [`Roots`] that it trusts; a set, so that a root can be replaced while the swarm runs. [`renew_at`] says when to ask for the
//! next certificate. [`RootCa::succeed`] is how the next root comes into the place of this one, and [`RootCa::given`] is one that somebody brings.
//!
//! A [`JoinToken`] is what people copy from one machine to another. It has two halves: the digest names the root certificate, so that a
//! machine that knows nothing else recognizes the swarm that it was sent to before it says its secret; the secret is what the managers
//! compare. The managers keep the secrets in the store ([`skep_model::JoinSecrets`]); [`new_secret`] makes one.
//!
//! [`ManagerVerifier`] and [`TokenVerifier`] are how a client checks whom it has called, in the terms of the TLS library; [`provider`] is the one
//! place that says which cryptography is used. This crate opens no connection and no file.
//!
//! Secrets are compared in constant time and never appear in `Debug` output.

#![forbid(unsafe_code)]

mod base36;
mod credentials;
mod error;
mod given;
mod identity;
mod issue;
mod keys;
mod provider;
mod renewal;
mod roots;
mod secret;
#[cfg(test)]
mod tests;
mod token;
mod unlock;
mod verify;

pub use credentials::NodeCredentials;
pub use error::CaError;
pub use identity::PeerIdentity;
pub use issue::RootCa;
pub use keys::{NodeKeys, SigningRequest};
pub use provider::provider;
pub use renewal::renew_at;
pub use roots::{RootCertificate, Roots};
pub use secret::{new_secret, same_secret};
pub use token::JoinToken;
pub use unlock::UnlockKey;
pub use verify::{Expected, ManagerVerifier, TokenVerifier, manager_name};
