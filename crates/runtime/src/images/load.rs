//! From an archive to images in the store.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use skep_model::ImageRef;

use super::archive::{Archive, Member};
use super::config::ConfigFile;
use super::digest::{ChainId, DiffId, Hashing, ImageId};
use super::error::ImageError;
use super::layers::{self, LayerInfo};
use super::manifest::{self, Plan};
use super::overlay::{Durability, Overlay};
use super::stream::decompressed;
use super::unpack::{Refused, unpack};
use super::{Image, Images, stream};

/// What happens during [`Images::load`], in the order of happening. Shown as Docker shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer that the store lacks is being unpacked.
    Layer {
        /// Which.
        layer: DiffId,
        /// Bytes read of it, as it is in the archive.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// A name went from another image to one of the archive.
    Moved {
        /// The name.
        reference: ImageRef,
        /// The image that lost it.
        from: ImageId,
    },
    /// An image is in the store.
    Loaded(Loaded),
}

/// An image that came with an archive, whether the store had it already or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: ImageId,
    /// The names that the archive has for it; often none in OCI layouts.
    pub refs: Vec<ImageRef>,
}

impl fmt::Display for LoadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer { .. } => f.write_str("Loading layer"),
            Self::Moved { reference, from } => {
                let name = reference.familiar();
                write!(f, "The image {name} already exists, renaming the old one with ID {from} to empty string")
            }
            Self::Loaded(loaded) => loaded.fmt(f),
        }
    }
}

impl fmt::Display for Loaded {
    /// A line for each name, or one with the id; no newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refs.is_empty() {
            return write!(f, "Loaded image ID: {}", self.id);
        }
        let lines: Vec<String> = self.refs.iter().map(|name| format!("Loaded image: {}", name.familiar())).collect();
        f.write_str(&lines.join("\n"))
    }
}

type Progress<'a> = &'a mut dyn FnMut(LoadEvent);

/// See [`Images::load`].
pub(super) fn load(store: &Images, archive: impl Read, progress: Progress<'_>) -> Result<Vec<Loaded>, ImageError> {
    let scratch = store.scratch()?;
    let archive = Archive::receive(archive, scratch.path(), &store.limits)?;
    let plans = manifest::plans(&archive)?;
    let mut load = Load { store, archive: &archive, pins: Pins { store, chains: Vec::new() } };
    let result = load.run(plans, progress);
    drop(load);
    if result.is_err()
        && let Err(error) = store.collect(&mut store.state())
    {
        tracing::warn!(%error, "cannot delete layers of an image that was not loaded");
    }
    result
}

/// Keeps layers from being collected while no image names them yet.
struct Pins<'a> {
    store: &'a Images,
    chains: Vec<ChainId>,
}

impl Pins<'_> {
    fn pin(&mut self, chain: ChainId) {
        *self.store.state().pinned.entry(chain).or_default() += 1;
        self.chains.push(chain);
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for chain in &self.chains {
            if let Some(count) = state.pinned.get_mut(chain) {
                *count -= 1;
            }
        }
        state.pinned.retain(|_, count| *count > 0);
    }
}

struct Load<'a> {
    store: &'a Images,
    archive: &'a Archive,
    pins: Pins<'a>,
}

/// An image whose layers are in the store, with the bytes of its configuration.
struct Ready {
    image: Image,
    config: Vec<u8>,
}

