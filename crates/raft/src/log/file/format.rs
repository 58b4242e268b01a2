//! The one fact that can be read without a key: the file's format, and with which key the others are sealed.

use std::fs::File;
use std::path::Path;

use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DIGEST, FACTS, FORMAT, FileError, LOG, MEMBER, VERSION, fact_name, json};
use crate::vault::{UnlockKey, Vault};
use crate::{RaftError, snapshot};

/// What a file says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Format {
    version: u32,
    /// The fingerprint of the data key.
    key: String,
}

/// Of any version.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

impl Format {
    /// The key in `dir`, if it is the one.
    pub(super) fn vault(&self, dir: &Path, unlock: Option<&UnlockKey>) -> Result<Vault, RaftError> {
        let vault = Vault::open(dir, unlock)?;
        match vault.fingerprint() == self.key {
            true => Ok(vault),
            false => Err(RaftError::OtherKey { path: vault.path().to_owned() }),
        }
    }
}

/// What the file says of itself.
pub(super) fn read(database: &Database) -> Result<Format, FileError> {
    let facts = database.begin_read()?.open_table(FACTS)?;
    // The first format did not say which it was.
    let value = facts.get(FORMAT)?.ok_or(FileError::Format(1))?;
    decode(value.value())
}

pub(super) fn decode(value: &[u8]) -> Result<Format, FileError> {
    let what = || "the fact \"format\"".to_owned();
    let (body, found) = value.split_last_chunk::<DIGEST>().ok_or_else(|| FileError::Seal(what()))?;
    if digest(body) != *found {
        return Err(FileError::Seal(what()));
    }
    let AnyVersion { version } = serde_json::from_slice(body).map_err(|why| FileError::Json(what(), why))?;
    if version != VERSION {
        return Err(FileError::Format(version));
    }
    serde_json::from_slice(body).map_err(|why| FileError::Json(what(), why))
}

fn digest(body: &[u8]) -> [u8; DIGEST] {
    *Sha256::digest(body).first_chunk().expect("a SHA-256 is longer")
}

/// Makes the file, and the key beside it if there is none: aside, and then in its place, so that a crash or a full disk in the middle
/// leaves nothing that passes for a damaged log.
pub(super) fn make(path: &Path, member: u64, unlock: Option<&UnlockKey>) -> Result<(), RaftError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let io = |why: std::io::Error| RaftError::io(path, &why);
    let only = File::open(dir).map_err(io)?;
    only.try_lock().map_err(|_| RaftError::LogInUse { path: path.to_owned() })?;
    if path.exists() {
        return Ok(());
    }
    if snapshot::exists(dir).map_err(io)? {
        return Err(RaftError::log(path, &"it is missing, though there is a snapshot of it"));
    }
    let vault = Vault::open_or_make(dir, unlock)?;
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(io(why)),
        _ => {}
    }
    let database = Database::create(&aside).map_err(|why| FileError::from(why).of(&aside))?;
    claim(&database, &vault, member).map_err(|why| why.of(&aside))?;
    drop(database);
    std::fs::rename(&aside, path).map_err(io)?;
    // The name is durable when the directory is.
    only.sync_all().map_err(io)
}

/// Writes in a new file what it is and whose.
fn claim(database: &Database, vault: &Vault, member: u64) -> Result<(), FileError> {
    let transaction = database.begin_write()?;
    {
        // Both tables exist from now on, so that a reader need not care.
        transaction.open_table(LOG)?;
        let mut facts = transaction.open_table(FACTS)?;
        let mut format = json(&Format { version: VERSION, key: vault.fingerprint() });
        let digest = digest(&format);
        format.extend_from_slice(&digest);
        facts.insert(FORMAT, format.as_slice())?;
        facts.insert(MEMBER, vault.seal(&fact_name(MEMBER), &json(&member)).as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// As [`make`], for a file that may be there already.
#[cfg(test)]
pub(super) fn claim_simulated(database: &Database, path: &Path, member: u64) -> Result<(), RaftError> {
    let fresh = database.begin_read().unwrap().list_tables().unwrap().count() == 0;
    let vault = Vault::open_or_make(path.parent().unwrap_or(Path::new(".")), None)?;
    if fresh { claim(database, &vault, member).map_err(|why| why.of(path)) } else { Ok(()) }
}
