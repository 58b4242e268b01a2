//! Names that people give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest service name: a DNS label (RFC 1035, 2.3.4).
const LONGEST: usize = 63;

/// A name that a service cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Longer than a DNS label.
    #[error("name must be {LONGEST} characters or fewer, and {0:?} has {len}", len = .0.len())]
    TooLong(String),
    /// A character that no DNS label has, or a hyphen at an end.
    #[error(
        "name must be valid as a DNS name component (letters, digits, '-' and '_', with a letter or digit at both ends), and {0:?} is not"
    )]
    NotDns(String),
}

/// A service's name: it is also its name in DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let bytes = text.as_bytes();
        if !end(bytes.first().copied()) || !end(bytes.last().copied()) || !bytes.iter().copied().all(inner) {
            return Err(BadName::NotDns(text.to_owned()));
        }
        if bytes.len() > LONGEST {
            return Err(BadName::TooLong(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> String {
        name.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_pass_and_others_do_not() {
        let longest = "a".repeat(LONGEST);
        for good in ["a", "my-web", "my_web", "0", "Web2", longest.as_str()] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a b", "ä", "_a"] {
            assert!(matches!(bad.parse::<ServiceName>(), Err(BadName::NotDns(_))), "{bad}");
        }
        assert!(matches!("a".repeat(LONGEST + 1).parse::<ServiceName>(), Err(BadName::TooLong(_))));
    }
}
