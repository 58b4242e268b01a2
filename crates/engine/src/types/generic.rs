//! Generic resources: those of a node, and those that tasks ask for and are given.

use serde::{Deserialize, Serialize};

use super::zero;

/// A number of a kind, or one of a kind by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GenericResource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_resource_spec: Option<NamedResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NamedResource {
    #[serde(skip_serializing_if = "zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiscreteResource {
    #[serde(skip_serializing_if = "zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub value: i64,
}
