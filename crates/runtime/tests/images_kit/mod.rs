//! What the tests of images share: stores in temporary directories, and archives made of raw tar entries.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use skep_runtime::images::{Digest, ImageError, Images, Limits, Loaded};
use tar::EntryType;

/// A store in a directory of its own, with a canary beside it that no layer may touch.
pub(crate) struct Bench {
    pub(crate) images: Images,
    pub(crate) dir: tempfile::TempDir,
    mounted: std::cell::RefCell<Vec<PathBuf>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test unpacks and mounts images: run it as root");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("canary")).unwrap();
        fs::write(dir.path().join("canary/file"), "untouched").unwrap();
        let images = Images::open_with(&dir.path().join("store"), limits).unwrap();
        Self { images, dir, mounted: Default::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn load(&self, archive: impl Read) -> Result<Vec<Loaded>, ImageError> {
        self.images.load(archive, &mut |_| {})
    }

    /// The root file system of the image called `name`.
    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        let at = self.path(&format!("c{}", self.mounted.borrow().len()));
        let image = self.images.find(name).unwrap();
        self.mounted.borrow_mut().push(at.clone());
        self.images.mount(&image.id, &at).unwrap()
    }

    /// Everything in the store but the lock: path, size and time of change of content.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, (u64, i64)> {
        let mut found = BTreeMap::new();
        walk(&self.path("store"), &mut found);
        found.retain(|path, _| !path.ends_with("lock") && !path.ends_with("tmp"));
        found
    }

    pub(crate) fn assert_canary(&self) {
        assert_eq!(fs::read_to_string(self.path("canary/file")).unwrap(), "untouched");
        let names: Vec<_> = fs::read_dir(self.path("canary")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::metadata(self.path("canary/file")).unwrap().nlink(), 1);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for at in self.mounted.borrow().iter() {
            self.images.unmount(at).unwrap();
        }
    }
}

fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, (u64, i64)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.insert(path.clone(), (0, 0));
            walk(&path, found);
        } else {
            found.insert(path, (meta.len(), meta.mtime_nsec()));
        }
    }
}

/// A tar of raw entries: nothing checks or mends the names.
#[derive(Default, Clone)]
pub(crate) struct Raw {
    bytes: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
}

impl Raw {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), mode: 0o644, owner: (0, 0) }
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub(crate) fn entry(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(1_000_000_000);
        if kind == EntryType::Char || kind == EntryType::Block {
            let (major, minor) = link.split_once(':').unwrap();
            header.as_old_mut().linkname.fill(0);
            header.set_device_major(major.parse().unwrap()).unwrap();
            header.set_device_minor(minor.parse().unwrap()).unwrap();
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", data.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        let mode = self.mode;
        let mut made = self.mode(0o755).entry(EntryType::Directory, name, "", b"");
        made.mode = mode;
        made
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    /// Attributes for the entry that comes next.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data += &format!("{length} {key}={value}\n");
        }
        self.entry(EntryType::XHeader, "pax", "", data.as_bytes())
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// As it is, cut off.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A `docker save` archive of one image with these layers.
pub(crate) fn saved(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    packed(name, layers, layers)
}

/// As [`saved`], with layers that are stored in another form than the one that the config speaks of.
pub(crate) fn packed(name: &str, layers: &[Vec<u8>], stored: &[Vec<u8>]) -> Vec<u8> {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = config.to_string();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": names }]);
    let mut archive = Raw::new();
    for (name, layer) in names.iter().zip(stored) {
        archive = archive.entry(EntryType::Regular, name, "", layer);
    }
    archive.file("config.json", &config).file("manifest.json", &manifest.to_string()).finish()
}
