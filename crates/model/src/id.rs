//! Identifiers: 25 characters of base 36, as the Engine API shows them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of an identifier: the digits that 128 random bits need in base 36.
const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A text that is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an identifier: expected {LENGTH} characters of 0-9 and a-z")]
pub struct BadId(String);

fn random() -> String {
    let mut value: u128 = rand::random();
    let mut digits = [b'0'; LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    digits.iter().map(|&b| char::from(b)).collect()
}

fn parse(text: &str) -> Result<&str, BadId> {
    // By hand: this is asked of every identifier of every message.
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let well_formed = text.len() == LENGTH && text.bytes().all(is_digit);
    if well_formed { Ok(text) } else { Err(BadId(text.to_owned())) }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// A new one from 128 random bits.
            #[must_use]
            pub fn random() -> Self {
                Self(random().into())
            }

            /// The 25 characters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                parse(text).map(|s| Self(s.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

identifier!(
    /// A node's identity, given at join and kept as long as the node is a member.
    NodeId
);
identifier!(
    /// A service.
    ServiceId
);
identifier!(
    /// One try at running one instance of a service.
    TaskId
);
identifier!(
    /// A network of the swarm.
    NetworkId
);
identifier!(
    /// A secret.
    SecretId
);
identifier!(
    /// A config.
    ConfigId
);
identifier!(
    /// The swarm itself.
    ClusterId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_back() {
        for _ in 0..100 {
            let id = NodeId::random();
            assert_eq!(id.as_str().parse::<NodeId>().unwrap(), id);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
    }
}
