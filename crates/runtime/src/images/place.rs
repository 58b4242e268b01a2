//! Puts layers in their place: unpacks each on top of its parents, checks it, and keeps it from being collected meanwhile.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::digest::{ChainId, DiffId, Digest, Hashing};
use super::error::ImageError;
use super::layers::{self, LayerInfo};
use super::load::LoadEvent;
use super::overlay::{Durability, Overlay};
use super::stream::{self, Extent, decompressed};
use super::unpack::{Refused, unpack};
use super::{Images, State};

/// Told what happens.
pub(super) type Progress<'a> = &'a mut dyn FnMut(LoadEvent);

/// Keeps layers from being collected while no image names them yet.
pub(super) struct Pins {
    state: Arc<Mutex<State>>,
    chains: Vec<ChainId>,
}

impl Pins {
    pub(super) fn new(store: &Images) -> Self {
        Self { state: store.state.clone(), chains: Vec::new() }
    }

    pub(super) fn pin(&mut self, chain: ChainId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.pinned.entry(chain).or_default() += 1;
        self.chains.push(chain);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for chain in &self.chains {
            if let Some(count) = state.pinned.get_mut(chain) {
                *count -= 1;
            }
        }
        state.pinned.retain(|_, count| *count > 0);
    }
}

/// Where the bytes of a layer are, compressed or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
    pub(super) size: u64,
    /// Of these bytes.
    pub(super) digest: Digest,
}

impl<'a> Source<'a> {
    fn open(&self) -> Extent<'a> {
        Extent { file: self.file, at: self.at, left: self.size }
    }
}

/// A layer's content and its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewLayer<'a> {
    /// Lowest first.
    pub(super) parents: &'a [ChainId],
    pub(super) chain: ChainId,
    pub(super) diff: DiffId,
}

impl NewLayer<'_> {
    /// Sees to it that the store has the layer, which is pinned; returns its size.
    pub(super) fn put(self, store: &Images, source: Source<'_>, progress: Progress<'_>) -> Result<u64, ImageError> {
        let root = &store.root;
        if let Ok(size) = layers::size(root, &self.chain) {
            return Ok(size);
        }
        let scratch = store.scratch()?;
        let made = scratch.path().join("layer");
        let tree = new_layer(root, self.parents, scratch.path(), &made)?;
        let size = self.unpack(store, tree, source, progress)?;
        let info = LayerInfo { parent: self.parents.last().copied(), size };
        match layers::add_layer(root, &self.chain, &made, &info) {
            // Another load of the same layer was quicker.
            Err(_) if layers::size(root, &self.chain).is_ok() => Ok(size),
            Err(error) => Err(error),
            Ok(()) => Ok(size),
        }
    }

    fn unpack(
        self,
        store: &Images,
        tree: OwnedFd,
        source: Source<'_>,
        progress: Progress<'_>,
    ) -> Result<u64, ImageError> {
        let diff = self.diff;
        let layer = || diff.to_string();
        let damaged = |source| ImageError::BadLayer { layer: layer(), source };
        let differs = |found| ImageError::DigestDiffers { what: format!("layer {diff}"), expected: diff.0, found };
        // Known before unpacking: says what is wrong with a damaged layer better than its damaged entries do.
        if source.digest != diff.0 && !stream::is_compressed(source.open()).map_err(damaged)? {
            return Err(differs(source.digest));
        }
        let read = Reported { inner: source.open(), layer: diff, total: source.size, done: 0, progress };
        let mut content = Hashing::new(decompressed(read).map_err(damaged)?);
        let unpacked = unpack(&mut content, tree, &store.limits).map_err(|refused| match refused {
            Refused::Tar(source) => damaged(source),
            Refused::Bytes => too_big(diff, store.limits.bytes, "bytes"),
            Refused::Entries => too_big(diff, store.limits.entries, "entries"),
            Refused::Entry { path, reason } => ImageError::BadEntry { layer: layer(), path, reason },
        })?;
        let (found, _) = content.finish();
        if found == diff.0 { Ok(unpacked.size) } else { Err(differs(found)) }
    }
}

fn too_big(layer: DiffId, limit: u64, unit: &'static str) -> ImageError {
    ImageError::TooBig { what: format!("layer {layer}"), limit, unit }
}

/// A directory for a new layer, `made/diff`, and the tree that the layer's entries apply to.
fn new_layer(root: &Path, parents: &[ChainId], scratch: &Path, made: &Path) -> Result<OwnedFd, ImageError> {
    let (diff, work, place) = (made.join("diff"), scratch.join("work"), scratch.join("merged"));
    for dir in [made, &diff, &work, &place] {
        fs::create_dir(dir).map_err(ImageError::io("create", dir))?;
    }
    let Some(top) = parents.last() else {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&diff, mode).map_err(ImageError::io("change", &diff))?;
        return File::open(&diff).map(OwnedFd::from).map_err(ImageError::io("open", &diff));
    };
    same_owner(&layers::layer_path(root, top).join("diff"), &diff)?;
    for parent in parents {
        layers::ensure_link(root, parent)?;
    }
    let overlay = Overlay {
        links: &root.join("l"),
        lowers: parents.iter().rev().map(layers::link_name).collect(),
        upper: &diff,
        work: &work,
        durability: Durability::Caller,
    };
    overlay.detached(&place)
}

/// Gives `to` the owner and mode of `from`: the root of an overlay is that of its upper directory.
pub(super) fn same_owner(from: &Path, to: &Path) -> Result<(), ImageError> {
    let copy = || {
        let there = fs::metadata(from)?;
        chown(to, Some(there.uid()), Some(there.gid()))?;
        fs::set_permissions(to, fs::Permissions::from_mode(there.mode() & 0o7777))
    };
    copy().map_err(|error: io::Error| ImageError::io("change", to)(error))
}

/// Tells how far the reading of a layer is.
struct Reported<'a, R> {
    inner: R,
    layer: DiffId,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

/// Bytes between two events of the same layer.
const STEP: u64 = 1 << 20;

impl<R: Read> Read for Reported<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let before = self.done / STEP;
        self.done += n as u64;
        if n > 0 && (self.done / STEP > before || self.done == self.total) {
            (self.progress)(LoadEvent::Layer { layer: self.layer, done: self.done, total: self.total });
        }
        Ok(n)
    }
}
