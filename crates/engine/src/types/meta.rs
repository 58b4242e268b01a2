//! What several objects carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use skep_model::Timestamp;

use super::zero;

/// A map of labels or options.
pub type StringMap = BTreeMap<String, String>;

/// A length of time in nanoseconds, as Go writes it.
pub type Nanoseconds = i64;

/// The version that a write must name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ObjectVersion {
    #[serde(skip_serializing_if = "zero")]
    pub index: u64,
}

/// A point in time; the zero value is the beginning of year 1, as in Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Time(pub Timestamp);

/// Seconds from the beginning of year 1 to 1970.
const YEAR_ONE: i64 = -62_135_596_800;

impl Default for Time {
    fn default() -> Self {
        Self(Timestamp::constant(YEAR_ONE, 0))
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    #[serde(skip_serializing_if = "zero")]
    pub name: String,
    #[serde(skip_serializing_if = "zero")]
    pub options: StringMap,
}

/// The answer to a creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Created {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(skip_serializing_if = "zero")]
    pub warnings: Vec<String>,
}

/// Every refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorMessage {
    pub message: String,
}
