//! Images: what containers' root file systems are made of.
//!
//! [`Images`] is a store in one directory. Archives come in ([`Images::load`]: `docker save` and OCI layouts in a tar;
//! [`Images::import`]: root file systems), root file systems come out ([`Images::mount`]), and archives ([`Images::save`]). It is for the daemon's blocking threads: every call may touch the disk, none
//! knows tokio, all may be made at the same time.
//!
//! ```text
//! lock                       held while a daemon has the store open
//! index.json                 which images there are and what they are called; replaced as a whole
//! blobs/sha256/<digest>      configurations, under the digest of their bytes
//! layers/<chain id>/diff     what a layer changes on top of its parents: an upper directory of an overlay mount
//! layers/<chain id>/layer.json   its parent and size
//! l/<short>                  symbolic links to the diffs, because mount options are limited in length
//! tmp/                       work under way; whatever is in it when the store is opened is left over, and deleted
//! ```
//!
//! The order of writing makes crashes harmless: layers and blobs first, made durable, then the index that names them.
//! What the index does not name is deleted at the next [`Images::open`].
//!
//! A layer is unpacked through an overlay mount on its parents, so that the kernel works out whiteouts, hard links to files
//! of lower layers and the owners of directories that the layer does not mention. Layers come from strangers: see the
//! `unpack` module for what is done about it. The store never fetches anything and never decides which image a task gets.

mod archive;
pub mod build;
mod config;
mod digest;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod held;
mod import;
mod index;
mod layers;
mod load;
mod manifest;
mod overlay;
mod place;
mod receive;
mod save;
mod stream;
mod tree;
mod unpack;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_model::{ImageRef, Timestamp};

pub use build::ImageBuilder;
pub use config::{ExposedPort, ImageConfig};
pub use digest::{BadDigest, ChainId, DiffId, Digest, Hasher, ImageId};
pub use error::ImageError;
pub use held::{Held, InUse, Moment, Prune};
pub use import::Import;
pub use load::{LoadEvent, Loaded};
pub use manifest::architecture;
pub use receive::{Incoming, Workspace};
pub use save::ToSave;

use index::Index;

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Its names, sorted; none when another image took them over. One with a digest is what a registry calls its content.
    pub refs: Vec<ImageRef>,
    /// Bytes in the files of all its layers, those shared with other images included.
    pub size: u64,
    /// When it was made, as its maker says.
    pub created: Option<Timestamp>,
    /// How containers of it run.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<ChainId>,
    /// The digest of the manifest that it came with, if it came with one that has a digest.
    pub manifest: Option<Digest>,
}

/// What a load may take at the most: archives come from strangers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of an archive after decompression, and of each layer after decompression.
    pub bytes: u64,
    /// Entries of an archive, and of each layer.
    pub entries: u64,
    /// Bytes of a manifest or configuration, and of the name and attributes of one entry.
    pub text: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, text: 8 << 20 }
    }
}

/// How far [`Images::remove`] may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Refuses to remove by id what has several names.
    Careful,
    /// Takes all names away. An image that a container uses stays even so.
    Forced,
}

/// One thing that [`Images::remove`] did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(ImageRef),
    /// The image is gone, with the layers that no other image has.
    Deleted(ImageId),
}

/// The image store. See the [module](self).
#[derive(Debug)]
pub struct Images {
    root: PathBuf,
    limits: Limits,
    state: Arc<Mutex<State>>,
    /// Names for directories below `tmp/`.
    counter: AtomicU64,
    /// Holds the lock on the store as long as it is open.
    _lock: File,
}

#[derive(Debug)]
struct State {
    index: Index,
    /// Layers that loads under way build on: not to be deleted, though no image may name them yet.
    pinned: HashMap<ChainId, usize>,
    /// Images that somebody is about to use: not to be removed, though no container may be made of them yet.
    held: HashMap<ImageId, usize>,
    /// How many holds were let go.
    released: u64,
}

