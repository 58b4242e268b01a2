//! The keys by which nodes know each other's talk.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A key of AES-256-GCM. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Which it is; never used again within a swarm.
    pub id: u32,
    /// The key itself.
    pub secret: [u8; 32],
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipKey({})", self.id)
    }
}

/// The keys of a swarm: nodes read what was written with any of them, and write with the primary one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKeys {
    /// From the oldest to the newest.
    pub keys: Vec<GossipKey>,
    /// The one to write with.
    pub primary: u32,
    /// When the newest came.
    pub rotated: Timestamp,
}
