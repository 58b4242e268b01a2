//! Nodes.

use std::collections::BTreeMap;

use skep_model::{Node, NodeDescription, NodeSpec, Role};

use super::{conflict, generic, optional, signed, text};
use crate::backend::cluster::Issuer;
use crate::error::Error;
use crate::types::meta::ObjectVersion;
use crate::types::node as wire;

/// The Engine API's words for what nodes are.
pub(crate) mod words {
    use skep_model::{Availability, NodeState, Reachability, Role};

    pub(crate) fn role(role: Role) -> &'static str {
        match role {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }

    pub(crate) fn availability(availability: Availability) -> &'static str {
        match availability {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        }
    }

    pub(crate) fn state(state: NodeState) -> &'static str {
        match state {
            NodeState::Unknown => "unknown",
            NodeState::Down => "down",
            NodeState::Ready => "ready",
            NodeState::Disconnected => "disconnected",
        }
    }

    pub(crate) fn reachability(reachability: Reachability) -> &'static str {
        match reachability {
            Reachability::Unknown => "unknown",
            Reachability::Unreachable => "unreachable",
            Reachability::Reachable => "reachable",
        }
    }
}

/// Reads a word for what may run on a node; nothing is `active`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for another word.
pub fn availability(word: &str) -> Result<skep_model::Availability, Error> {
    use skep_model::Availability;
    match word.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(Error::invalid(format!("invalid Availability: {word:?}: expected active, pause or drain"))),
    }
}

/// Reads a node's spec.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for words that mean nothing.
pub fn spec_from_wire(spec: &wire::NodeSpec) -> Result<NodeSpec, Error> {
    let role = match spec.role.to_ascii_lowercase().as_str() {
        "worker" => Role::Worker,
        "manager" => Role::Manager,
        _ => return Err(Error::invalid(format!("invalid Role: {:?}: expected worker or manager", spec.role))),
    };
    if spec.availability.is_empty() {
        return Err(Error::invalid("invalid Availability: \"\": expected active, pause or drain"));
    }
    Ok(NodeSpec {
        name: optional(&spec.name),
        labels: spec.labels.clone(),
        role,
        availability: availability(&spec.availability)?,
    })
}

/// Writes a node.
#[must_use]
pub fn to_wire(node: &Node, issuers: &BTreeMap<String, Issuer>) -> wire::Node {
    wire::Node {
        id: node.id.to_string(),
        version: ObjectVersion { index: node.meta.version.0 },
        created_at: node.meta.created.into(),
        updated_at: node.meta.updated.into(),
        spec: wire::NodeSpec {
            name: text(node.spec.name.as_ref()),
            labels: node.spec.labels.clone(),
            role: words::role(node.spec.role).to_owned(),
            availability: words::availability(node.spec.availability).to_owned(),
        },
        description: node.description.as_ref().map(|d| description(d, issuers)).unwrap_or_default(),
        status: wire::NodeStatus {
            state: words::state(node.status.state).to_owned(),
            message: message(node),
            addr: node.status.addr.map(|a| a.to_string()).unwrap_or_default(),
        },
        manager_status: node.manager.as_ref().map(|m| wire::ManagerStatus {
            leader: m.leader,
            reachability: words::reachability(m.reachability).to_owned(),
            addr: m.addr.to_string(),
        }),
    }
}

/// Why the node is as it is, or what it cannot do although it is ready.
fn message(node: &Node) -> String {
    if node.status.message.is_empty() { conflict::of_node(node) } else { node.status.message.clone() }
}

fn description(description: &NodeDescription, issuers: &BTreeMap<String, Issuer>) -> wire::NodeDescription {
    let plugin = |(kind, name): (&str, &str)| wire::PluginDescription { kind: kind.to_owned(), name: name.to_owned() };
    wire::NodeDescription {
        hostname: description.hostname.clone(),
        platform: wire::Platform {
            architecture: description.platform.architecture.clone(),
            os: description.platform.os.clone(),
        },
        resources: wire::NodeResources {
            nano_cpus: signed(description.resources.nano_cpus),
            memory_bytes: signed(description.resources.memory),
            generic_resources: generic::to_wire(&description.resources.generic),
        },
        engine: wire::EngineDescription {
            engine_version: description.engine.version.clone(),
            labels: description.engine.labels.clone(),
            plugins: [("Log", "json-file"), ("Network", "overlay"), ("Volume", "local")].map(plugin).to_vec(),
        },
        tls_info: description.tls.as_ref().map(|tls| tls_info(&tls.roots, &tls.issuer, issuers)).unwrap_or_default(),
    }
}

/// Writes which root certificates somebody trusts, and which one his certificate is under.
pub(super) fn tls_info(roots: &str, issuer: &str, issuers: &BTreeMap<String, Issuer>) -> wire::TlsInfo {
    let named = issuers.get(issuer);
    wire::TlsInfo {
        trust_root: roots.to_owned(),
        cert_issuer_subject: named.map(|named| named.subject.clone()).unwrap_or_default(),
        cert_issuer_public_key: named.map(|named| named.public_key.clone()).unwrap_or_default(),
    }
}
