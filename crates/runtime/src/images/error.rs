//! What can go wrong with images, in words for the person who typed the command.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;

/// Why an image could not be loaded, found, tagged, removed or mounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name or id. (Clients look for the first three words.)
    #[error("No such image: {0}")]
    NotFound(String),
    /// A prefix of more than one image's id.
    #[error("image id {0} is ambiguous: more than one image's id begins with it")]
    Ambiguous(String),
    /// A tag that carries a digest.
    #[error("refusing to create a tag with a digest reference: {0}")]
    TagWithDigest(String),
    /// A container needs the image.
    #[error("conflict: unable to remove {0}: a container is using the image")]
    InUse(String),
    /// A container may have been made since it was looked which images containers use.
    #[error("images were taken into use at the same moment; try again")]
    Moved,
    /// Removing by id an image that has several names.
    #[error("conflict: unable to delete {0} (must be forced) - image is referenced in multiple repositories")]
    ManyReferences(String),
    /// The bytes are no tar archive, compressed or not.
    #[error("not an image archive: the file is not a tar archive (plain, gzip or zstd)")]
    NotATar,
    /// A tar archive that breaks off or is damaged inside.
    #[error("the image archive is damaged or cut off after {entries} entries: {source}")]
    Damaged {
        /// Entries that could be read.
        entries: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// A tar archive without `manifest.json` and `index.json`.
    #[error("not an image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)")]
    NoManifest,
    /// An archive from before Docker 1.10, which has `repositories` and no manifest.
    #[error("the archive was made by Docker before 1.10 and has no manifest.json: load and save it with a newer one")]
    TooOld,
    /// A manifest or index that cannot be understood.
    #[error("{file} of the archive cannot be understood: {reason}")]
    BadManifest {
        /// The path in the archive.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the manifest names and the archive lacks.
    #[error("the archive lacks {what} {path}, which its manifest names")]
    Missing {
        /// What it should have been: a layer, a config, a manifest.
        what: &'static str,
        /// The path in the archive.
        path: String,
    },
    /// The image's configuration is not what it should be.
    #[error("the image's config {path} is unreadable: {reason}")]
    BadConfig {
        /// The path in the archive or store.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content that does not match the digest it is named by.
    #[error("{what} differs from its digest: expected {expected}, found {found}")]
    DigestDiffers {
        /// Which file or layer.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// An image for other machines.
    #[error("the image is for {found}, not for {wanted}")]
    Foreign {
        /// This machine's platform, or the one that was asked for.
        wanted: String,
        /// What its configuration says.
        found: String,
    },
    /// None of the images in the archive runs here.
    #[error("the archive has no image for {wanted}; it has {found}")]
    NoPlatform {
        /// This machine's platform.
        wanted: String,
        /// Those in the archive.
        found: String,
    },
    /// An entry of a layer that is refused.
    #[error("layer {layer}: entry {path:?} is refused: {reason}")]
    BadEntry {
        /// The layer's digest, uncompressed.
        layer: String,
        /// The entry's path, as far as it can be shown.
        path: String,
        /// Why.
        reason: String,
    },
    /// A layer whose tar or compression is damaged.
    #[error("layer {layer} is damaged: {source}")]
    BadLayer {
        /// The layer's digest, uncompressed.
        layer: String,
        /// What the reader said.
        source: io::Error,
    },
    /// More than the limits allow.
    #[error("{what} has more than {limit} {unit}, which is the limit")]
    TooBig {
        /// The archive or which layer.
        what: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// Another process has the store open.
    #[error("the image store {0} is in use by another process")]
    Locked(PathBuf),
    /// The store's own index cannot be read.
    #[error("the image store's index {path} is unreadable: {reason}")]
    BadIndex {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The overlay file system could not be mounted.
    #[error("cannot mount an overlay file system at {at} (root and the kernel's overlay module are needed): {source}")]
    Mount {
        /// Where.
        at: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something about the store's own files.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// A verb: read, write, rename, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err` on operations with the store's own files.
    pub(super) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: source.into() }
    }

    /// For `map_err` on mounting and unmounting.
    pub(super) fn mount<E: Into<io::Error>>(at: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let at = at.to_owned();
        move |source| Self::Mount { at, source: source.into() }
    }
}
