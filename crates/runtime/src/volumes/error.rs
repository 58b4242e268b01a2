//! What can go wrong with volumes, in words for the person who has to do something about it.

use std::io;
use std::path::{Path, PathBuf};

use skep_model::BadVolume;

use crate::container::ContainerId;

/// Why something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no such volume.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// It cannot be.
    #[error(transparent)]
    Bad(#[from] BadVolume),
    /// It is there, and made in another way.
    #[error(
        "volume {0} exists with other driver options: remove it first, leave the options out to use it as it is, or choose another name"
    )]
    Differs(String),
    /// Containers use it.
    #[error("remove {name}: volume is in use - [{}]", .by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// The containers, ended ones too.
        by: Vec<ContainerId>,
    },
    /// Its file system cannot be mounted.
    #[error("volume {name} cannot be mounted (type {kind}, device {device}): {reason}")]
    Mount {
        /// Its name.
        name: String,
        /// The file system's type.
        kind: String,
        /// What was to be mounted.
        device: String,
        /// Why not, in words.
        reason: String,
    },
    /// A file of ours that makes no sense.
    #[error("{path} is damaged: {reason}; put it right, or remove the volume's directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node's file system.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl VolumeError {
    pub(super) fn io<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source: source.into() }
    }
}
