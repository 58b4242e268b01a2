//! The words of the runtime, and its trait.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skep_model::{ContainerSpec, Resources, Timestamp};
use tokio::sync::mpsc;

use crate::error::RuntimeError;
use crate::images::ImageId;

/// A process id in the daemon's pid namespace.
pub type Pid = i32;

/// A container's id: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A text that is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a container id: 64 lower-case hexadecimal digits are")]
pub struct BadContainerId(pub String);

impl ContainerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerId {
    type Error = BadContainerId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text)) } else { Err(BadContainerId(text)) }
    }
}

impl FromStr for ContainerId {
    type Err = BadContainerId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The image that it is made from; the store must have it.
    pub image: ImageId,
    /// What runs in it.
    pub spec: ContainerSpec,
    /// What it may use.
    pub resources: Resources,
    /// The network namespace that it joins; must exist.
    pub netns: PathBuf,
    /// Its host name.
    pub hostname: String,
    /// Its addresses, for `/etc/hosts`.
    pub addresses: Vec<IpAddr>,
    /// Labels, given back by [`Runtime::list`].
    pub labels: BTreeMap<String, String>,
    /// `NAME=value` over those of the image and the spec.
    pub env: Vec<String>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status of its first process, 128 + the signal's number when a signal ended it; `None` when nobody could see it.
    pub code: Option<i32>,
    /// When it ended, or when that was noticed.
    pub at: Timestamp,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Prepared, and not started (or its start failed).
    Created,
    /// Its first process runs.
    Running {
        /// That process.
        pid: Pid,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// The labels that it was made with.
    pub labels: BTreeMap<String, String>,
    /// When it was prepared.
    pub created: Timestamp,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// Which output a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the shim read its end.
    pub timestamp: Timestamp,
    /// Where it was written to.
    pub stream: LogStream,
    /// Its bytes, without the newline.
    pub line: Vec<u8>,
}

/// Which lines of a log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many of those there are; `None` for all.
    pub tail: Option<u64>,
    /// Only lines not older than this.
    pub since: Option<Timestamp>,
    /// Go on with lines as they are written, until the container ends.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { tail: None, since: None, follow: false, stdout: true, stderr: true }
    }
}

impl LogOptions {
    /// Whether a line passes `since` and the choice of streams.
    pub(crate) fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream && self.since.is_none_or(|since| line.timestamp >= since)
    }
}

/// Makes, runs and removes containers.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Mounts the root file system and writes the bundle. Does nothing for a container that is prepared already.
    ///
    /// # Errors
    /// When the image is absent or something in the spec cannot be had on this node; nothing is left of it then.
    async fn prepare(&self, container: Container) -> Result<(), RuntimeError>;

    /// Starts it, and returns once its program runs. Gives the pid of a container that runs already.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] with the cause; [`RuntimeError::NotFound`].
    async fn start(&self, id: &ContainerId) -> Result<Pid, RuntimeError>;

    /// Returns when it has ended; at once if it has. May be dropped and called again.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::NotRunning`] when it was never started.
    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError>;

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::NotRunning`].
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError>;

    /// Kills what runs in it, unmounts and deletes it. Does nothing when there is none.
    ///
    /// # Errors
    /// What could not be taken away; calling again goes on with it.
    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// All containers, as disk and kernel have them.
    ///
    /// # Errors
    /// When the directory of containers cannot be read.
    async fn list(&self) -> Result<Vec<ContainerInfo>, RuntimeError>;

    /// Where one container is in its life; `None` when there is none.
    ///
    /// # Errors
    /// As [`Runtime::list`].
    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, RuntimeError> {
        Ok(self.list().await?.into_iter().find(|c| c.id == *id).map(|c| c.state))
    }

    /// What it wrote. The channel closes after the last line.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn logs(&self, id: &ContainerId, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError>;
}
