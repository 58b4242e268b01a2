//! Who may speak: join tokens, which let a machine into the swarm, and node keys, by which a member is known afterwards.
//!
//! A [`JoinToken`] is what people copy from one machine to another. It has two halves: the digest says which swarm it belongs to,
//! so that a machine notices when it talks to another one; the secret is what the managers compare. The managers keep
//! the secrets in the store ([`skep_model::JoinSecrets`]); [`new_secret`] makes one.
//!
//! A [`NodeKey`] is 32 random bytes that a node makes up before it joins and keeps on its disk. The managers keep only its
//! [digest](NodeKey::digest), so that whoever reads their store cannot pass for a node.
//!
//! Secrets are compared in constant time and never appear in `Debug` output. There are no certificates here yet: the digest of a
//! token is that of the cluster's id until there is a root certificate.

#![forbid(unsafe_code)]

mod base36;
mod key;
mod secret;
mod token;

pub use key::NodeKey;
pub use secret::{new_secret, same_secret};
pub use token::JoinToken;

/// A text that is not the secret that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Not a join token at all.
    #[error(
        "invalid join token: it should look like SWMTKN-1-<50 characters>-<25 characters>; \
         `docker swarm join-token worker` on a manager prints it"
    )]
    JoinToken,
    /// Not a secret of a join token.
    #[error("invalid secret of a join token: expected 25 characters of 0-9 and a-z")]
    Secret,
    /// Not a node key.
    #[error("invalid node key: expected 64 hexadecimal digits")]
    NodeKey,
}
