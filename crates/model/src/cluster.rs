//! The swarm's own object: one per store.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, GossipKeys, Meta, Node};

/// The stored swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// What people ask of it.
    pub spec: ClusterSpec,
    /// What lets a node in.
    pub join: JoinSecrets,
    /// What makes and checks the certificates of its nodes.
    pub authority: Authority,
    /// What a manager needs to start, when the swarm is locked.
    #[serde(default)]
    pub unlock_key: Option<UnlockSecret>,
    /// The pools that networks without a subnet of their own are cut from.
    pub default_pools: Vec<Ipv4Net>,
    /// Prefix length of such networks.
    pub subnet_size: u8,
    /// UDP port of the overlay between nodes.
    pub data_path_port: u16,
    /// The number that a network was given last; 0 when none was.
    #[serde(default)]
    pub last_vni: u32,
    /// By which nodes know each other's talk. A leader makes them when there are none.
    #[serde(default)]
    pub gossip_keys: Option<GossipKeys>,
}

/// What people ask of the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`, as in Docker.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many ended tasks of a slot are kept for `service ps`.
    pub task_history_limit: u64,
    /// Sessions with nodes.
    pub dispatcher: Dispatcher,
    /// Whether a manager needs the unlock key to start.
    #[serde(default)]
    pub autolock: bool,
    /// Certificates of nodes.
    #[serde(default)]
    pub certificates: CertificateSpec,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: BTreeMap::new(),
            task_history_limit: 5,
            dispatcher: Dispatcher { heartbeat: Duration::from_secs(5) },
            autolock: false,
            certificates: CertificateSpec::default(),
        }
    }
}

/// What people ask of the certificates of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSpec {
    /// How long one is valid. It counts for those that are issued from then on.
    pub expiry: Duration,
    /// Another number than before asks for another root.
    pub force_rotate: u64,
}

impl Default for CertificateSpec {
    fn default() -> Self {
        Self { expiry: Duration::from_hours(90 * 24), force_rotate: 0 }
    }
}

/// Sessions with nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatcher {
    /// How long a node may be silent before it counts as lost.
    pub heartbeat: Duration,
}

/// The secret halves of the join tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSecrets {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

impl std::fmt::Debug for JoinSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecrets(…)")
    }
}

/// The swarm's certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The root certificate, in PEM: the one that join tokens name. While it is replaced, the old one.
    pub certificate: String,
    /// The private key of that certificate.
    pub key: PrivateKey,
    /// All root certificates that members trust, each in PEM: the issuing one is among them, and so is every one under which a member may still
    /// have a certificate.
    pub trusted: Vec<String>,
    /// The root that takes the place of that one, from when somebody asks for it until every node has a certificate under it.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

impl Authority {
    /// What nodes are told of it.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let issuer = match &self.rotation {
            None => Some(self.certificate.clone()),
            Some(Rotation { certificate, stage: RotationStage::Issuing, .. }) => Some(certificate.clone()),
            // Whatever a node has is good until all know the new one.
            Some(_) => None,
        };
        Trust { roots: self.trusted.concat(), issuer }
    }

    /// The root that all certificates come to be under, in PEM.
    #[must_use]
    pub fn wanted(&self) -> &str {
        self.rotation.as_ref().map_or(&self.certificate, |rotation| &rotation.certificate)
    }
}

/// A root that takes the place of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The new root certificate, in PEM.
    pub certificate: String,
    /// Its private key.
    pub key: PrivateKey,
    /// The new root's name and key in a certificate that the old root has signed, in PEM: by it who knows the old root alone recognizes what is
    /// issued under the new one.
    pub vouched: String,
    /// How far it has come.
    pub stage: RotationStage,
}

impl Rotation {
    /// Whether the node trusts the new root, as it says itself.
    #[must_use]
    pub fn is_trusted_by(&self, node: &Node) -> bool {
        node.tls().is_some_and(|tls| tls.roots.contains(&self.certificate))
    }

    /// Whether the node has a certificate under the new root, as it says itself.
    #[must_use]
    pub fn has_reached(&self, node: &Node) -> bool {
        node.tls().is_some_and(|tls| tls.issuer == self.certificate)
    }
}

/// How far the replacement of a root has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationStage {
    /// Nodes are told to trust the new root beside the old one, which issues still.
    Announced,
    /// The new root issues, and every node gets a certificate under it.
    Issuing,
}

/// What a node is told of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The root certificates to trust: PEM, one after the other.
    pub roots: String,
    /// The one among them that its own certificate should be under; `None` when that does not matter at present.
    pub issuer: Option<String>,
}

/// The key that an operator keeps when the swarm is locked, as text. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnlockSecret(pub String);

impl std::fmt::Debug for UnlockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockSecret(…)")
    }
}

/// A private key in PEM. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub String);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
