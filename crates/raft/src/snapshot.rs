//! Snapshot files: the state at one index of the log, as bytes that prove that they are whole.
//!
//! Layout: a line that says what it is, the SHA-256 of all that follows, and then, compressed with zstd, the length of the Raft
//! part (4 bytes, big endian), the Raft part (JSON) and the tables as [`Tables::encode`] writes them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use skep_store::Tables;

use crate::RaftError;
use crate::types::SnapshotMeta;

const HEADER: &[u8] = b"skep-raft-snapshot 1\n";
const DIGEST: usize = 32;
const PREFIX: &str = "snap-";
/// A file that is being written. What a crash leaves of it is removed at the next start.
const ASIDE: &str = "snap.new";
/// More than any state that fits a manager's memory; a damaged file must not exhaust it.
const LIMIT: u64 = 4 << 30;

/// A snapshot's file as bytes.
pub(crate) fn encode(meta: &SnapshotMeta, tables: &Tables) -> std::io::Result<Bytes> {
    let meta = serde_json::to_vec(meta)?;
    let length = u32::try_from(meta.len()).map_err(std::io::Error::other)?;
    let mut packer = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
    packer.write_all(&length.to_be_bytes())?;
    packer.write_all(&meta)?;
    packer.write_all(&tables.encode())?;
    let packed = packer.finish()?;
    Ok([HEADER, &Sha256::digest(&packed), &packed].concat().into())
}

/// The snapshot that [`encode`] wrote, or what is wrong with it.
pub(crate) fn decode(file: &[u8]) -> Result<(SnapshotMeta, Tables), String> {
    let rest = file.strip_prefix(HEADER).ok_or("it does not begin with \"skep-raft-snapshot 1\"")?;
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

/// A snapshot that was found on disk and is whole.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) meta: SnapshotMeta,
    pub(crate) tables: Tables,
}

/// Where the snapshot up to `index` is.
fn path(dir: &Path, index: u64) -> PathBuf {
    // Of equal length, so that they sort by index.
    dir.join(format!("{PREFIX}{index:020}"))
}

/// Writes a snapshot aside, makes it durable, gives it its name, and removes the ones before it.
pub(crate) fn save(dir: &Path, meta: &SnapshotMeta, file: &[u8]) -> std::io::Result<PathBuf> {
    let aside = dir.join(ASIDE);
    let mut out = File::create(&aside)?;
    out.write_all(file)?;
    out.sync_all()?;
    let target = path(dir, meta.last_log_id.map_or(0, |id| id.index));
    std::fs::rename(&aside, &target)?;
    // The name is durable when the directory is.
    File::open(dir)?.sync_all()?;
    for older in list(dir)?.into_iter().filter(|found| *found < target) {
        std::fs::remove_file(older)?;
    }
    Ok(target)
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

/// The newest snapshot that is whole. `purged` is the index up to which the log is gone: an older snapshot is of no use then.
///
/// # Errors
/// When there is none although the log needs one, with the newest damaged one as the reason.
pub(crate) fn newest(dir: &Path, purged: Option<u64>) -> Result<Option<Found>, RaftError> {
    let io = |why: std::io::Error| RaftError::io(dir, &why);
    match std::fs::remove_file(dir.join(ASIDE)) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(io(why)),
        _ => {}
    }
    let mut damaged = None;
    for path in list(dir).map_err(io)?.into_iter().rev() {
        let file = std::fs::read(&path).map_err(|why| RaftError::io(&path, &why))?;
        match decode(&file) {
            Ok((meta, tables)) if purged <= meta.last_log_id.map(|id| id.index) => {
                if let Some(error) = damaged {
                    tracing::error!(%error, used = %path.display(), "an older snapshot is used; the log makes up for it");
                }
                return Ok(Some(Found { path, meta, tables }));
            }
            Ok(_) => break,
            Err(why) => damaged = damaged.or(Some(RaftError::snapshot(&path, &why))),
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
