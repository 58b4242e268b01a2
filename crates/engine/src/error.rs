//! How a backend says no, and which HTTP status that is.

use std::fmt;

/// What kind of refusal it is; decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object: 404.
    NotFound,
    /// An object of that name exists: 409.
    AlreadyExists,
    /// The object is in use, or somebody else is at it: 409.
    Conflict,
    /// The request makes no sense: 400.
    InvalidArgument,
    /// It makes sense, but not now: 400.
    FailedPrecondition,
    /// A key or token was wrong: 401.
    Unauthenticated,
    /// Not allowed here: 403.
    PermissionDenied,
    /// No swarm, not a manager, locked, already part of a swarm, timed out: 503.
    Unavailable,
    /// No manager leads, and nothing was done: 500.
    NoLeader,
    /// Not in this version of skep: 501.
    Unimplemented,
    /// Everything else that went wrong inside: 500.
    Unknown,
}

impl ErrorKind {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Unknown | Self::NoLeader => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
        }
    }

    /// The name of the gRPC code that Docker's managers would answer with: clients look for it in the message.
    /// `None` for the kinds whose message Docker passes on bare.
    #[must_use]
    pub fn rpc_code(self) -> Option<&'static str> {
        match self {
            Self::InvalidArgument => Some("InvalidArgument"),
            Self::FailedPrecondition => Some("FailedPrecondition"),
            Self::AlreadyExists => Some("AlreadyExists"),
            Self::PermissionDenied => Some("PermissionDenied"),
            Self::Unimplemented => Some("Unimplemented"),
            Self::Unknown | Self::NoLeader => Some("Unknown"),
            Self::NotFound | Self::Conflict | Self::Unauthenticated | Self::Unavailable => None,
        }
    }
}

/// A refusal, with a sentence for the person who asked. The sentence carries no `rpc error:` prefix: the engine adds it
/// where Docker does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of refusal it is.
    pub kind: ErrorKind,
    /// The sentence.
    pub message: String,
}

impl Error {
    /// A refusal of that kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// There is no `what` (`service`, `node`, …) called `name`. The wording is one that clients look for.
    #[must_use]
    pub fn not_found(what: impl fmt::Display, name: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("{what} {name} not found"))
    }

    /// The request makes no sense.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Not in this version of skep.
    #[must_use]
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unimplemented, message)
    }

    /// The node is in no swarm. The wording is one that clients look for.
    #[must_use]
    pub fn no_swarm() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )
    }

    /// The node is a worker. The wording is one that clients look for.
    #[must_use]
    pub fn not_a_manager() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
        )
    }

    /// The manager's keys are locked away. The wording is one that clients look for.
    #[must_use]
    pub fn locked() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.",
        )
    }

    /// The manager has no leader to ask yet. The wording is one that clients look for.
    #[must_use]
    pub fn manager_not_ready() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
        )
    }

    /// There is no quorum. The wording is one that clients look for.
    #[must_use]
    pub fn no_leader() -> Self {
        Self::new(
            ErrorKind::NoLeader,
            "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.",
        )
    }

    /// The node is in a swarm already. The wording is one that clients look for.
    #[must_use]
    pub fn already_in_swarm() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        )
    }

    /// The node is in no swarm that it could leave. The wording is one that clients look for.
    #[must_use]
    pub fn not_in_swarm() -> Self {
        Self::new(ErrorKind::Unavailable, "This node is not part of a swarm")
    }

    /// The node is in no swarm, so there is no mesh to look at.
    #[must_use]
    pub fn no_mesh() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "This node is not part of a swarm, so it has no mesh. Use \"skep swarm init\" or \"skep swarm join\" to make it part of one.",
        )
    }

    /// The version that a write named is not the current one. The wording is one that clients look for.
    #[must_use]
    pub fn out_of_sequence() -> Self {
        Self::new(ErrorKind::Unknown, "update out of sequence")
    }
}
