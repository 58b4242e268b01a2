//! Join tokens and unlock keys.

use skep_ca::{JoinToken, UnlockKey};

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string().parse::<JoinToken>().map(|again| again.to_string()).ok(), Some(token.to_string()));
    }
    if let Ok(key) = text.parse::<UnlockKey>() {
        assert_eq!(key.to_string().parse::<UnlockKey>().ok().map(|again| *again.secret()), Some(*key.secret()));
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let token = format!("SWMTKN-1-{}-{}", "3".repeat(50), "a".repeat(25));
    vec![token.into_bytes(), UnlockKey::random().to_string().into_bytes()]
}
