//! `key.json`: the data key, as it is or wrapped.
//!
//! A checksum of its own tells damage from a wrong unlock key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::unlock::wrapping;
use super::{KeyBytes, UnlockKey};
use crate::RaftError;

const VERSION: u32 = 1;
/// What a wrapped data key is sealed as.
const NAME: &[u8] = b"skep data key 1";
/// More than any key file has.
const LIMIT: u64 = 64 << 10;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyFile {
    version: u32,
    key: Stored,
    /// The beginning of a SHA-256 of `key`.
    check: String,
}

/// The data key in base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stored {
    Plain(String),
    Sealed(String),
}

/// Of any version.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("key.json")
}

impl Stored {
    fn check(&self) -> String {
        let (kind, text) = match self {
            Self::Plain(text) => ("plain", text),
            Self::Sealed(text) => ("sealed", text),
        };
        hex::encode(&Sha256::new().chain_update(kind).chain_update(text).finalize()[..8])
    }
}

impl KeyFile {
    fn of(data_key: &KeyBytes, unlock: Option<&UnlockKey>) -> Self {
        let key = match unlock {
            None => Stored::Plain(STANDARD.encode(data_key)),
            Some(unlock) => Stored::Sealed(STANDARD.encode(wrapping(unlock).seal(NAME, data_key))),
        };
        Self { version: VERSION, check: key.check(), key }
    }

    pub(super) fn is_locked(&self) -> bool {
        matches!(self.key, Stored::Sealed(_))
    }

    /// The data key. An unlock key that is not needed is not looked at.
    pub(super) fn data_key(&self, path: &Path, unlock: Option<&UnlockKey>) -> Result<KeyBytes, RaftError> {
        let damaged = || RaftError::KeyDamaged { path: path.to_owned(), why: "it holds no key".to_owned() };
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| damaged());
        let key = match &self.key {
            Stored::Plain(text) => bytes(text)?,
            Stored::Sealed(text) => {
                let unlock = unlock.ok_or(RaftError::Locked)?;
                wrapping(unlock).open(NAME, &bytes(text)?).ok_or(RaftError::WrongUnlockKey)?
            }
        };
        key.try_into().map_err(|_| damaged())
    }
}

/// What is in the file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<KeyFile>, RaftError> {
    let file = match File::open(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|why| RaftError::io(path, &why))?,
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LIMIT), &mut bytes).map_err(|why| RaftError::io(path, &why))?;
    decode(path, &bytes).map(Some)
}

/// The file that these bytes are.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<KeyFile, RaftError> {
    let damaged = |why: String| RaftError::KeyDamaged { path: path.to_owned(), why };
    let AnyVersion { version } = serde_json::from_slice(bytes).map_err(|why| damaged(why.to_string()))?;
    if version != VERSION {
        return Err(RaftError::Format { path: path.to_owned(), found: version, known: VERSION });
    }
    let file: KeyFile = serde_json::from_slice(bytes).map_err(|why| damaged(why.to_string()))?;
    if file.key.check() != file.check {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    Ok(file)
}

/// Reads it and the key in it.
#[cfg(feature = "fuzz")]
pub(crate) fn try_all(bytes: &[u8], unlock: &UnlockKey) {
    let path = Path::new("key.json");
    if let Ok(file) = decode(path, bytes) {
        let _ = file.data_key(path, Some(unlock));
    }
}

/// An open file, and a locked one.
#[cfg(feature = "fuzz")]
pub(crate) fn examples(unlock: &UnlockKey) -> Vec<Vec<u8>> {
    let file =
        |unlock| serde_json::to_vec_pretty(&KeyFile::of(&[7; 32], unlock)).expect("strings are representable in JSON");
    vec![file(None), file(Some(unlock))]
}

/// Replaces the file, or makes it: aside, for root alone, durable, and then in its place.
pub(super) fn write(path: &Path, data_key: &KeyBytes, unlock: Option<&UnlockKey>) -> Result<(), RaftError> {
    let text = serde_json::to_vec_pretty(&KeyFile::of(data_key, unlock)).expect("strings are representable in JSON");
    let aside = path.with_extension("new");
    let replace = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        // The name is durable when the directory is.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    replace().map_err(|why| RaftError::io(path, &why))
}
