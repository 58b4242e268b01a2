//! Why a member stopped.

use std::sync::{Arc, OnceLock};

use crate::RaftError;

/// The first error of the disk. openraft stops the member on it and wraps it in words of its own; this keeps ours. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<RaftError>>);

impl Fault {
    /// Notes an error, unless there was one before. Which is the one that counts is returned.
    pub(crate) fn note(&self, error: RaftError) -> RaftError {
        self.0.get_or_init(|| error).clone()
    }

    /// Whether the disk is well.
    pub(crate) fn is_none(&self) -> bool {
        self.0.get().is_none()
    }

    /// The error as text, or else what openraft says.
    pub(crate) fn or(&self, other: &impl ToString) -> String {
        self.0.get().map_or_else(|| other.to_string(), ToString::to_string)
    }
}
