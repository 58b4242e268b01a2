//! What an image's configuration says about running it (OCI image specification, "Image Configuration").

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_model::{HealthConfig, HealthTest, Protocol, Timestamp};

use super::digest::{DiffId, Digest, ImageId};
use super::error::ImageError;

/// A port that the image says its program listens on. Documentation: nothing is opened because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The port in the container.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// How containers of an image run when nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program and its first arguments; may be empty.
    pub entrypoint: Vec<String>,
    /// Arguments for the entrypoint, or the program itself when there is no entrypoint.
    pub cmd: Vec<String>,
    /// Where the program starts; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// The signal that asks the program to end, `SIGTERM` when absent. A name or a number.
    pub stop_signal: Option<String>,
    /// Ports that the program listens on.
    pub exposed_ports: BTreeSet<ExposedPort>,
    /// Paths that should be volumes.
    pub volumes: BTreeSet<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// How the health of containers is checked (Docker's `HEALTHCHECK`, which is not in the specification).
    pub health: Option<HealthConfig>,
    /// The processor that it is for, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// The operating system that it is for: `linux`.
    pub os: String,
}

/// A parsed configuration file.
pub(super) struct ConfigFile {
    pub(super) id: ImageId,
    pub(super) created: Option<Timestamp>,
    pub(super) config: ImageConfig,
    pub(super) diffs: Vec<DiffId>,
}

#[derive(Deserialize)]
struct Raw {
    created: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<DiffId>>,
}

/// Unknown fields are left alone; each of these may be absent or null.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<RawHealth>,
}

/// Lengths of time in nanoseconds; zero is what is left out.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealth {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

impl RawHealth {
    /// A test of a kind that is not known is none: the image runs as well without it.
    fn read(self) -> HealthConfig {
        let length = |nanoseconds: u64| (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds));
        let test = self.test.unwrap_or_default();
        let test = match test.split_first().map(|(kind, rest)| (kind.as_str(), rest)) {
            Some(("NONE", _)) => Some(HealthTest::Disabled),
            Some(("CMD", rest)) if !rest.is_empty() => Some(HealthTest::Program(rest.to_vec())),
            Some(("CMD-SHELL", rest)) if !rest.is_empty() => Some(HealthTest::Shell(rest.to_vec())),
            _ => None,
        };
        HealthConfig {
            test,
            interval: length(self.interval),
            timeout: length(self.timeout),
            start_period: length(self.start_period),
            start_interval: length(self.start_interval),
            retries: (self.retries > 0).then_some(self.retries),
        }
    }
}

/// `80/tcp`, or `80` for tcp. Others are left out: an image runs as well without its documentation.
fn exposed(text: &str) -> Option<ExposedPort> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(ExposedPort { port: port.parse().ok()?, protocol: protocol.parse().ok()? })
}

impl ConfigFile {
    /// Reads the configuration found at `path`.
    pub(super) fn parse(path: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|e| ImageError::BadConfig { path: path.to_owned(), reason: e.to_string() })?;
        let run = raw.config.unwrap_or_default();
        let config = ImageConfig {
            env: run.env.unwrap_or_default(),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|s| !s.is_empty()),
            exposed_ports: run.exposed_ports.unwrap_or_default().keys().filter_map(|p| exposed(p)).collect(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            labels: run.labels.unwrap_or_default(),
            health: run.healthcheck.map(RawHealth::read),
            architecture: raw.architecture.unwrap_or_default(),
            os: raw.os.unwrap_or_default(),
        };
        Ok(Self {
            id: ImageId(Digest::of(bytes)),
            created: raw.created.and_then(|text| text.parse().ok()),
            config,
            diffs: raw.rootfs.diff_ids.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_absent_fields_are_nothing() {
        let text = br#"{"config":{"Env":null,"Cmd":["a"],"ExposedPorts":{"80/tcp":{},"53/udp":{},"9":{},"x/tcp":{},"0/tcp":{}}},
            "rootfs":{"type":"layers","diff_ids":null},"created":"not a time"}"#;
        let file = ConfigFile::parse("c", text).unwrap();
        assert_eq!(file.config.cmd, ["a"]);
        assert!(file.config.env.is_empty() && file.diffs.is_empty() && file.created.is_none());
        let ports: Vec<_> = file.config.exposed_ports.iter().map(|p| (p.port.get(), p.protocol.as_str())).collect();
        assert_eq!(ports, [(9, "tcp"), (53, "udp"), (80, "tcp")]);
    }

    #[test]
    fn what_is_no_config_is_named() {
        for bad in [&b""[..], b"[]", b"{}", br#"{"rootfs":{"diff_ids":["sha256:..","x"]}}"#] {
            let error = ConfigFile::parse("blobs/c", bad).err().unwrap().to_string();
            assert!(error.contains("config blobs/c is unreadable"), "{error}");
        }
    }
}
