//! Volumes: directories that outlive containers, and file systems that are mounted as long as a container needs them.
//!
//! A volume is a directory below the root; what must survive the daemon is in it:
//!
//! ```text
//! volume.json        labels, driver options, whose it is
//! _data/             the content; the mount point of a volume with options
//! filling/           content on its way into an empty volume
//! ```
//!
//! Names beginning with a dot are volumes being made or removed. Who uses which volume is known from the containers on disk.

mod error;
mod fill;
mod mount;
mod size;
mod using;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skep_model::{LocalVolume, Timestamp, check_volume_name};

use crate::container::ContainerId;
use crate::events::{NodeEvents, VolumeAction};
use crate::files;
pub use error::VolumeError;
use using::Use;
pub(crate) use using::{Content, Live};

/// What a volume is, in its directory.
const VOLUME: &str = "volume.json";
/// Its content.
const DATA: &str = "_data";
/// Begins the name of a directory whose content is becoming that of a volume.
const ADOPTED: &str = ".adopted-";

/// The label of volumes whose names nobody chose, as Docker has it: what `docker volume prune` removes without `--all`.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What the local driver was told.
    pub options: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// Where its content is on the node.
    pub mountpoint: PathBuf,
    /// The containers that it is mounted into, ended ones too.
    pub users: Vec<ContainerId>,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewVolume {
    /// Its name; `None` for one that is made up.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What the local driver is told.
    pub options: BTreeMap<String, String>,
}

/// [`VOLUME`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    created: Timestamp,
    /// The container that it goes with.
    #[serde(default)]
    owner: Option<ContainerId>,
}

