//! What can be wrong with tokens, keys and certificates.

use skep_model::NodeId;

/// Why something is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Not an unlock key.
    #[error(
        "invalid unlock key: it begins with SWMKEY-1- and has 43 characters after that; `docker swarm unlock-key` on another manager prints it"
    )]
    UnlockKey,
    /// Not a join token at all.
    #[error(
        "invalid join token: it should look like SWMTKN-1-<50 characters>-<25 characters>; \
         `docker swarm join-token worker` on a manager prints it"
    )]
    JoinToken,
    /// Not a secret of a join token.
    #[error("invalid secret of a join token: expected 25 characters of 0-9 and a-z")]
    Secret,
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate that names no member of a swarm.
    #[error("the certificate is not one of a swarm's node: {0}")]
    Subject(&'static str),
    /// A private key that cannot be read.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// A key and a certificate that do not belong together.
    #[error("the private key is not the one that the certificate was issued for")]
    OtherKey,
    /// A certificate that no trusted root has signed.
    #[error("the certificate was not issued by a root certificate that this node trusts")]
    Untrusted,
    /// A set of roots without any.
    #[error("there is no root certificate to trust")]
    NoRoots,
    /// A signing request that cannot be granted.
    #[error("the certificate signing request cannot be granted: {0}")]
    Request(&'static str),
    /// A root certificate that somebody brings, and that the swarm cannot issue its certificates under.
    #[error("the root certificate cannot be used: {0}")]
    Root(String),
    /// A root certificate that members trust already.
    #[error(
        "the swarm trusts this root certificate already, because certificates under it may still be in use: give another one, or wait until the replacement that is under way has come to its end"
    )]
    RootInUse,
    /// The library could not sign.
    #[error("cannot issue the certificate: {0}")]
    Issue(String),
    /// The side that answers has a certificate of the swarm, and not a manager's.
    #[error("the node that answers is not a manager")]
    NotManager,
    /// The side that answers is another node than the one that was called.
    #[error("the node that answers is {found}, not {expected}")]
    OtherNode {
        /// Who was called.
        expected: NodeId,
        /// Who answers.
        found: NodeId,
    },
    /// The side that answers is of another swarm.
    #[error("the node that answers is of another swarm")]
    OtherCluster,
    /// None of the certificates that the other side shows is the root of the join token.
    #[error(
        "it is not of the swarm that the join token is for, or the swarm's root certificate was replaced since (it has another digest): \
         check the address, and copy the token anew with `docker swarm join-token worker`"
    )]
    OtherRoot,
}
