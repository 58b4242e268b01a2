//! Registries: credentials, and what a reference means to one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::zero;

/// `X-Registry-Auth`, and the body of `/auth`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct AuthConfig {
    #[serde(skip_serializing_if = "zero")]
    pub username: String,
    #[serde(skip_serializing_if = "zero")]
    pub password: String,
    /// `username:password` in base64; where it is given, the two are not.
    #[serde(skip_serializing_if = "zero")]
    pub auth: String,
    #[serde(skip_serializing_if = "zero")]
    pub serveraddress: String,
    #[serde(skip_serializing_if = "zero")]
    pub identitytoken: String,
    #[serde(skip_serializing_if = "zero")]
    pub registrytoken: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthConfig({:?} at {:?})", self.username, self.serveraddress)
    }
}

/// The answer of `/auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    pub identity_token: String,
    pub status: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DistributionInspect {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "zero")]
    pub variant: String,
}
