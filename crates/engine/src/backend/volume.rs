//! The volumes of this node.

use std::collections::BTreeMap;

use skep_model::Timestamp;

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its driver was told.
    pub options: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// Where its content is on the node.
    pub mountpoint: String,
    /// How many containers it is mounted into, ended ones too.
    pub users: usize,
    /// Bytes of its content; `None` when they are not counted or not this node's.
    pub size: Option<u64>,
}

/// Whether the content of volumes is measured, which takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// It is.
    Measured,
    /// It is not.
    Unknown,
}

/// A volume to be made. Its driver is the local one; names and options are checked by the backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewVolume {
    /// Its name; `None` for one that is made up.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
}
