//! Events.

use serde::{Deserialize, Serialize};

use super::meta::StringMap;
use super::zero;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Event {
    #[serde(rename = "Type")]
    pub kind: String,
    pub action: String,
    pub actor: Actor,
    /// `swarm` or `local`.
    #[serde(rename = "scope", skip_serializing_if = "zero")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(rename = "time", skip_serializing_if = "zero")]
    pub time: i64,
    #[serde(rename = "timeNano", skip_serializing_if = "zero")]
    pub time_nano: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    pub attributes: StringMap,
}
