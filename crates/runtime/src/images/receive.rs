//! An image that comes piece by piece, from a registry: its configuration first, then the layers that the store lacks.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use skep_model::ImageRef;

use super::config::ConfigFile;
use super::digest::{ChainId, DiffId, Digest, ImageId};
use super::error::ImageError;
use super::held::Held;
use super::load::LoadEvent;
use super::place::{NewLayer, Pins, Source};
use super::{Image, Images, layers};

/// An image on its way into the store. Dropping it without [`Incoming::commit`] leaves nothing behind; that takes as long as deleting does.
pub struct Incoming {
    store: Arc<Images>,
    config: Vec<u8>,
    file: ConfigFile,
    chains: Vec<ChainId>,
    /// Given up when the value is dropped, before what nobody needs is collected.
    pins: Option<Pins>,
}

/// Where work under way is kept, deleted when the value is dropped.
pub struct Workspace(layers::Scratch);

impl Workspace {
    /// The file for the bytes with that digest.
    #[must_use]
    pub fn file(&self, digest: &Digest) -> PathBuf {
        self.0.path().join(digest.hex())
    }
}

impl Images {
    /// Begins to take in the image with this configuration, which has so many `layers` by its manifest.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`].
    pub fn receive(self: &Arc<Self>, config: Vec<u8>, layers: usize) -> Result<Incoming, ImageError> {
        let digest = Digest::of(&config).to_string();
        let file = ConfigFile::parse(&digest, &config)?;
        if file.diffs.len() != layers {
            let reason = format!("it lists {} layers, the manifest has {layers}", file.diffs.len());
            return Err(ImageError::BadConfig { path: digest, reason });
        }
        let mut chains: Vec<ChainId> = Vec::new();
        let mut pins = Pins::new(self);
        for diff in &file.diffs {
            let next = ChainId::on(chains.last().copied(), *diff);
            pins.pin(next);
            chains.push(next);
        }
        Ok(Incoming { store: self.clone(), config, file, chains, pins: Some(pins) })
    }

    /// A directory for what is downloaded, on the store's file system. It goes with the value; after a crash, when the store is opened.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn workspace(&self) -> Result<Workspace, ImageError> {
        Ok(Workspace(self.scratch()?))
    }
}

impl Incoming {
    /// Refuses an image that says itself to be for another platform. One that says nothing is taken.
    ///
    /// # Errors
    /// [`ImageError::Foreign`].
    pub fn check_platform(&self, os: &str, architecture: &str) -> Result<(), ImageError> {
        let says = &self.file.config;
        let same = |says: &str, wanted: &str| says.is_empty() || says == wanted;
        if same(&says.os, os) && same(&says.architecture, architecture) {
            return Ok(());
        }
        let found = format!("{}/{}", says.os, says.architecture);
        Err(ImageError::Foreign { wanted: format!("{os}/{architecture}"), found })
    }

    /// The image's identity.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.file.id
    }

    /// The content of each layer, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[DiffId] {
        &self.file.diffs
    }

    /// Whether the store has the layer of that number already, counted from the lowest.
    #[must_use]
    pub fn has(&self, layer: usize) -> bool {
        layers::size(&self.store.root, &self.chains[layer]).is_ok()
    }

    /// Unpacks a layer that the store lacks, on top of those below it, which must be there. `file` has it from its beginning: `size`
    /// bytes with that digest. Nothing happens when the store has it already.
    ///
    /// # Errors
    /// What is wrong with the layer.
    pub fn put(
        &self,
        layer: usize,
        file: &File,
        size: u64,
        digest: Digest,
        progress: &mut dyn FnMut(LoadEvent),
    ) -> Result<(), ImageError> {
        let (parents, chain) = (&self.chains[..layer], self.chains[layer]);
        let new = NewLayer { parents, chain, diff: self.file.diffs[layer] };
        new.put(&self.store, Source { file, at: 0, size, digest }, progress).map(drop)
    }

    /// The image is in the store from here on, under the name that was asked for: a tag, which moves here, or a digest.
    /// `digest` is what the registry calls the content.
    ///
    /// # Errors
    /// [`ImageError::Io`], also when a layer is missing.
    pub fn commit(&self, name: &ImageRef, digest: Digest) -> Result<Held, ImageError> {
        let root = &self.store.root;
        let mut size = 0;
        for chain in &self.chains {
            size += layers::size(root, chain)?;
        }
        // Also when nothing was unpacked here: another load may have put a layer in place and not come to this yet.
        layers::sync(root)?;
        let mut state = self.store.state();
        layers::add_blob(root, &self.config)?;
        let mut index = state.index.clone();
        let id = self.file.id;
        let there = index.images.entry(id).or_insert_with(|| Image {
            id,
            refs: Vec::new(),
            size,
            created: self.file.created,
            config: self.file.config.clone(),
            layers: self.chains.clone(),
            manifest: None,
        });
        there.manifest = Some(digest);
        if name.digest().is_none() {
            index.tag(&id, name)?;
        }
        index.pin(&id, &name.by_digest(&digest.to_string()));
        index.write(root)?;
        state.index = index;
        let image = state.index.images[&id].clone();
        Ok(Held::new(image, &self.store.state, &mut state))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.pins = None;
        if let Err(error) = self.store.collect(&mut self.store.state()) {
            tracing::warn!(%error, "cannot delete layers of an image that was not taken in");
        }
    }
}
