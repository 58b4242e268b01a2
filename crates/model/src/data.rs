//! Secrets and configs: small files that the swarm keeps for the containers of services.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ConfigId, Meta, SecretId};

/// A stored secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its identity.
    pub id: SecretId,
    /// Version and times.
    pub meta: Meta,
    /// What was asked for.
    pub spec: DataSpec,
}

/// A stored config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its identity.
    pub id: ConfigId,
    /// Version and times.
    pub meta: Meta,
    /// What was asked for.
    pub spec: DataSpec,
}

impl Secret {
    /// How many bytes it may have: fewer than this, and more than none.
    pub const LIMIT: usize = 500 << 10;
}

impl Config {
    /// How many bytes it may have: fewer than this, and more than none.
    pub const LIMIT: usize = 1000 << 10;
}

/// What a person asks a secret or config to be. All of it but the labels stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSpec {
    /// Its name.
    pub name: DataName,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its content.
    pub data: Data,
    /// What is done to the content before a container gets it.
    #[serde(default, skip_serializing_if = "Templating::is_none")]
    pub templating: Templating,
}

/// What is done to the content of a secret or config before a container gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Templating {
    /// Nothing.
    #[default]
    None,
    /// It is one of Go's templates, and filled in.
    Golang,
}

impl Templating {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The bytes of a secret or config. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data(pub Vec<u8>);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Data {
    /// As base64, as it travels in JSON.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// The bytes that `text` stands for; `None` when it is no base64.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok().map(Self)
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_base64(&text).ok_or_else(|| serde::de::Error::custom("no base64"))
    }
}

/// The longest name of a secret or config.
const LONGEST: usize = 64;

/// A name that no secret or config can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid name, only {LONGEST} [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]: {0:?}"
)]
pub struct BadDataName(String);

/// The name of a secret or config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DataName(String);

impl DataName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DataName {
    type Err = BadDataName;
    fn from_str(text: &str) -> Result<Self, BadDataName> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let good = bytes.len() <= LONGEST && end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| inner(*b));
        if good { Ok(Self(text.to_owned())) } else { Err(BadDataName(text.chars().take(LONGEST + 1).collect())) }
    }
}

impl TryFrom<String> for DataName {
    type Error = BadDataName;
    fn try_from(text: String) -> Result<Self, BadDataName> {
        text.parse()
    }
}

impl From<DataName> for String {
    fn from(name: DataName) -> String {
        name.0
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret or config in a container: a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReference<I> {
    /// Which one.
    pub id: I,
    /// Its name.
    pub name: String,
    /// The file: an absolute path, or one below `/run/secrets` for secrets and `/` for configs.
    pub target: String,
    /// Its owner, by number.
    pub uid: u32,
    /// Its group, by number.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

impl FileReference<SecretId> {
    /// The file's absolute path.
    #[must_use]
    pub fn path(&self) -> String {
        absolute("/run/secrets", &self.target)
    }
}

impl FileReference<ConfigId> {
    /// The file's absolute path.
    #[must_use]
    pub fn path(&self) -> String {
        absolute("", &self.target)
    }
}

fn absolute(below: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("{below}/{target}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_docker_takes() {
        let longest = "a".repeat(LONGEST);
        for good in ["a", "db.password", "a-b_c.d", "0", longest.as_str()] {
            assert!(good.parse::<DataName>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "a-", "a b", "a/b", "ä", &"a".repeat(LONGEST + 1)] {
            assert!(bad.parse::<DataName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn content_comes_back_and_is_never_shown() {
        let spec = DataSpec {
            name: "a".parse().unwrap(),
            labels: BTreeMap::new(),
            data: Data(b"hush\0".to_vec()),
            templating: Templating::None,
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<DataSpec>(&text).unwrap(), spec);
        assert!(!text.contains("hush") && format!("{spec:?}").contains("Data(5 bytes)"), "{spec:?}");
    }

    #[test]
    fn targets_are_below_where_docker_puts_them() {
        let secret = |target: &str| FileReference::<SecretId> {
            id: SecretId::random(),
            name: "a".to_owned(),
            target: target.to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        };
        assert_eq!(secret("a/b").path(), "/run/secrets/a/b");
        assert_eq!(secret("/etc/a").path(), "/etc/a");
    }
}
