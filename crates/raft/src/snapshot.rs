//! Snapshots: the state at one index of the log, as bytes that prove that they are whole, and the files that hold them.
//!
//! As they travel: a line that says what it is, the SHA-256 of all that follows, and then, compressed with zstd, the length of the
//! Raft part (4 bytes, big endian), the Raft part (JSON) and the tables as [`Tables::encode`] writes them. A file is a line that says
//! which format it has, and then that, sealed as the name of the file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use skep_store::Tables;

use crate::RaftError;
use crate::types::SnapshotMeta;
use crate::vault::Vault;

const HEADER: &[u8] = b"skep-raft-state 1\n";
/// How every file begins; the number of its format and the end of the line follow.
const FILE_HEADER: &[u8] = b"skep-raft-snapshot ";
/// The format of files. The first one was not sealed.
const VERSION: u32 = 2;
const DIGEST: usize = 32;
const PREFIX: &str = "snap-";
/// A file that is being written. What a crash leaves of it is removed at the next start.
const ASIDE: &str = "snap.new";
/// More than any state that fits a manager's memory; a damaged file must not exhaust it.
const LIMIT: u64 = 4 << 30;

/// A snapshot as bytes.
pub(crate) fn encode(meta: &SnapshotMeta, tables: &Tables) -> std::io::Result<Bytes> {
    pack(&content(meta, tables)?)
}

/// What is in the file.
pub(crate) fn content(meta: &SnapshotMeta, tables: &Tables) -> std::io::Result<Vec<u8>> {
    let meta = serde_json::to_vec(meta)?;
    let length = u32::try_from(meta.len()).map_err(std::io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &meta, &tables.encode()].concat())
}

/// The file that has this in it.
pub(crate) fn pack(content: &[u8]) -> std::io::Result<Bytes> {
    let mut packer = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
    packer.write_all(content)?;
    let packed = packer.finish()?;
    Ok([HEADER, &Sha256::digest(&packed), &packed].concat().into())
}

/// The snapshot that [`encode`] wrote, or what is wrong with it.
pub(crate) fn decode(file: &[u8]) -> Result<(SnapshotMeta, Tables), String> {
    let rest = file.strip_prefix(HEADER).ok_or("it does not begin with \"skep-raft-state 1\"")?;
    let (digest, packed) = rest.split_at_checked(DIGEST).ok_or("it is cut off")?;
    if Sha256::digest(packed).as_slice() != digest {
        return Err("its checksum does not match: it is cut off or was changed".to_owned());
    }
    let mut plain = Vec::new();
    let unpacker = zstd::Decoder::new(packed).map_err(|e| e.to_string())?;
    unpacker.take(LIMIT).read_to_end(&mut plain).map_err(|e| e.to_string())?;
    let (length, rest) = plain.split_first_chunk::<4>().ok_or("it is too short")?;
    let (meta, tables) =
        rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("its Raft part is cut off")?;
    let meta = serde_json::from_slice(meta).map_err(|e| e.to_string())?;
    Ok((meta, Tables::decode(tables).map_err(|e| e.to_string())?))
}

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq)]
enum Unusable {
    Format(u32),
    Damaged(String),
}

/// The file of a snapshot.
fn seal(vault: &Vault, name: &[u8], snapshot: &[u8]) -> Vec<u8> {
    [FILE_HEADER, format!("{VERSION}\n").as_bytes(), &vault.seal(name, snapshot)].concat()
}

/// The snapshot that is in a file of this name.
fn unseal(vault: &Vault, name: &[u8], file: &[u8]) -> Result<Vec<u8>, Unusable> {
    let none = || Unusable::Damaged("it does not begin with \"skep-raft-snapshot\" and a number".to_owned());
    let rest = file.strip_prefix(FILE_HEADER).ok_or_else(none)?;
    let end = rest.iter().take(11).position(|byte| *byte == b'\n').ok_or_else(none)?;
    let version = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok()).ok_or_else(none)?;
    if version != VERSION {
        return Err(Unusable::Format(version));
    }
    let sealed = &rest[end + 1..];
    let changed = || Unusable::Damaged("it is cut off, was changed, or was sealed with another key".to_owned());
    vault.unseal(name, sealed).ok_or_else(changed)
}

