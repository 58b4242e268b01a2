//! The key that the operator keeps when a swarm is locked.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::CaError;

const PREFIX: &str = "SWMKEY-1-";

/// Without it nobody starts a manager of a swarm that is locked. It is written as Docker's: `SWMKEY-1-` and 32 bytes in base64. `Debug` does
/// not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; 32]);

impl UnlockKey {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What keys are derived from. Nothing is sealed with it directly.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(…)")
    }
}

impl FromStr for UnlockKey {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(CaError::UnlockKey)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| CaError::UnlockKey)?;
        bytes.try_into().map(Self).map_err(|_| CaError::UnlockKey)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_reads_back_and_does_not_show_in_debug_output() {
        let key = UnlockKey::random();
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(text.len(), PREFIX.len() + 43);
        assert!(!format!("{key:?}").contains(&text[PREFIX.len()..]));
        assert_ne!(key, UnlockKey::random());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(SWMKEY-1-)?.{0,60}") {
            if let Ok(key) = text.parse::<UnlockKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