impl Load<'_> {
    fn run(&mut self, plans: Vec<Plan>, progress: Progress<'_>) -> Result<Vec<Loaded>, ImageError> {
        let mut ready: BTreeMap<ImageId, Ready> = BTreeMap::new();
        let mut order = Vec::new();
        for plan in plans {
            let made = self.prepare(plan, progress)?;
            let id = made.image.id;
            match ready.get_mut(&id) {
                Some(same) => same.image.refs.extend(made.image.refs),
                None => {
                    order.push(id);
                    ready.insert(id, made);
                }
            }
        }
        // Also when nothing was unpacked here: another load may have put a layer in place and not come to this yet.
        layers::sync(&self.store.root)?;
        self.commit(ready, &order, progress)
    }

    fn prepare(&mut self, plan: Plan, progress: Progress<'_>) -> Result<Ready, ImageError> {
        let path = &plan.config.path;
        let config = self.archive.text(path, &plan.config.member)?;
        let file = ConfigFile::parse(path, &config)?;
        let (listed, present) = (file.diffs.len(), plan.layers.len());
        if listed != present {
            let reason = format!("it lists {listed} layers, the archive has {present}");
            return Err(ImageError::BadConfig { path: path.clone(), reason });
        }
        let (mut chain, mut size) = (Vec::new(), 0);
        for (diff, layer) in file.diffs.iter().zip(&plan.layers) {
            let next = ChainId::on(chain.last().copied(), *diff);
            size += self.layer(&chain, next, *diff, &layer.member, progress)?;
            chain.push(next);
        }
        let image = Image {
            id: file.id,
            refs: plan.refs,
            size,
            created: file.created,
            config: file.config,
            layers: chain,
            manifest: plan.manifest,
        };
        Ok(Ready { image, config })
    }

    /// Sees to it that the store has the layer; returns its size.
    fn layer(
        &mut self,
        parents: &[ChainId],
        chain: ChainId,
        diff: DiffId,
        member: &Member,
        progress: Progress<'_>,
    ) -> Result<u64, ImageError> {
        self.pins.pin(chain);
        let root = &self.store.root;
        if let Ok(size) = layers::size(root, &chain) {
            return Ok(size);
        }
        let scratch = self.store.scratch()?;
        let made = scratch.path().join("layer");
        let tree = new_layer(root, parents, scratch.path(), &made)?;
        let size = self.unpack(tree, diff, member, progress)?;
        let info = LayerInfo { parent: parents.last().copied(), size };
        match layers::add_layer(root, &chain, &made, &info) {
            // Another load of the same layer was quicker.
            Err(_) if layers::size(root, &chain).is_ok() => Ok(size),
            Err(error) => Err(error),
            Ok(()) => Ok(size),
        }
    }

    fn unpack(&self, tree: OwnedFd, diff: DiffId, member: &Member, progress: Progress<'_>) -> Result<u64, ImageError> {
        let layer = || diff.to_string();
        let damaged = |source| ImageError::BadLayer { layer: layer(), source };
        let differs = |found| ImageError::DigestDiffers { what: format!("layer {diff}"), expected: diff.0, found };
        // Known before unpacking: says what is wrong with a damaged layer better than its damaged entries do.
        if member.digest != diff.0 && !stream::is_compressed(self.archive.open(member)).map_err(damaged)? {
            return Err(differs(member.digest));
        }
        let read = Reported { inner: self.archive.open(member), layer: diff, total: member.size, done: 0, progress };
        let mut content = Hashing::new(decompressed(read).map_err(damaged)?);
        let unpacked = unpack(&mut content, tree, &self.store.limits).map_err(|refused| match refused {
            Refused::Tar(source) => damaged(source),
            Refused::Bytes => too_big(diff, self.store.limits.bytes, "bytes"),
            Refused::Entries => too_big(diff, self.store.limits.entries, "entries"),
            Refused::Entry { path, reason } => ImageError::BadEntry { layer: layer(), path, reason },
        })?;
        let (found, _) = content.finish();
        if found == diff.0 { Ok(unpacked.size) } else { Err(differs(found)) }
    }

    /// Puts all images into the index at once.
    fn commit(
        &self,
        mut ready: BTreeMap<ImageId, Ready>,
        order: &[ImageId],
        progress: Progress<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut state = self.store.state();
        let mut index = state.index.clone();
        let mut events = Vec::new();
        let mut all = Vec::new();
        for Ready { mut image, config } in order.iter().filter_map(|id| ready.remove(id)) {
            layers::add_blob(&self.store.root, &config)?;
            let loaded = Loaded { id: image.id, refs: std::mem::take(&mut image.refs) };
            let there = index.images.entry(image.id).or_insert_with(|| image.clone());
            there.manifest = image.manifest.or(there.manifest);
            for reference in &loaded.refs {
                if let Some(from) = index.tag(&loaded.id, reference)? {
                    events.push(LoadEvent::Moved { reference: reference.clone(), from });
                }
            }
            events.push(LoadEvent::Loaded(loaded.clone()));
            all.push(loaded);
        }
        index.write(&self.store.root)?;
        state.index = index;
        drop(state);
        events.into_iter().for_each(progress);
        Ok(all)
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
