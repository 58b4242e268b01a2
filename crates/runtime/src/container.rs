//! What callers say about containers, and what they are told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use skep_model::{ContainerSpec, Data, Resources, Timestamp};

use crate::images::ImageId;

/// A text that is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a container id: 64 lower-case hexadecimal digits are expected")]
pub struct BadContainerId(pub String);

/// The name of a container: 64 lower-case hexadecimal digits. Made by the caller; safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as people see them.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = BadContainerId;

    fn from_str(text: &str) -> Result<Self, BadContainerId> {
        let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.to_owned())) } else { Err(BadContainerId(text.chars().take(100).collect())) }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = BadContainerId;
    fn try_from(text: String) -> Result<Self, BadContainerId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

/// A container to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub id: ContainerId,
    /// What its root file system is made of.
    pub image: ImageId,
    /// What runs in it, and how.
    pub spec: ContainerSpec,
    /// What it may use.
    pub resources: Resources,
    /// The network namespace that it joins, which stays the caller's.
    pub netns: PathBuf,
    /// Its host name.
    pub hostname: String,
    /// Its addresses, written into its `/etc/hosts`.
    pub addresses: Vec<IpAddr>,
    /// Where its programs ask for names, instead of those that the specification or else the node asks.
    pub resolver: Option<IpAddr>,
    /// Labels of the container, given back by [`crate::Runtime::list`]; those of the specification are not added.
    pub labels: BTreeMap<String, String>,
    /// `NAME=value`, in addition to those of the image and the specification, which they override.
    pub env: Vec<String>,
    /// Files that it may read and that are nowhere but in memory: secrets and configs.
    pub files: Vec<ContainerFile>,
}

/// A file that a container is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFile {
    /// Where it sees it: an absolute path.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub data: Data,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code of its first process, 128 and the signal's number when a signal ended it; `None` when nobody saw its
    /// end, because its shim was killed.
    pub code: Option<i32>,
    /// When it ended or, when nobody saw that, when this was found out.
    pub at: Timestamp,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Prepared, and perhaps being started.
    Created,
    /// Its program runs.
    Running {
        /// Its first process, as the node numbers it.
        pid: i32,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container as it is found on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its name.
    pub id: ContainerId,
    /// As given when it was prepared.
    pub labels: BTreeMap<String, String>,
    /// When it was prepared.
    pub created: Timestamp,
    /// What its root file system is made of.
    pub image: ImageId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its host name.
    pub hostname: String,
    /// The network namespace that it joins.
    pub netns: PathBuf,
    /// The volumes that it uses, by where they are mounted.
    pub volumes: BTreeMap<String, String>,
    /// What it is doing.
    pub state: ContainerState,
}

/// Which of its two outputs a container wrote a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines of a container's output are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// At the most so many lines from the end, counted after the other choices; `None` is all.
    pub tail: Option<u64>,
    /// Only lines from this moment on.
    pub since: Option<Timestamp>,
    /// Go on with lines as they come, until the container ends.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

impl Default for LogOptions {
    /// Everything that there is now.
    fn default() -> Self {
        Self { tail: None, since: None, follow: false, stdout: true, stderr: true }
    }
}

impl LogOptions {
    /// Whether a line of `stream` at `timestamp` is wanted.
    #[must_use]
    pub(crate) fn wants(&self, timestamp: Timestamp, stream: LogStream) -> bool {
        let stream = match stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream && self.since.is_none_or(|since| timestamp >= since)
    }
}

/// One line that a container wrote. Lines longer than 16 KiB come in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read from the container.
    pub timestamp: Timestamp,
    /// Where it was written to.
    pub stream: LogStream,
    /// Its bytes, without the line end.
    pub line: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        let good = "0a".repeat(32);
        assert_eq!(good.parse::<ContainerId>().unwrap().to_string(), good);
        for bad in ["", "a", &"A".repeat(64), &"0g".repeat(32), &"../".repeat(22)[..64], &"0".repeat(65)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ContainerId>("\"..\"").is_err());
    }
}
