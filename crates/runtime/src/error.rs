//! What can go wrong with containers, in words for the person who has to do something about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::container::ContainerId;
use crate::images::ImageError;
use crate::volumes::VolumeError;

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such container.
    #[error("no such container: {0}")]
    NotFound(ContainerId),
    /// It ran already: containers run once.
    #[error("container {0} has run already; prepare a new one")]
    Ended(ContainerId),
    /// What it was given in memory has gone with the machine's restart.
    #[error("the secrets and configs of container {0} went when the machine was started again")]
    FilesGone(ContainerId),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// A further program could not be started in it.
    #[error("exec failed: unable to start container process: {reason}")]
    Exec {
        /// The container.
        id: ContainerId,
        /// Why, in the kernel's or the container's own words.
        reason: String,
    },
    /// Its program could not be started.
    #[error("{reason}")]
    Start {
        /// The container.
        id: ContainerId,
        /// Why, in the kernel's or the container's own words.
        reason: String,
    },
    /// The container's image is not usable.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A volume of it is not usable.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Neither the image nor the specification says what to run.
    #[error("no command specified: neither the service nor its image has one")]
    NoCommand,
    /// A first process is asked for, and there is none for containers of an external runtime.
    #[error(
        "--init: {0} needs a program to be the container's first process: install tini (tini-static), or name one with the daemon's --init-path"
    )]
    NoInit(PathBuf),
    /// A user that is not in the image.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// A group that is not in the image.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A user or group number that is too large or too small.
    #[error("uids and gids must be in range 0-2147483647, {0} is not")]
    IdRange(String),
    /// A passwd or group file in the image that cannot be read.
    #[error("cannot read {path} of the image: {source}")]
    Accounts {
        /// The path in the container.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A signal that does not exist.
    #[error("{0} is no signal: a name such as SIGTERM or a number from 1 to 64 is expected")]
    BadSignal(String),
    /// A capability that does not exist.
    #[error("unknown capability {0}")]
    UnknownCapability(String),
    /// An environment variable without a name.
    #[error("invalid environment variable: {0:?}")]
    BadEnv(String),
    /// A resource limit that does not exist or makes no sense.
    #[error("invalid ulimit {name}: {reason}")]
    BadUlimit {
        /// Its name as given.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A kernel parameter that does not belong to a namespace of the container.
    #[error("sysctl {0} is not allowed: it does not belong to the container alone")]
    BadSysctl(String),
    /// The source of a bind mount is not there.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    NoBindSource(PathBuf),
    /// A mount that makes no sense.
    #[error("invalid mount at {target:?}: {reason}")]
    BadMount {
        /// The path in the container.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// The working directory is not an absolute path.
    #[error("the working directory {0:?} is invalid: it needs to be an absolute path")]
    BadDir(String),
    /// The network namespace is not there.
    #[error("the network namespace {path} cannot be joined: {source}")]
    NoNetns {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shim could not be started or went away before it reported.
    #[error("the shim of container {id} failed: {reason}")]
    Shim {
        /// The container.
        id: ContainerId,
        /// What is known.
        reason: String,
    },
    /// A file of ours that makes no sense.
    #[error("{path} is damaged: {reason}; remove the container")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Processes of the container that do not go away.
    #[error("processes of container {id} are still there after SIGKILL: {pids:?}")]
    Unkillable {
        /// The container.
        id: ContainerId,
        /// Their pids.
        pids: Vec<i32>,
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
    /// A thread of the daemon ended in the middle of the work.
    #[error("the work was broken off inside the daemon: {0}")]
    BrokenOff(String),
}

impl RuntimeError {
    /// For `map_err`: the failed attempt to `verb` the file at `path`.
    pub(crate) fn io<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source: source.into() }
    }
}
