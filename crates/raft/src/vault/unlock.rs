//! The key that the operator keeps when a swarm is locked.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

use super::{KeyBytes, SealingKey, random};

const PREFIX: &str = "SWMKEY-1-";

/// Without it nobody starts a manager of a swarm that is locked. It is written as Docker's: `SWMKEY-1-` and 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(KeyBytes);

/// Text that is no unlock key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an unlock key: it begins with SWMKEY-1- and has 43 letters, digits, + and / after that; see `docker swarm unlock-key`"
)]
pub struct BadUnlockKey;

impl UnlockKey {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }

    /// The key that wraps data keys. Derived (HKDF, RFC 5869), so that what the operator holds is used for nothing directly.
    pub(super) fn wrapping(&self) -> SealingKey {
        let extracted = Salt::new(HKDF_SHA256, b"skep unlock key").extract(&self.0);
        let mut key: KeyBytes = [0; 32];
        let expanded = extracted.expand(&[b"data key"], Aes256);
        expanded.and_then(|expanded| expanded.fill(&mut key)).expect("HKDF gives out 32 bytes");
        SealingKey::new(&key)
    }
}

/// The length of the derived key.
struct Aes256;

impl KeyType for Aes256 {
    fn len(&self) -> usize {
        size_of::<KeyBytes>()
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

impl FromStr for UnlockKey {
    type Err = BadUnlockKey;

    fn from_str(text: &str) -> Result<Self, BadUnlockKey> {
        let encoded = text.strip_prefix(PREFIX).ok_or(BadUnlockKey)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| BadUnlockKey)?;
        bytes.try_into().map(Self).map_err(|_| BadUnlockKey)
    }
}
