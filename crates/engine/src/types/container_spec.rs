//! What a task's container is to be: `TaskTemplate.ContainerSpec`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{Driver, Nanoseconds, StringMap};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpec {
    #[serde(skip_serializing_if = "zero")]
    pub image: String,
    #[serde(skip_serializing_if = "zero")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub hostname: String,
    #[serde(skip_serializing_if = "zero")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub dir: String,
    #[serde(skip_serializing_if = "zero")]
    pub user: String,
    #[serde(skip_serializing_if = "zero")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "zero")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "zero")]
    pub stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "zero")]
    pub tty: bool,
    #[serde(skip_serializing_if = "zero")]
    pub open_stdin: bool,
    #[serde(skip_serializing_if = "zero")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "zero")]
    pub mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "zero")]
    pub stop_grace_period: Option<Nanoseconds>,
    #[serde(skip_serializing_if = "zero")]
    pub healthcheck: Option<HealthConfig>,
    /// Lines of `/etc/hosts`: the address first.
    #[serde(skip_serializing_if = "zero")]
    pub hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "zero")]
    pub dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub secrets: Vec<SecretReference>,
    #[serde(skip_serializing_if = "zero")]
    pub configs: Vec<ConfigReference>,
    #[serde(skip_serializing_if = "zero")]
    pub isolation: String,
    #[serde(skip_serializing_if = "zero")]
    pub sysctls: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub capability_add: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "zero")]
    pub oom_score_adj: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Privileges {
    pub credential_spec: Option<Value>,
    #[serde(rename = "SELinuxContext")]
    pub selinux_context: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub seccomp: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub app_armor: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    pub file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Value>,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
}

/// A file that a secret or a config appears as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FileTarget {
    pub name: String,
    #[serde(rename = "UID")]
    pub uid: String,
    #[serde(rename = "GID")]
    pub gid: String,
    pub mode: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    #[serde(skip_serializing_if = "zero")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub options: Vec<String>,
}

/// Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    #[serde(skip_serializing_if = "zero")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub interval: Nanoseconds,
    #[serde(skip_serializing_if = "zero")]
    pub timeout: Nanoseconds,
    #[serde(skip_serializing_if = "zero")]
    pub start_period: Nanoseconds,
    #[serde(skip_serializing_if = "zero")]
    pub start_interval: Nanoseconds,
    #[serde(skip_serializing_if = "zero")]
    pub retries: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub source: String,
    #[serde(skip_serializing_if = "zero")]
    pub target: String,
    #[serde(skip_serializing_if = "zero")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "zero")]
    pub consistency: String,
    #[serde(skip_serializing_if = "zero")]
    pub bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "zero")]
    pub volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "zero")]
    pub image_options: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub tmpfs_options: Option<TmpfsOptions>,
    #[serde(skip_serializing_if = "zero")]
    pub cluster_options: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    #[serde(skip_serializing_if = "zero")]
    pub propagation: String,
    #[serde(skip_serializing_if = "zero")]
    pub non_recursive: bool,
    #[serde(skip_serializing_if = "zero")]
    pub create_mountpoint: bool,
    #[serde(skip_serializing_if = "zero")]
    pub read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "zero")]
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeOptions {
    #[serde(skip_serializing_if = "zero")]
    pub no_copy: bool,
    #[serde(skip_serializing_if = "zero")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub subpath: String,
    #[serde(skip_serializing_if = "zero")]
    pub driver_config: Option<Driver>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    #[serde(skip_serializing_if = "zero")]
    pub size_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub mode: u32,
    #[serde(skip_serializing_if = "zero")]
    pub options: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}
