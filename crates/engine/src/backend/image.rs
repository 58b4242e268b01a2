//! The images of this node.

use std::collections::BTreeMap;

use skep_model::{HealthConfig, ImageRef, RegistryAuth, Timestamp};

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

/// What an image that is made of a root file system is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name.
    pub reference: Option<ImageRef>,
    /// What its maker says of it.
    pub message: String,
    /// How containers of it run: the `config` of an image's configuration, in JSON.
    pub config: serde_json::Value,
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

/// What is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The image.
    pub reference: ImageRef,
    /// Who asks the registry.
    pub auth: Option<RegistryAuth>,
    /// `os`, `os/architecture` or `os/architecture/variant`; `None` is this node's.
    pub platform: Option<String>,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// It is here already.
    Exists,
    /// It will be downloaded.
    Queued,
    /// It comes: bytes done, bytes in all.
    Downloading(u64, u64),
    /// It has come.
    Downloaded,
    /// It is unpacked: compressed bytes done, and in all.
    Extracting(u64, u64),
    /// It is here.
    Complete,
}

/// What pulling reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The registry has the image: what it was asked for, a tag or a digest, of which repository.
    Found {
        /// `library/nginx`.
        repository: String,
        /// `latest`, `sha256:…`.
        wanted: String,
    },
    /// A layer is further than before.
    Layer {
        /// The layer, a few characters for people.
        id: String,
        /// How far.
        state: LayerState,
    },
    /// The image is here.
    Pulled {
        /// `sha256:…`, as the registry calls it.
        digest: String,
        /// Whether it was here under this name before.
        news: News,
    },
}

/// Whether a pull has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It was here.
    UpToDate,
    /// It is new, or the name is.
    Newer,
}

/// What a reference means to its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// What kind of document stands behind it.
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// The kinds of machines that there is an image for: operating system, architecture, variant.
    pub platforms: Vec<(String, String, String)>,
}

/// Which images pruning takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Those without a tag that no container uses.
    Untagged,
    /// All that no container uses.
    Unused,
}

/// What pruning has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// In order.
    pub removed: Vec<Removed>,
    /// Bytes that are free now.
    pub freed: u64,
}
