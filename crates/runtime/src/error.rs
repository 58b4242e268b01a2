//! What can go wrong with containers.

use std::io;
use std::path::{Path, PathBuf};

use crate::container::ContainerId;
use crate::images::ImageError;
use crate::signal::BadSignal;

/// Why a container could not be made, run or removed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such container.
    #[error("no such container: {0}")]
    NotFound(ContainerId),
    /// It has not been started, or has ended.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// It has ended, and containers run once.
    #[error("container {0} has run already")]
    HasRun(ContainerId),
    /// The program could not be started.
    #[error("{0}")]
    Start(String),
    /// The shim ended without a word.
    #[error("the container's shim ended before the container was started ({0})")]
    ShimEnded(String),
    /// The directory of a bind mount is not on this node.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    BindSourceMissing(String),
    /// A mount's target is no absolute path below the root.
    #[error("invalid mount target \"{0}\": it must be an absolute path without \"..\", other than \"/\"")]
    BadMountTarget(String),
    /// A volume's name is none.
    #[error(
        "\"{0}\" is not the name of a volume: letters, digits, '_', '.' and '-' are allowed, the first a letter or digit"
    )]
    BadVolumeName(String),
    /// Neither the service nor the image says what to run.
    #[error("no command specified: neither the service nor the image says what to run")]
    NoCommand,
    /// A user that the image does not know.
    #[error("unable to find user {0}: no matching entries in the image's passwd file")]
    UnknownUser(String),
    /// A group that the image does not know.
    #[error("unable to find group {0}: no matching entries in the image's group file")]
    UnknownGroup(String),
    /// A capability that does not exist.
    #[error("unknown capability: {0}")]
    UnknownCapability(String),
    /// A resource limit that does not exist.
    #[error("invalid ulimit type: {0}")]
    UnknownUlimit(String),
    /// A kernel parameter that is not the container's own.
    #[error("sysctl \"{0}\" is not in a namespace of the container")]
    SysctlNotAllowed(String),
    /// Something that this runtime does not do.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A signal that does not exist.
    #[error(transparent)]
    Signal(#[from] BadSignal),
    /// The image store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What stands in a file of the container is not what this daemon writes there.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A system call.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RuntimeError {
    /// For `map_err`: names what was tried on which path.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}
