//! What can go wrong, in an operator's words.

use std::io;
use std::path::PathBuf;

use skep_network::NetworkError;

/// Why a lab could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A lab's name becomes part of paths, so it is short and plain.
    #[error("{0:?} is no name for a lab: use 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit")]
    Name(String),
    /// A lab has a few nodes, and at least one.
    #[error("a lab has 1 to {max} nodes, not {0}", max = crate::place::MAX_NODES)]
    Nodes(u8),
    /// There is one of this name already.
    #[error("lab {0} is up already: take it down first, or choose another name")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no lab {0}")]
    Missing(String),
    /// All networks are taken by other labs.
    #[error("256 labs are up, and there is no network left for another: take some down")]
    NoNetworkLeft,
    /// Neither a node of this lab nor its client.
    #[error("lab {lab} has no {place}: use node1 to node{nodes}, or client")]
    Place {
        /// The lab.
        lab: String,
        /// What was asked for.
        place: String,
        /// How many nodes it has.
        nodes: u8,
    },
    /// A command without words.
    #[error("say which program to run")]
    NoProgram,
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Namespaces and cables.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The namespaces' thread could not be started.
    #[error("cannot work in the lab's namespaces: {0}")]
    Worker(io::Error),
    /// The daemon's program could not be run.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A process could not be signalled.
    #[error("cannot signal process {pid}: {source}")]
    Signal {
        /// Its id.
        pid: i32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Processes that a signal did not end in time.
    #[error("processes {0:?} are still there: something holds them in the kernel")]
    StillRunning(Vec<i32>),
    /// The daemon does not answer in time.
    #[error("the daemon of node{node} does not answer on its socket: {last}; the end of its log:\n{log}")]
    NotReady {
        /// The node.
        node: u8,
        /// What the last attempt ended with.
        last: String,
        /// The last lines of its log.
        log: String,
    },
    /// The daemon ended by itself.
    #[error("the daemon of node{node} has ended; the end of its log:\n{log}")]
    Ended {
        /// The node.
        node: u8,
        /// The last lines of its log.
        log: String,
    },
    /// A directory still holds a mount, so that its files may be somebody else's.
    #[error("{} is not removed, because {} is still mounted in it", dir.display(), mount.display())]
    StillMounted {
        /// The directory.
        dir: PathBuf,
        /// The mount.
        mount: PathBuf,
    },
    /// Several things failed while the lab was taken down; everything else was removed nevertheless.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl LabError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// `Ok` if nothing failed, the error itself if one did, all of them otherwise.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}
