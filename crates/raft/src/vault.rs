//! What keeps the log and the snapshots from being read or changed by others: the member's data key.
//!
//! Everything that a member writes is sealed with AES-256-GCM under its data key: 32 random bytes, made with the member's directory
//! and never sent anywhere. What a value is ("entry 7", "the fact vote") is authenticated with it, so that a value put in the place of
//! another one does not open. Nonces are random; NIST SP 800-38D allows 2^32 of them for one key, which at a hundred
//! commits a second lasts for months, and 2^-32 is then the chance that one occurred twice.
//!
//! The data key is in [`key_file`]: as it is, for root alone, or wrapped under a key that the operator keeps ([`UnlockKey`]).

pub(crate) mod key_file;
#[cfg(test)]
mod tests;
mod unlock;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
pub(crate) use skep_ca::UnlockKey;

use crate::RaftError;

/// The bytes of a key.
pub(crate) type KeyBytes = [u8; 32];

/// Random bytes for keys and nonces.
///
/// # Panics
/// When the operating system has no randomness to give.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// A key that seals.
pub(crate) struct SealingKey(LessSafeKey);

impl SealingKey {
    pub(crate) fn new(bytes: &KeyBytes) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key is as long as the algorithm wants it");
        Self(LessSafeKey::new(key))
    }

    /// `body` sealed as `name`: a nonce, what it became, and a tag.
    pub(crate) fn seal(&self, name: &[u8], body: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE_LEN>();
        let mut sealed = Vec::with_capacity(NONCE_LEN + body.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(body);
        let (_, inside) = sealed.split_at_mut(NONCE_LEN);
        let tag = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), inside);
        sealed.extend_from_slice(tag.expect("no value is as long as 64 GiB").as_ref());
        sealed
    }

    /// What was sealed as `name`; `None` when this is not it.
    pub(crate) fn open(&self, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, inside) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut inside = inside.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(name), &mut inside).ok()?.len();
        inside.truncate(length);
        Some(inside)
    }
}

/// A member's data key, and the file that it lies in. Clones are the same.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    path: PathBuf,
    data_key: KeyBytes,
    sealing: SealingKey,
    /// Held while the file is replaced.
    replacing: Mutex<()>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Vault {
    /// Whether the member in `dir` needs an unlock key to start. `false` also when there is no member.
    ///
    /// # Errors
    /// When the key file cannot be read or is damaged.
    pub fn is_locked(dir: &Path) -> Result<bool, RaftError> {
        Ok(key_file::read(&key_file::path(dir))?.is_some_and(|file| file.is_locked()))
    }

    /// Wraps the data key anew, durably: under `unlock`, so that nobody starts this member without it (autolock), or under
    /// nothing. The member goes on meanwhile. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// When the key file cannot be written; then the one before is still valid.
    pub fn rewrap(&self, unlock: Option<&UnlockKey>) -> Result<(), RaftError> {
        let _replacing = self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        key_file::write(&self.0.path, &self.0.data_key, unlock)
    }

    /// Reads the key of the member in `dir`.
    pub(crate) fn open(dir: &Path, unlock: Option<&UnlockKey>) -> Result<Self, RaftError> {
        let path = key_file::path(dir);
        let file = key_file::read(&path)?.ok_or_else(|| RaftError::KeyMissing { path: path.clone() })?;
        let data_key = file.data_key(&path, unlock)?;
        Ok(Self::of(path, data_key))
    }

    /// Reads the key of the member in `dir`, or makes one: for a member that has written nothing yet.
    pub(crate) fn open_or_make(dir: &Path, unlock: Option<&UnlockKey>) -> Result<Self, RaftError> {
        match Self::open(dir, unlock) {
            Err(RaftError::KeyMissing { path }) => {
                let data_key = random();
                key_file::write(&path, &data_key, unlock)?;
                Ok(Self::of(path, data_key))
            }
            opened => opened,
        }
    }

    fn of(path: PathBuf, data_key: KeyBytes) -> Self {
        let sealing = SealingKey::new(&data_key);
        Self(Arc::new(Inner { path, data_key, sealing, replacing: Mutex::new(()) }))
    }

    /// Tells one data key from another, and nothing else of it.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = Sha256::new().chain_update("skep data key\n").chain_update(self.0.data_key).finalize();
        hex::encode(&digest[..8])
    }

    /// The key file.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn seal(&self, name: &[u8], body: &[u8]) -> Vec<u8> {
        self.0.sealing.seal(name, body)
    }

    pub(crate) fn unseal(&self, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.sealing.open(name, sealed)
    }
}
