//! Volumes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{StringMap, Time};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    pub created_at: Time,
    pub driver: String,
    pub labels: Option<StringMap>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<StringMap>,
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageData {
    pub ref_count: i64,
    /// -1 when it cannot be told.
    pub size: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeList {
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    #[serde(skip_serializing_if = "zero")]
    pub cluster_volume_spec: Option<Value>,
    #[serde(skip_serializing_if = "zero")]
    pub driver: String,
    #[serde(skip_serializing_if = "zero")]
    pub driver_opts: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Pruned {
    pub volumes_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}
