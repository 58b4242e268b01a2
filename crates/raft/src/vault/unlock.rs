//! What an unlock key wraps data keys with.

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use skep_ca::UnlockKey;

use super::{KeyBytes, SealingKey};

/// The key that wraps data keys. Derived (HKDF, RFC 5869), so that what the operator holds is used for nothing directly.
pub(super) fn wrapping(unlock: &UnlockKey) -> SealingKey {
    let extracted = Salt::new(HKDF_SHA256, b"skep unlock key").extract(unlock.secret());
    let mut key: KeyBytes = [0; 32];
    let expanded = extracted.expand(&[b"data key"], Aes256);
    expanded.and_then(|expanded| expanded.fill(&mut key)).expect("HKDF gives out 32 bytes");
    SealingKey::new(&key)
}

/// The length of the derived key.
struct Aes256;

impl KeyType for Aes256 {
    fn len(&self) -> usize {
        size_of::<KeyBytes>()
    }
}