/// The volumes of this node. All calls may block.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    events: NodeEvents,
    users: Mutex<BTreeMap<ContainerId, Use>>,
    /// One for each volume, so that what happens to it happens one after the other.
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Volumes {
    /// Opens the directory of volumes; makes it when absent. Clears away what an earlier daemon has left half done. What happens
    /// to volumes is told to `events`.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(root: &Path, events: NodeEvents) -> Result<Self, VolumeError> {
        fs::create_dir_all(root).map_err(VolumeError::io("create", root))?;
        let root = fs::canonicalize(root).map_err(VolumeError::io("resolve", root))?;
        let volumes = Self { root, events, users: Mutex::default(), locks: Mutex::default() };
        for name in volumes.entries()? {
            let dir = volumes.root.join(&name);
            if let Some(name) = name.strip_prefix(ADOPTED) {
                volumes.adopt_further(name)?;
            } else if name.starts_with('.') {
                remove_tree(&dir)?;
            } else if !dir.join(VOLUME).exists() {
                volumes.adopt(&name)?;
            }
        }
        Ok(volumes)
    }

    /// A directory that was put here by hand: one of Docker's, with its content in `_data`, is a volume as it is. Any other is the content of one,
    /// as in versions of skep whose volumes had no options.
    fn adopt(&self, name: &str) -> Result<(), VolumeError> {
        let dir = self.root.join(name);
        if check_volume_name(name).is_err() {
            tracing::warn!("{} is no volume and is left alone", dir.display());
            return Ok(());
        }
        if dir.join(DATA).is_dir() {
            return self.write(&dir, &Made::plain());
        }
        let aside = self.root.join(format!("{ADOPTED}{name}"));
        fs::create_dir_all(&aside).map_err(VolumeError::io("create", &aside))?;
        fs::rename(&dir, aside.join(DATA)).map_err(VolumeError::io("move", &dir))?;
        self.adopt_further(name)
    }

    fn adopt_further(&self, name: &str) -> Result<(), VolumeError> {
        let (dir, aside) = (self.root.join(name), self.root.join(format!("{ADOPTED}{name}")));
        if !aside.join(DATA).exists() {
            return remove_tree(&aside);
        }
        self.write(&aside, &Made::plain())?;
        fs::rename(&aside, &dir).map_err(VolumeError::io("move", &aside))
    }

    fn entries(&self) -> Result<Vec<String>, VolumeError> {
        let failed = || VolumeError::io("read", &self.root);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_type().map_err(failed())?.is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Use>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, name: &str) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }

    /// Where a volume's content is.
    #[must_use]
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    /// All volumes, by name. Damaged ones are left out with a warning.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let mut all = Vec::new();
        for name in self.entries()? {
            match self.read(&name) {
                Ok(Some(made)) => all.push(self.describe(name, made)),
                Ok(None) => {}
                Err(e) => tracing::warn!(volume = %name, "left out of the list: {e}"),
            }
        }
        Ok(all)
    }

    /// One volume.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub fn find(&self, name: &str) -> Result<Volume, VolumeError> {
        let made = self.read(name)?.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        Ok(self.describe(name.to_owned(), made))
    }

    /// Bytes of a volume's content; `None` for one that is elsewhere, where it cannot be told what it takes here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn size(&self, volume: &Volume) -> Result<Option<u64>, VolumeError> {
        if !volume.options.is_empty() {
            return Ok(None);
        }
        size::of(&volume.mountpoint).map(Some).map_err(VolumeError::io("measure", &volume.mountpoint))
    }

    fn describe(&self, name: String, made: Made) -> Volume {
        let mountpoint = self.mountpoint(&name);
        let users = self.users_of(&name, |_| true);
        let Made { labels, options, created, .. } = made;
        Volume { name, labels, options, created, mountpoint, users }
    }

    fn users_of(&self, name: &str, which: impl Fn(&Use) -> bool) -> Vec<ContainerId> {
        let users = self.users();
        let of_it = users.iter().filter(|(_, used)| used.names.contains(name) && which(used));
        of_it.map(|(id, _)| id.clone()).collect()
    }

    fn read(&self, name: &str) -> Result<Option<Made>, VolumeError> {
        if check_volume_name(name).is_err() {
            return Ok(None);
        }
        let path = self.root.join(name).join(VOLUME);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| VolumeError::Damaged { path, reason: e.to_string() }),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(VolumeError::io("read", &path)(e)),
        }
    }

    /// Makes a volume. One that is there already and does not differ is as good: it is returned, with the labels that it has.
    ///
    /// # Errors
    /// A name or an option that cannot be; [`VolumeError::Differs`].
    pub fn create(&self, new: &NewVolume) -> Result<Volume, VolumeError> {
        let name = new.name.clone().unwrap_or_else(made_up_name);
        check_volume_name(&name)?;
        LocalVolume::of(&new.options)?;
        let lock = self.lock(&name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.made(&name, &Made::new(new, None))?;
        Ok(self.describe(name, made))
    }

    /// The volume of that name, made when there is none. Whoever calls has its lock.
    fn made(&self, name: &str, wanted: &Made) -> Result<Made, VolumeError> {
        if let Some(made) = self.read(name)? {
            let differs = !wanted.options.is_empty() && wanted.options != made.options;
            return if differs { Err(VolumeError::Differs(name.to_owned())) } else { Ok(made) };
        }
        // Made aside and renamed, so that a crash leaves no half of it.
        let (dir, aside) = (self.root.join(name), self.root.join(format!(".new-{}", unique())));
        let data = aside.join(DATA);
        fs::create_dir_all(&data).map_err(VolumeError::io("create", &data))?;
        self.write(&aside, wanted)?;
        fs::rename(&aside, &dir).map_err(VolumeError::io("create", &dir))?;
        self.events.volume(name, VolumeAction::Create);
        Ok(wanted.clone())
    }

    fn write(&self, dir: &Path, made: &Made) -> Result<(), VolumeError> {
        files::write(dir, VOLUME, made)
            .map_err(|e| VolumeError::io("write", &dir.join(VOLUME))(io::Error::other(e.to_string())))
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::InUse`].
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let lock = self.lock(name);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.read(name)?.is_none() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let by = self.users_of(name, |_| true);
        if !by.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), by });
        }
        self.delete(name)
    }

    /// Unmounts what may be mounted there. Whoever calls has its lock.
    fn unmount(&self, name: &str) -> Result<(), VolumeError> {
        let place = self.mountpoint(name);
        if mount::is_mounted(&place) {
            mount::unmount(&place)?;
            self.events.volume(name, VolumeAction::Unmount);
        }
        Ok(())
    }

    /// Whoever calls has its lock. Never reaches into what is mounted there.
    fn delete(&self, name: &str) -> Result<(), VolumeError> {
        self.unmount(name)?;
        let (dir, aside) = (self.root.join(name), self.root.join(format!(".old-{}", unique())));
        fs::rename(&dir, &aside).map_err(VolumeError::io("remove", &dir))?;
        self.events.volume(name, VolumeAction::Destroy);
        remove_tree(&aside)
    }
}

impl Made {
    fn plain() -> Self {
        Self { labels: BTreeMap::new(), options: BTreeMap::new(), created: Timestamp::now(), owner: None }
    }

    fn new(new: &NewVolume, owner: Option<ContainerId>) -> Self {
        let NewVolume { name, mut labels, options } = new.clone();
        if name.is_none() {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        Self { labels, options, created: Timestamp::now(), owner }
    }
}

fn remove_tree(dir: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(VolumeError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}

/// A number that no other work under way has.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn made_up_name() -> String {
    let now = Timestamp::now().as_nanosecond();
    hex::encode(Sha256::digest(format!("{now}/{}", unique())))
}

#[cfg(test)]
mod tests;
