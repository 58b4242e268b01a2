//! Services.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container_spec::ContainerSpec;
use super::generic::GenericResource;
use super::meta::{Driver, Nanoseconds, ObjectVersion, StringMap, Time};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: ServiceSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Box<ServiceSpec>>,
    pub endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Only in lists, when asked for with `status=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceSpec {
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    pub labels: StringMap,
    pub task_template: TaskSpec,
    pub mode: ServiceMode,
    #[serde(skip_serializing_if = "zero")]
    pub update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub rollback_config: Option<UpdateConfig>,
    /// Where networks stood before they moved into the task.
    #[serde(skip_serializing_if = "zero")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub endpoint_spec: Option<EndpointSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskSpec {
    #[serde(skip_serializing_if = "zero")]
    pub container_spec: Option<ContainerSpec>,
    #[serde(skip_serializing_if = "zero")]
    pub plugin_spec: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub network_attachment_spec: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "zero")]
    pub restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "zero")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "zero")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub log_driver: Option<Driver>,
    pub force_update: u64,
    #[serde(skip_serializing_if = "zero")]
    pub runtime: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourceRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Reservations>,
    #[serde(skip_serializing_if = "zero")]
    pub swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "zero")]
    pub memory_swappiness: Option<i64>,
}

/// `NanoCPUs` are billionths of one CPU. Zero is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Limits {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "zero")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "zero")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub pids: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Reservations {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "zero")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "zero")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub generic_resources: Vec<GenericResource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`.
    #[serde(skip_serializing_if = "zero")]
    pub condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanoseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Nanoseconds>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Placement {
    #[serde(skip_serializing_if = "zero")]
    pub constraints: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub preferences: Vec<PlacementPreference>,
    #[serde(skip_serializing_if = "zero")]
    pub max_replicas: u64,
    #[serde(skip_serializing_if = "zero")]
    pub platforms: Vec<super::node::Platform>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlacementPreference {
    pub spread: Option<Spread>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Spread {
    #[serde(skip_serializing_if = "zero")]
    pub spread_descriptor: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentConfig {
    /// Id or name.
    #[serde(skip_serializing_if = "zero")]
    pub target: String,
    #[serde(skip_serializing_if = "zero")]
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub driver_opts: StringMap,
}

/// Exactly one of them; none is one replica.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceMode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Replicated {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

/// `{}`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfig {
    /// Zero is all at once.
    pub parallelism: u64,
    #[serde(skip_serializing_if = "zero")]
    pub delay: Nanoseconds,
    /// `pause`, `continue` or `rollback`.
    #[serde(skip_serializing_if = "zero")]
    pub failure_action: String,
    #[serde(skip_serializing_if = "zero")]
    pub monitor: Nanoseconds,
    #[serde(serialize_with = "go_float")]
    pub max_failure_ratio: f64,
    /// `stop-first` or `start-first`.
    #[serde(skip_serializing_if = "zero")]
    pub order: String,
}

/// Go writes a whole number without a fraction.
fn go_float<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if *value == 0.0 {
        return serializer.serialize_u64(0);
    }
    if (*value - 1.0).abs() < f64::EPSILON {
        return serializer.serialize_u64(1);
    }
    serializer.serialize_f64(*value)
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "zero")]
    pub mode: String,
    #[serde(skip_serializing_if = "zero")]
    pub ports: Vec<PortConfig>,
}

/// Ports are wider here than ports are, so that 70000 can be refused in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortConfig {
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    #[serde(skip_serializing_if = "zero")]
    pub protocol: String,
    #[serde(skip_serializing_if = "zero")]
    pub target_port: i64,
    /// Zero lets the swarm choose.
    #[serde(skip_serializing_if = "zero")]
    pub published_port: i64,
    /// `ingress` or `host`.
    #[serde(skip_serializing_if = "zero")]
    pub publish_mode: String,
    /// Not in the Engine API, whose engine passes over it and opens the port to everybody. Never written: it becomes a label.
    #[serde(rename = "HostIP", skip_serializing)]
    pub host_ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Endpoint {
    pub spec: EndpointSpec,
    #[serde(skip_serializing_if = "zero")]
    pub ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "zero")]
    pub virtual_ips: Vec<VirtualIp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "zero")]
    pub network_id: String,
    /// With the length of the network's prefix.
    #[serde(skip_serializing_if = "zero")]
    pub addr: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStatus {
    #[serde(skip_serializing_if = "zero")]
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    #[serde(skip_serializing_if = "zero")]
    pub message: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceStatus {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
}

/// The answer to an update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceUpdateResponse {
    pub warnings: Option<Vec<String>>,
}
