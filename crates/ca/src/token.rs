//! What people copy from one machine to another to make it a member.

use std::fmt;
use std::str::FromStr;

use crate::secret::SECRET_LENGTH;
use crate::{CaError, RootCertificate, base36, same_secret};

const PREFIX: &str = "SWMTKN-1-";
/// Digits that 256 bits need.
const DIGEST_LENGTH: usize = 50;

/// `SWMTKN-1-<digest of the root certificate>-<secret>`. The digest is the SHA-256 of the certificate's DER as a number in base 36: of the
/// bytes that are signed, so that no line end in a PEM file makes another token. `Display` gives all of it, also the secret; `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: String,
    secret: String,
}

impl JoinToken {
    /// The token of a swarm for one of its secrets.
    ///
    /// # Errors
    /// [`CaError::Secret`] when `secret` is none that [`crate::new_secret`] could have made.
    pub fn new(root: &RootCertificate, secret: &str) -> Result<Self, CaError> {
        if !base36::well_formed(secret, SECRET_LENGTH) {
            return Err(CaError::Secret);
        }
        Ok(Self { digest: digest(root), secret: secret.to_owned() })
    }

    /// Whether it was made for this swarm. Says nothing of the secret.
    #[must_use]
    pub fn is_for(&self, root: &RootCertificate) -> bool {
        self.digest == digest(root)
    }

    /// Whether it was made for this swarm and carries this secret. The secrets are compared in constant time.
    #[must_use]
    pub fn admits(&self, root: &RootCertificate, secret: &str) -> bool {
        // Both are always evaluated: the answer takes the same time whichever is wrong.
        self.is_for(root) & same_secret(&self.secret, secret)
    }
}

fn digest(root: &RootCertificate) -> String {
    base36::encode::<DIGEST_LENGTH>(&root.digest())
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.digest, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({PREFIX}{}-…)", self.digest)
    }
}

impl FromStr for JoinToken {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let (digest, secret) =
            text.strip_prefix(PREFIX).and_then(|halves| halves.split_once('-')).ok_or(CaError::JoinToken)?;
        if base36::well_formed(digest, DIGEST_LENGTH) && base36::well_formed(secret, SECRET_LENGTH) {
            Ok(Self { digest: digest.to_owned(), secret: secret.to_owned() })
        } else {
            Err(CaError::JoinToken)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{RootCa, new_secret};

    fn root() -> RootCertificate {
        RootCa::generate(skep_model::Timestamp::now()).unwrap().certificate().clone()
    }

    #[test]
    fn a_token_reads_back_and_admits_to_its_own_swarm_alone() {
        let (own, secret) = (root(), new_secret());
        let token = JoinToken::new(&own, &secret).unwrap();
        let read: JoinToken = token.to_string().parse().unwrap();
        assert_eq!(read, token);
        assert!(read.admits(&own, &secret));
        assert!(!read.admits(&own, &new_secret()));
        assert!(!read.admits(&root(), &secret));
        assert!(!read.is_for(&root()));
    }

    #[test]
    fn it_has_the_shape_that_people_know() {
        let text = JoinToken::new(&root(), &new_secret()).unwrap().to_string();
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [6, 1, 50, 25], "{text}");
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let secret = new_secret();
        let token = JoinToken::new(&root(), &secret).unwrap();
        assert!(!format!("{token:?}").contains(&secret));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = JoinToken::new(&root(), &new_secret()).unwrap().to_string();
        let bad = [
            "",
            "SWMTKN-1-",
            "SWMTKN-1-a-b",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}a"),
            &format!(" {good}"),
            &good.to_uppercase(),
            &good.replacen("-1-", "-2-", 1),
        ];
        for text in bad {
            assert_eq!(text.parse::<JoinToken>(), Err(CaError::JoinToken), "{text}");
        }
        assert_eq!(JoinToken::new(&root(), "short"), Err(CaError::Secret));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(SWMTKN-1-)?.{0,90}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
