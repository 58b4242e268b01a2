//! The store's files: layers and blobs, written aside and put in place by renaming, deleted the same way.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::digest::{ChainId, Digest};
use super::error::ImageError;

/// A directory that is deleted, with all in it, when the value is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(path: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir(&path).map_err(ImageError::io("create", &path))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot delete temporary files; they go at the next start");
        }
    }
}

/// What is kept beside a layer's files.
#[derive(Serialize, Deserialize)]
pub(super) struct LayerInfo {
    /// The layer below, if any.
    pub(super) parent: Option<ChainId>,
    /// Bytes in its files.
    pub(super) size: u64,
}

pub(super) fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

pub(super) fn layer_path(root: &Path, chain: &ChainId) -> PathBuf {
    root.join("layers").join(chain.hex())
}

/// The name of a layer's link in `l/`: 80 bits of its chain id.
pub(super) fn link_name(chain: &ChainId) -> String {
    chain.hex()[..20].to_owned()
}

/// The size of a complete layer; an error when the store has no such layer.
pub(super) fn size(root: &Path, chain: &ChainId) -> Result<u64, ImageError> {
    let path = layer_path(root, chain).join("layer.json");
    let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
    let info: LayerInfo = serde_json::from_slice(&bytes).map_err(ImageError::io("read", &path))?;
    Ok(info.size)
}

/// Puts the finished layer in `made` (its `diff` directory and nothing else) in its place.
pub(super) fn add_layer(root: &Path, chain: &ChainId, made: &Path, info: &LayerInfo) -> Result<(), ImageError> {
    let path = made.join("layer.json");
    let text = serde_json::to_vec(info).map_err(ImageError::io("write", &path))?;
    fs::write(&path, text).map_err(ImageError::io("write", &path))?;
    ensure_link(root, chain)?;
    let place = layer_path(root, chain);
    fs::rename(made, &place).map_err(ImageError::io("rename to", &place))
}

/// Makes the layer's short name in `l/`, which may have been lost with a crash.
pub(super) fn ensure_link(root: &Path, chain: &ChainId) -> Result<PathBuf, ImageError> {
    let link = root.join("l").join(link_name(chain));
    let target = PathBuf::from("../layers").join(chain.hex()).join("diff");
    let right = || fs::read_link(&link).is_ok_and(|there| there == target);
    match fs::read_link(&link) {
        Ok(there) if there == target => return Ok(link),
        Ok(_) => fs::remove_file(&link).map_err(ImageError::io("replace", &link))?,
        Err(_) => {}
    }
    match symlink(&target, &link) {
        // Another thread was quicker.
        Err(_) if right() => Ok(link),
        made => made.map(|()| link.clone()).map_err(ImageError::io("create", &link)),
    }
}

/// Writes a blob under its digest, durably. Bytes that are there already are left.
pub(super) fn add_blob(root: &Path, bytes: &[u8]) -> Result<Digest, ImageError> {
    let digest = Digest::of(bytes);
    let path = blob_path(root, &digest);
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(digest);
    }
    replace_file(&root.join("tmp"), &path, bytes)?;
    Ok(digest)
}

/// Replaces `path` by a file with `bytes`: written aside in `aside`, made durable, renamed.
pub(super) fn replace_file(aside: &Path, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let temporary = aside.join(format!("file-{}", COUNTER.fetch_add(1, Ordering::Relaxed)));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    })();
    written.map_err(|error: io::Error| {
        let _ = fs::remove_file(&temporary);
        ImageError::io("write", path)(error)
    })
}

/// Makes everything that was written to the store's file system durable.
pub(super) fn sync(root: &Path) -> Result<(), ImageError> {
    let dir = File::open(root).map_err(ImageError::io("open", root))?;
    rustix::fs::syncfs(&dir).map_err(ImageError::io("sync", root))
}

/// Deletes the layers that are not in `keep`: moved to `aside` first, so that a crash never leaves half a layer in place.
pub(super) fn keep_only(root: &Path, keep: &BTreeSet<ChainId>, aside: &Path) -> Result<(), ImageError> {
    let names: BTreeSet<String> = keep.iter().map(ChainId::hex).collect();
    for name in entries(&root.join("layers"))? {
        if !names.contains(&name) {
            let from = root.join("layers").join(&name);
            fs::rename(&from, aside.join(&name)).map_err(ImageError::io("delete", &from))?;
        }
    }
    let links: BTreeSet<String> = keep.iter().map(link_name).collect();
    for name in entries(&root.join("l"))? {
        if name != "empty" && !links.contains(&name) {
            let link = root.join("l").join(name);
            fs::remove_file(&link).map_err(ImageError::io("delete", &link))?;
        }
    }
    Ok(())
}

/// Deletes the blobs that are not in `keep`, which has hexadecimal digests.
pub(super) fn keep_only_blobs(root: &Path, keep: &BTreeSet<String>) -> Result<(), ImageError> {
    let dir = root.join("blobs/sha256");
    for name in entries(&dir)?.into_iter().filter(|name| !keep.contains(name)) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(ImageError::io("delete", &path))?;
    }
    Ok(())
}

/// Deletes everything in `dir`.
pub(super) fn empty_dir(dir: &Path) -> Result<(), ImageError> {
    for name in entries(dir)? {
        let path = dir.join(name);
        let kind = fs::symlink_metadata(&path).map_err(ImageError::io("delete", &path))?;
        let gone = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.map_err(ImageError::io("delete", &path))?;
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<String>, ImageError> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let read = || fs::read_dir(dir)?.map(name).collect::<io::Result<Vec<String>>>();
    read().map_err(ImageError::io("list", dir))
}
