//! What can go wrong with a registry, in words for the person who has to do something about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skep_runtime::images::{Digest, ImageError};

/// Why an image could not be had from a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody answers at its address, or it is not who it should be.
    #[error("cannot reach {registry}: {reason}")]
    Unreachable {
        /// Its address.
        registry: String,
        /// What went wrong.
        reason: String,
    },
    /// It has gone silent.
    #[error("{registry} is silent: nothing came for {} s", patience.as_secs_f32())]
    Silent {
        /// Its address.
        registry: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The connection broke.
    #[error("the connection with {registry} broke: {reason}")]
    Broken {
        /// Its address.
        registry: String,
        /// What went wrong.
        reason: String,
    },
    /// The credentials are wrong, or there are none.
    #[error("unauthorized: {registry} refuses the credentials, or wants some: docker login {registry} ({reason})")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What it says.
        reason: String,
    },
    /// It does not show the repository to whoever asks. (Clients know the words.)
    #[error("pull access denied for {repository}, repository does not exist or may require 'docker login': {reason}")]
    Denied {
        /// The repository.
        repository: String,
        /// What the registry says.
        reason: String,
    },
    /// There is no such tag or digest. (Clients know the words.)
    #[error("manifest for {reference} not found: {reason}")]
    NoManifest {
        /// What was asked for.
        reference: String,
        /// What the registry says.
        reason: String,
    },
    /// It refuses, for a reason of its own.
    #[error("{registry} answers {status} for {what}: {reason}")]
    Refused {
        /// Its address.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        reason: String,
        /// How long it wants to be left alone.
        after: Option<Duration>,
    },
    /// It sends from one place to the next without end.
    #[error("{registry} redirects more than {limit} times for {what}")]
    Redirects {
        /// Its address.
        registry: String,
        /// What was asked for.
        what: String,
        /// How often is enough.
        limit: usize,
    },
    /// It sends to a place where nobody should go.
    #[error("{registry} redirects to {to:?}: {reason}")]
    BadRedirect {
        /// Its address.
        registry: String,
        /// Where to.
        to: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It asks for a proof that skep cannot give.
    #[error("{registry} wants to know who asks, in a way that is not understood: {challenge:?}")]
    Challenge {
        /// Its address.
        registry: String,
        /// Its words.
        challenge: String,
    },
    /// The server that gives out tokens for the registry does not do its part.
    #[error("the token server {realm}: {reason}")]
    Token {
        /// Its address.
        realm: String,
        /// What is wrong.
        reason: String,
    },
    /// A manifest or another answer that makes no sense.
    #[error("{what} cannot be understood: {reason}")]
    Malformed {
        /// Which.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content that is not what it is called by.
    #[error("{what} differs from its digest: expected {expected}, found {found}")]
    DigestDiffers {
        /// Which.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Content of another length than promised.
    #[error("{what} should have {expected} bytes and has {found}")]
    SizeDiffers {
        /// Which.
        what: String,
        /// Bytes that were promised.
        expected: u64,
        /// Bytes that came, or were announced; `more` when reading was given up.
        found: String,
    },
    /// An answer longer than any that makes sense.
    #[error("{what} has more than {limit} bytes, which is the limit")]
    TooBig {
        /// Which.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The image does not exist for this kind of machine. (Clients know the words.)
    #[error("no matching manifest for {wanted} in the manifest list entries of {reference}: it has {found}")]
    NoPlatform {
        /// What was asked for.
        reference: String,
        /// The platform.
        wanted: String,
        /// Platforms that it is there for.
        found: String,
    },
    /// A manifest as registries had them before 2016.
    #[error(
        "{reference} has a manifest of schema version 1, which nobody takes any more: push it again with a newer Docker"
    )]
    OldManifest {
        /// What was asked for.
        reference: String,
    },
    /// A file with certificates that cannot be used.
    #[error("cannot use the certificates in {path}: {reason}")]
    Certificates {
        /// The file, or where the system keeps its certificates.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The store of this node.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk of this node.
    #[error("cannot keep {what}: {source}; is the disk full?")]
    Disk {
        /// What was to be written.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon is ending.
    #[error("the pull was broken off: {0}")]
    BrokenOff(String),
}

impl RegistryError {
    /// Whether it may be otherwise in a moment, with a registry that has answered before.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}
