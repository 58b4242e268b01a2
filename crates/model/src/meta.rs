//! What every stored object carries: when it was made and at which version it last changed.

use serde::{Deserialize, Serialize};

/// A point in time, UTC, nanosecond resolution.
pub type Timestamp = jiff::Timestamp;

/// The cluster-wide counter: grows with every change of any object, so a write that names an old one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Bookkeeping of a stored object. The store alone writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The version at which the object last changed.
    pub version: Version,
    /// The version at which what people ask of it last changed: all else in it changes by itself.
    #[serde(default)]
    pub asked: Version,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Meta {
    /// For an object that is not stored yet; the store sets the version.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { version: Version(0), asked: Version(0), created: now, updated: now }
    }
}
