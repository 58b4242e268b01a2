//! The images of this node.

use std::collections::BTreeMap;

use skep_model::{HealthConfig, ImageRef, Timestamp};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// SHA-256 of its configuration, 64 hexadecimal digits without `sha256:`.
    pub id: String,
    /// What it is called here.
    pub refs: Vec<ImageRef>,
    /// Bytes that it takes on disk.
    pub size: u64,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// The processor that it is for (`amd64`).
    pub architecture: String,
    /// The operating system that it is for (`linux`).
    pub os: String,
    /// Who built it.
    pub author: String,
    /// What containers of it run.
    pub config: ImageConfig,
    /// `sha256:…` of each layer's content, lowest first.
    pub layers: Vec<String>,
}

/// What containers of an image run unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program that is always run.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program when there is no entrypoint.
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Who it runs as.
    pub user: String,
    /// What asks it to stop.
    pub stop_signal: Option<String>,
    /// `80/tcp`, …
    pub exposed_ports: Vec<String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How their health is checked.
    pub health: Option<HealthConfig>,
}

/// What loading an archive reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// How far a layer is.
    Layer {
        /// The layer, a few characters for people.
        id: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all; `None` when unknown.
        total: Option<u64>,
    },
    /// An image is there.
    Loaded {
        /// Its id, as in [`ImageInfo::id`].
        id: String,
        /// What it is called; `None` when the archive does not say.
        reference: Option<ImageRef>,
    },
}

/// Whether an image goes although something needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Refuse when a container uses it or several references share it.
    IfUnused,
    /// Remove all references.
    Force,
}

/// What removing an image has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A reference is gone.
    Untagged(ImageRef),
    /// An image is gone: its id, as in [`ImageInfo::id`].
    Deleted(String),
}
