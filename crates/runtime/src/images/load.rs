//! From an archive to images in the store.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use skep_model::ImageRef;

use super::archive::Archive;
use super::config::ConfigFile;
use super::digest::{ChainId, DiffId, ImageId};
use super::error::ImageError;
use super::manifest::{self, Plan};
use super::place::{NewLayer, Pins, Progress};
use super::{Image, Images, layers};

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

/// See [`Images::load`].
pub(super) fn load(store: &Images, archive: impl Read, progress: Progress<'_>) -> Result<Vec<Loaded>, ImageError> {
    let scratch = store.scratch()?;
    let archive = Archive::receive(archive, scratch.path(), &store.limits)?;
    let plans = manifest::plans(&archive)?;
    let mut load = Load { store, archive: &archive, pins: Pins::new(store) };
    let result = load.run(plans, progress);
    drop(load);
    if result.is_err()
        && let Err(error) = store.collect(&mut store.state())
    {
        tracing::warn!(%error, "cannot delete layers of an image that was not loaded");
    }
    result
}

struct Load<'a> {
    store: &'a Images,
    archive: &'a Archive,
    pins: Pins,
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
            self.pins.pin(next);
            let new = NewLayer { parents: &chain, chain: next, diff: *diff };
            size += new.put(self.store, self.archive.source(&layer.member), progress)?;
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
