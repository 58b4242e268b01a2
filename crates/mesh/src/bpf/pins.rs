//! The directory of pins: what outlives the daemon. Below it: a file for each map, `programs/<program>-<object>` for each program, and
//! `links/<program>-<ifindex>` for each attachment.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::layout::{self, LAYOUT};
use crate::datapath::DatapathError;

/// Every map by its name in the object.
pub(super) const MAPS: [&str; 23] = [
    "node",
    "ports",
    "addresses",
    "networks",
    "frontends",
    "vips",
    "prefixes",
    "ways",
    "tables",
    "backends",
    "suspects",
    "peers",
    "locals",
    "flows",
    "detours",
    "fragments",
    "held",
    "scratch",
    "proofs",
    "counters",
    "port_counters",
    "drops",
    "events",
];

#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Makes sure that `dir` can hold pins, mounting a bpffs of its own there if it lies in none.
    pub(super) fn open(dir: &Path) -> Result<Self, DatapathError> {
        let failed = |source| DatapathError::PinDir { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let found = statfs(dir).map_err(|e| failed(e.into()))?;
        if found.filesystem_type() != BPF_FS_MAGIC {
            let options = Some("mode=0700");
            mount(
                Some("bpffs"),
                dir,
                Some("bpf"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                options,
            )
            .map_err(|e| failed(e.into()))?;
        }
        fs::create_dir_all(dir.join("links")).map_err(failed)?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    /// Whether no map is missing.
    pub(super) fn has_all_maps(&self) -> bool {
        self.pinned_maps().count() == MAPS.len()
    }

    /// Refuses maps that this skep cannot read while they are in use, and clears them away when they are not.
    pub(super) fn check_layout(&self) -> Result<(), DatapathError> {
        let found = match self.layout() {
            Some(LAYOUT) => return Ok(()),
            Some(found) => found,
            None if self.pinned_maps().next().is_none() => return Ok(()),
            None => 0,
        };
        let attached = fs::read_dir(self.links()).map_err(|e| self.failed(e))?.next().is_some();
        if attached {
            return Err(DatapathError::Layout { dir: self.dir.clone(), found, known: LAYOUT });
        }
        self.remove_programs()?;
        self.pinned_maps().try_for_each(|path| fs::remove_file(&path)).map_err(|e| self.failed(e))
    }

    /// Programs that run somewhere run on without their pins.
    pub(super) fn remove_programs(&self) -> Result<(), DatapathError> {
        match fs::remove_dir_all(self.programs()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed(e)),
            _ => Ok(()),
        }
    }

    /// The layout of the pinned maps; it is the first word of `node` in every version, and 0 until they are complete.
    fn layout(&self) -> Option<u32> {
        let data = MapData::from_pin(self.dir.join("node")).ok()?;
        if data.info().ok()?.value_size() as usize != size_of::<layout::Node>() {
            return None;
        }
        let map = Map::from_map_data(data).ok()?;
        let node: layout::Node = Array::try_from(map).ok()?.get(&0, 0).ok()?;
        Some(node.layout)
    }

    fn pinned_maps(&self) -> impl Iterator<Item = PathBuf> {
        MAPS.iter().map(|name| self.dir.join(name)).filter(|path| path.exists())
    }

    /// Removes all pins and the mount, if it is this daemon's. Goes on after a failure and reports the first.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        let mut first = Ok(());
        let links = fs::read_dir(self.links()).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in links.chain(self.pinned_maps()) {
            first = first.and(fs::remove_file(&path));
        }
        first = first.and(fs::remove_dir(self.links())).and(fs::remove_dir_all(self.programs()));
        if is_mount_point(&self.dir) {
            first = first.and(umount2(&self.dir, MntFlags::MNT_DETACH).map_err(io::Error::from));
        }
        first = first.and(fs::remove_dir(&self.dir));
        match first {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, source: io::Error) -> DatapathError {
        DatapathError::PinDir { dir: self.dir.clone(), source }
    }
}

/// Whether a file system begins here: the directory is on another device than the one above it.
fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    dir.parent().is_some_and(|above| device(above) != device(dir))
}
