//! The secret that a member proves its identity with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::CaError;
use crate::secret::same_bytes;

/// 32 random bytes; 64 hexadecimal digits as text. Made by the node itself before it joins. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeKey([u8; 32]);

impl NodeKey {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The SHA-256 of its bytes in hexadecimal: what managers store of it, in [`skep_model::Node::credential`].
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    /// Whether `digest` is this key's, in constant time.
    #[must_use]
    pub fn matches(&self, digest: &str) -> bool {
        same_bytes(self.digest().as_bytes(), digest.as_bytes())
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

impl FromStr for NodeKey {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| CaError::NodeKey)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for NodeKey {
    type Error = CaError;

    fn try_from(text: String) -> Result<Self, CaError> {
        text.parse()
    }
}

impl From<NodeKey> for String {
    fn from(key: NodeKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_matches_its_own_digest_alone() {
        let key = NodeKey::random();
        assert_eq!(key.to_string().parse::<NodeKey>().unwrap(), key);
        assert!(key.matches(&key.digest()));
        assert!(!key.matches(&NodeKey::random().digest()));
        assert!(!key.matches(""));
    }

    #[test]
    fn the_digest_is_plain_sha256_of_the_bytes() {
        let key: NodeKey = "00".repeat(32).parse().unwrap();
        assert_eq!(key.digest(), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn other_texts_are_refused_and_nothing_shows_in_debug_output() {
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(bad.parse::<NodeKey>(), Err(CaError::NodeKey), "{bad}");
        }
        let key = NodeKey::random();
        assert!(!format!("{key:?}").contains(&key.to_string()[..8]));
    }
}
