//! Tasks.

use serde::{Deserialize, Serialize};

use super::generic::GenericResource;
use super::meta::{Driver, ObjectVersion, StringMap, Time};
use super::network::IpamConfig;
use super::service::{PortConfig, TaskSpec};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    pub labels: StringMap,
    pub spec: TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "zero")]
    pub service_id: String,
    /// Zero for tasks of global services.
    #[serde(skip_serializing_if = "zero")]
    pub slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "zero")]
    pub node_id: String,
    pub status: TaskStatus,
    #[serde(skip_serializing_if = "zero")]
    pub desired_state: String,
    #[serde(skip_serializing_if = "zero")]
    pub networks_attachments: Vec<NetworkAttachment>,
    #[serde(skip_serializing_if = "zero")]
    pub generic_resources: Vec<GenericResource>,
    /// The same, by the name that the API's description has for it and real engines have not.
    #[serde(skip_serializing_if = "zero")]
    pub assigned_generic_resources: Vec<GenericResource>,
    #[serde(skip_serializing_if = "zero")]
    pub job_iteration: Option<ObjectVersion>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskStatus {
    pub timestamp: Time,
    #[serde(skip_serializing_if = "zero")]
    pub state: String,
    #[serde(skip_serializing_if = "zero")]
    pub message: String,
    #[serde(skip_serializing_if = "zero")]
    pub err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    pub port_status: PortStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i64,
    /// -1 when nobody knows.
    pub exit_code: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortStatus {
    #[serde(skip_serializing_if = "zero")]
    pub ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachment {
    pub network: AttachedNetwork,
    #[serde(skip_serializing_if = "zero")]
    pub addresses: Vec<String>,
}

/// A network as the swarm stores it, not as `/networks` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachedNetwork {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: AttachedNetworkSpec,
    pub driver_state: Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachedNetworkSpec {
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    pub labels: StringMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "zero")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "zero")]
    pub internal: bool,
    #[serde(skip_serializing_if = "zero")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "zero")]
    pub ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
    #[serde(skip_serializing_if = "zero")]
    pub scope: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamOptions {
    pub driver: Driver,
    #[serde(skip_serializing_if = "zero")]
    pub configs: Vec<IpamConfig>,
}