fn unseal_and_decode(vault: &Vault, path: &Path, file: &[u8]) -> Result<(SnapshotMeta, Tables), Unusable> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    decode(&unseal(vault, name, file)?).map_err(Unusable::Damaged)
}

/// The snapshot in the file at `path`, as it travels.
pub(crate) fn load(vault: &Vault, path: &Path) -> Result<Bytes, RaftError> {
    let file = std::fs::read(path).map_err(|why| RaftError::io(path, &why))?;
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    unseal(vault, name, &file).map(Bytes::from).map_err(|why| why.of(path))
}

impl Unusable {
    fn of(self, path: &Path) -> RaftError {
        match self {
            Self::Format(found) => RaftError::Format { path: path.to_owned(), found, known: VERSION },
            Self::Damaged(why) => RaftError::snapshot(path, &why),
        }
    }
}

/// A snapshot that was found on disk and is whole.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) meta: SnapshotMeta,
    pub(crate) tables: Tables,
}

/// The name of the file with the snapshot up to `index`.
fn name(index: u64) -> String {
    // Of equal length, so that they sort by index.
    format!("{PREFIX}{index:020}")
}

/// Writes a snapshot aside, makes it durable, gives it its name, and removes the ones before it.
///
/// # Errors
/// Then the ones before are still there, and nothing is left of the new one.
pub(crate) fn save(dir: &Path, vault: &Vault, meta: &SnapshotMeta, snapshot: &[u8]) -> Result<PathBuf, RaftError> {
    let name = name(meta.last_log_id.map_or(0, |id| id.index));
    let (aside, target) = (dir.join(ASIDE), dir.join(&name));
    let file = seal(vault, name.as_bytes(), snapshot);
    write_durably(&aside, &target, &file).map_err(|why| {
        // Half a file must not keep the disk full. An error here says that there is none.
        drop(std::fs::remove_file(&aside));
        RaftError::io(&aside, &why)
    })?;
    for older in list(dir).map_err(|why| RaftError::io(dir, &why))?.into_iter().filter(|found| *found < target) {
        std::fs::remove_file(&older).map_err(|why| RaftError::io(&older, &why))?;
    }
    Ok(target)
}

fn write_durably(aside: &Path, target: &Path, file: &[u8]) -> std::io::Result<()> {
    let mut out = File::create(aside)?;
    out.write_all(file)?;
    out.sync_all()?;
    std::fs::rename(aside, target)?;
    // The name is durable when the directory is.
    target.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// The files of snapshots, oldest first.
fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there is any.
pub(crate) fn exists(dir: &Path) -> std::io::Result<bool> {
    Ok(!list(dir)?.is_empty())
}

/// The newest snapshot that is whole. `purged` is the index up to which the log is gone: an older snapshot is of no use then.
///
/// # Errors
/// When there is none although the log needs one, with the newest damaged one as the reason.
pub(crate) fn newest(dir: &Path, vault: &Vault, purged: Option<u64>) -> Result<Option<Found>, RaftError> {
    let io = |why: std::io::Error| RaftError::io(dir, &why);
    match std::fs::remove_file(dir.join(ASIDE)) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(io(why)),
        _ => {}
    }
    let mut damaged = None;
    for path in list(dir).map_err(io)?.into_iter().rev() {
        let file = std::fs::read(&path).map_err(|why| RaftError::io(&path, &why))?;
        match unseal_and_decode(vault, &path, &file) {
            Ok((meta, tables)) if purged <= meta.last_log_id.map(|id| id.index) => {
                if let Some(error) = damaged {
                    tracing::error!(%error, used = %path.display(), "an older snapshot is used; the log makes up for it");
                }
                return Ok(Some(Found { path, meta, tables }));
            }
            Ok(_) => break,
            Err(why @ Unusable::Format(_)) => return Err(why.of(&path)),
            Err(why) => damaged = damaged.or(Some(why.of(&path))),
        }
    }
    match (damaged, purged) {
        (Some(error), Some(_)) => Err(error),
        (None, Some(purged)) => Err(RaftError::SnapshotMissing { path: dir.to_owned(), first: purged + 1 }),
        (damaged, None) => {
            if let Some(error) = damaged {
                tracing::error!(%error, "no snapshot is used; the log is complete");
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
