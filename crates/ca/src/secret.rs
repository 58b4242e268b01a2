//! The secret half of a join token.

use crate::base36;

/// Digits that 128 random bits need.
pub(crate) const SECRET_LENGTH: usize = 25;

/// A new secret for [`skep_model::JoinSecrets`]: 128 random bits in 25 characters.
#[must_use]
pub fn new_secret() -> String {
    let bits: [u8; 16] = rand::random();
    base36::encode::<SECRET_LENGTH>(&bits)
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
#[must_use]
pub fn same_secret(a: &str, b: &str) -> bool {
    same_bytes(a.as_bytes(), b.as_bytes())
}

/// Whether two texts of bytes are the same, in a time that depends on their lengths alone.
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // The black box keeps the compiler from leaving the loop at the first difference.
    let differing = a.iter().zip(b).fold(0u8, |seen, (x, y)| std::hint::black_box(seen | (x ^ y)));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_well_formed_and_differ() {
        let (a, b) = (new_secret(), new_secret());
        assert!(base36::well_formed(&a, SECRET_LENGTH), "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn only_equal_secrets_are_the_same() {
        let a = new_secret();
        assert!(same_secret(&a, &a.clone()));
        for at in 0..a.len() {
            let mut other = a.clone().into_bytes();
            other[at] ^= 1;
            assert!(!same_bytes(a.as_bytes(), &other), "byte {at} was not looked at");
        }
        assert!(!same_secret(&a, &a[1..]));
        assert!(!same_secret(&a, ""));
    }
}
