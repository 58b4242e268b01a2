//! Nodes.

use serde::{Deserialize, Serialize};

use super::generic::GenericResource;
use super::meta::{ObjectVersion, StringMap, Time};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: NodeSpec,
    pub description: NodeDescription,
    pub status: NodeStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeSpec {
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    pub labels: StringMap,
    /// `worker` or `manager`.
    #[serde(skip_serializing_if = "zero")]
    pub role: String,
    /// `active`, `pause` or `drain`.
    #[serde(skip_serializing_if = "zero")]
    pub availability: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeDescription {
    #[serde(skip_serializing_if = "zero")]
    pub hostname: String,
    pub platform: Platform,
    pub resources: NodeResources,
    pub engine: EngineDescription,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Platform {
    #[serde(skip_serializing_if = "zero")]
    pub architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "zero")]
    pub os: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeResources {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "zero")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "zero")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub generic_resources: Vec<GenericResource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EngineDescription {
    #[serde(skip_serializing_if = "zero")]
    pub engine_version: String,
    #[serde(skip_serializing_if = "zero")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub plugins: Vec<PluginDescription>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PluginDescription {
    #[serde(rename = "Type", skip_serializing_if = "zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
}

/// What the certificates of nodes are issued under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TlsInfo {
    #[serde(skip_serializing_if = "zero")]
    pub trust_root: String,
    #[serde(skip_serializing_if = "zero")]
    pub cert_issuer_subject: String,
    #[serde(skip_serializing_if = "zero")]
    pub cert_issuer_public_key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeStatus {
    /// `unknown`, `down`, `ready` or `disconnected`.
    #[serde(skip_serializing_if = "zero")]
    pub state: String,
    #[serde(skip_serializing_if = "zero")]
    pub message: String,
    #[serde(skip_serializing_if = "zero")]
    pub addr: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManagerStatus {
    #[serde(skip_serializing_if = "zero")]
    pub leader: bool,
    #[serde(skip_serializing_if = "zero")]
    pub reachability: String,
    #[serde(skip_serializing_if = "zero")]
    pub addr: String,
}
