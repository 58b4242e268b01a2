//! The tables as bytes: what a snapshot file holds and a follower far behind is sent.

use crate::tables::{Portable, Tables};

/// First line of a snapshot: what it is and in which layout, so that a later skep can tell.
const HEADER: &[u8] = b"skep-snapshot 1\n";

/// Bytes that are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not written by skep, or by a skep with another layout.
    #[error("not a snapshot that this skep can read: it does not begin with \"skep-snapshot 1\"")]
    Header,
    /// Damaged.
    #[error("the snapshot is damaged: {0}")]
    Body(#[from] serde_json::Error),
}

impl Tables {
    /// The tables as bytes.
    ///
    /// # Panics
    /// Never: every stored type is representable in JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let portable = Portable { version: self.version(), objects: self.objects().collect() };
        let mut bytes = HEADER.to_vec();
        serde_json::to_writer(&mut bytes, &portable).expect("stored types are representable in JSON");
        bytes
    }

    /// The tables that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged or of another layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let body = bytes.strip_prefix(HEADER).ok_or(SnapshotError::Header)?;
        let portable: Portable = serde_json::from_slice(body)?;
        Ok(Self::from_objects(portable.version, portable.objects))
    }
}
