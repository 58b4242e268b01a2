//! What can go wrong with a member.

use std::path::{Path, PathBuf};

/// Why a member does not start, or does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaftError {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        why: String,
    },
    /// There is no room.
    #[error(
        "no space is left for {}: make room and restart the daemon; nothing that was acknowledged is lost", path.display()
    )]
    DiskFull {
        /// What was written.
        path: PathBuf,
    },
    /// The file is of another version of skep.
    #[error(
        "{} is in format {found}, and this skep reads format {known}: use the version of skep that wrote it", path.display()
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The data key is wrapped, and no unlock key was given.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// The data key is wrapped under another unlock key.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongUnlockKey,
    /// The key file is gone.
    #[error(
        "the key file {} is missing, and without it nobody can read the manager's log: restore it from a backup, or remove \
         this manager from the swarm and let it join anew", path.display()
    )]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The key file is not what was written.
    #[error(
        "the key file {} is damaged: {why}; restore it from a backup, or remove this manager from the swarm and let it join \
         anew", path.display()
    )]
    KeyDamaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key file is of another log.
    #[error(
        "the key file {} does not belong to the log beside it: restore both from the same backup", path.display()
    )]
    OtherKey {
        /// The key file.
        path: PathBuf,
    },
    /// The log is open already.
    #[error("{} is in use: another skep daemon runs on the same data root", path.display())]
    LogInUse {
        /// The log's file.
        path: PathBuf,
    },
    /// The log is not what was written.
    #[error(
        "the log {} is damaged: {why}; restore the data root from a backup, or remove this manager from the swarm and let it \
         join anew", path.display()
    )]
    LogDamaged {
        /// The log's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A snapshot is not what was written, and the log does not reach back far enough to do without.
    #[error(
        "the snapshot {} is damaged: {why}; restore the data root from a backup, or remove this manager from the swarm and let it \
         join anew", path.display()
    )]
    SnapshotDamaged {
        /// The snapshot's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log begins after the newest snapshot ends.
    #[error(
        "a snapshot is missing in {}: the log begins at {first}; restore the data root from a backup, or remove this manager from the \
         swarm and let it join anew", path.display()
    )]
    SnapshotMissing {
        /// Where it should be.
        path: PathBuf,
        /// The first index of the log.
        first: u64,
    },
    /// The directory belongs to another member.
    #[error("{} belongs to the Raft member {stored:x}, not to {given:x}", path.display())]
    OtherMember {
        /// The log's file.
        path: PathBuf,
        /// Whose it is.
        stored: u64,
        /// Who wanted to use it.
        given: u64,
    },
    /// The member is in a group already.
    #[error("this node is already part of a swarm")]
    AlreadyInitialized,
    /// There is no log, or nothing in it, that a member could go on with alone.
    #[error("there is nothing to recover in {}: this node was not a manager of a swarm", path.display())]
    NothingToRecover {
        /// The member's directory.
        path: PathBuf,
    },
    /// Another member leads, or none does.
    #[error("this manager does not lead the swarm")]
    NotLeader,
    /// The member stopped, by itself or because it was told to.
    #[error("the manager's log has stopped: {why}; see the daemon's log, and restart it once the cause is gone")]
    Stopped {
        /// Why.
        why: String,
    },
}

impl RaftError {
    pub(crate) fn io(path: &Path, why: &std::io::Error) -> Self {
        match why.kind() {
            std::io::ErrorKind::StorageFull => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), why: why.to_string() },
        }
    }

    pub(crate) fn log(path: &Path, why: &impl ToString) -> Self {
        Self::LogDamaged { path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn snapshot(path: &Path, why: &impl ToString) -> Self {
        Self::SnapshotDamaged { path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn stopped(why: &impl ToString) -> Self {
        Self::Stopped { why: why.to_string() }
    }
}
