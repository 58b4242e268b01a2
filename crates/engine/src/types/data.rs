//! Secrets and configs.

use serde::{Deserialize, Serialize};

use super::meta::{Driver, ObjectVersion, StringMap, Time};
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DataSpec {
    pub name: String,
    pub labels: StringMap,
    /// Base64; never shown for secrets.
    #[serde(skip_serializing_if = "zero")]
    pub data: String,
    #[serde(skip_serializing_if = "zero")]
    pub driver: Option<Driver>,
    #[serde(skip_serializing_if = "zero")]
    pub templating: Option<Driver>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Data {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: DataSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Created {
    #[serde(rename = "ID")]
    pub id: String,
}