impl Images {
    /// Opens the store in `root`, which is made when absent, and cleans up what a crash left in it.
    ///
    /// # Errors
    /// [`ImageError::Locked`] when another process has it open, [`ImageError::BadIndex`] when its index is damaged.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        Self::open_with(root, Limits::default())
    }

    /// As [`Images::open`], with other limits.
    ///
    /// # Errors
    /// As [`Images::open`].
    pub fn open_with(root: &Path, limits: Limits) -> Result<Self, ImageError> {
        for dir in ["", "blobs/sha256", "layers", "l", "tmp", "l/empty"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(ImageError::io("create", &dir))?;
        }
        let root = fs::canonicalize(root).map_err(ImageError::io("resolve", root))?;
        let lock = lock(&root)?;
        overlay::unmount_below(&root.join("tmp"))?;
        layers::empty_dir(&root.join("tmp"))?;
        let index = Index::read(&root)?;
        let store = Self {
            root,
            limits,
            state: Arc::new(Mutex::new(State { index, pinned: HashMap::new(), held: HashMap::new(), released: 0 })),
            counter: AtomicU64::new(0),
            _lock: lock,
        };
        store.collect(&mut store.state())?;
        Ok(store)
    }

    /// Takes in every image of an archive: what `docker save` writes, or an OCI layout in a tar; the archive and its layers
    /// plain or compressed with gzip or zstd. Either all images of it are in the store afterwards or nothing has changed.
    /// A name that another image had moves to the new one.
    ///
    /// # Errors
    /// Says what is wrong with the archive; see [`ImageError`].
    pub fn load(&self, archive: impl Read, progress: &mut dyn FnMut(LoadEvent)) -> Result<Vec<Loaded>, ImageError> {
        load::load(self, archive, progress)
    }

    /// All images, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Image> {
        self.state().index.images.values().cloned().collect()
    }

    /// The image that a person means: by id (with or without `sha256:`), by reference (`nginx` is
    /// `docker.io/library/nginx:latest`), or by a prefix of its id that no other image has.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Image, ImageError> {
        self.state().index.find(text).map(|found| found.image)
    }

    /// Gives `image` one more name, taking it from the image that had it.
    ///
    /// # Errors
    /// [`ImageError::NotFound`]; [`ImageError::TagWithDigest`].
    pub fn tag(&self, image: &ImageId, reference: &ImageRef) -> Result<(), ImageError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        index.tag(image, reference)?;
        index.write(&self.root)?;
        state.index = index;
        Ok(())
    }

    /// Takes away the name `text`, or the image with that id; an image without names is deleted. An image in `in_use` or held is
    /// never deleted, and keeps its last name.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], [`ImageError::InUse`], [`ImageError::ManyReferences`];
    /// [`ImageError::Moved`] when `in_use` is too old to tell.
    pub fn remove(&self, text: &str, removal: Removal, in_use: &InUse) -> Result<Vec<Removed>, ImageError> {
        let mut state = self.state();
        let in_use = in_use.and_held(&state)?;
        let mut index = state.index.clone();
        let removed = index.remove(text, removal, &in_use)?;
        index.write(&self.root)?;
        state.index = index;
        self.collect(&mut state)?;
        Ok(removed)
    }

    /// Mounts a root file system of `image` for the container that owns the directory `at`: `at/rootfs`, with what the
    /// container writes going to `at/upper`. Does nothing when it is mounted already.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Mount`].
    pub fn mount(&self, image: &ImageId, at: &Path) -> Result<PathBuf, ImageError> {
        let state = self.state();
        let layers = match state.index.images.get(image) {
            Some(found) => found.layers.clone(),
            None => return Err(ImageError::NotFound(image.to_string())),
        };
        overlay::mount_container(&self.root, &layers, at)
    }

    /// Unmounts what [`Images::mount`] mounted; does nothing when nothing is mounted. The directories below `at` stay.
    ///
    /// # Errors
    /// [`ImageError::Mount`].
    pub fn unmount(&self, at: &Path) -> Result<(), ImageError> {
        overlay::unmount_container(at)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced as a whole, so a thread that panicked cannot have left half of a change in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new directory for work under way, deleted when the value is dropped.
    fn scratch(&self) -> Result<layers::Scratch, ImageError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        layers::Scratch::new(self.root.join("tmp").join(number.to_string()))
    }

    /// Deletes the layers and blobs that no image and no load under way needs.
    fn collect(&self, state: &mut State) -> Result<(), ImageError> {
        let mut layers: BTreeSet<ChainId> = state.pinned.keys().copied().collect();
        layers.extend(state.index.images.values().flat_map(|image| image.layers.iter().copied()));
        let scratch = self.scratch()?;
        layers::keep_only(&self.root, &layers, scratch.path())?;
        let configs = state.index.images.keys().map(ImageId::hex).collect();
        layers::keep_only_blobs(&self.root, &configs)
    }
}

/// Locks the store for this process; the kernel lets go when the process ends, however it ends.
fn lock(root: &Path) -> Result<File, ImageError> {
    let path = root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(ImageError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ImageError::Locked(root.to_owned())),
        Err(TryLockError::Error(source)) => Err(ImageError::io("lock", &path)(source)),
    }
}
