//! Placement constraints: `node.role == manager`, `node.labels.zone != east`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::{Node, Role};

/// How a constraint compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// A text that is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConstraint {
    /// Neither `==` nor `!=`, or both.
    #[error("constraint expected one operator from ==, !=, and {0:?} has none or several")]
    Operator(String),
    /// A key that nodes do not have.
    #[error(
        "constraint {0:?} asks for an unknown property; known are node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.<name> and engine.labels.<name>"
    )]
    Key(String),
    /// Nothing to compare with.
    #[error("constraint {0:?} has nothing behind its operator")]
    Value(String),
    /// `node.ip` compared with something else.
    #[error(
        "constraint {0:?} compares node.ip with neither an address, like 192.0.2.1, nor a network, like 2001:db8::/32"
    )]
    Address(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    PlatformOs,
    PlatformArch,
    NodeLabel(String),
    EngineLabel(String),
}

/// One condition on the node that a task may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    operator: Operator,
    value: String,
}

impl Constraint {
    /// Whether `node` meets it. Values are compared without regard to case, and an address may be within a network, as Docker does.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let equal = match (&self.key, node.status.addr) {
            (Key::Ip, Some(addr)) => network(&self.value).is_some_and(|network| network.contains(&addr)),
            _ => self.property(node).is_some_and(|actual| actual.eq_ignore_ascii_case(&self.value)),
        };
        match self.operator {
            Operator::Equal => equal,
            Operator::NotEqual => !equal,
        }
    }

    fn property(&self, node: &Node) -> Option<String> {
        let description = node.description.as_ref();
        match &self.key {
            Key::Id => Some(node.id.to_string()),
            Key::Hostname => description.map(|d| d.hostname.clone()),
            Key::Ip => node.status.addr.map(|a| a.to_string()),
            Key::Role => Some(match node.spec.role {
                Role::Worker => "worker".to_owned(),
                Role::Manager => "manager".to_owned(),
            }),
            Key::PlatformOs => description.map(|d| d.platform.os.clone()),
            Key::PlatformArch => description.map(|d| d.platform.architecture.clone()),
            // A label that is not there counts as empty, so `!=` holds and `==` against a value does not.
            Key::NodeLabel(name) => Some(node.spec.labels.get(name).cloned().unwrap_or_default()),
            Key::EngineLabel(name) => {
                Some(description.and_then(|d| d.engine.labels.get(name).cloned()).unwrap_or_default())
            }
        }
    }
}

/// A network, or an address as a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn key(text: &str) -> Option<Key> {
    let label = |prefix: &str| text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(name) = label("node.labels.") {
        return Some(Key::NodeLabel(name));
    }
    if let Some(name) = label("engine.labels.") {
        return Some(Key::EngineLabel(name));
    }
    match text.to_ascii_lowercase().as_str() {
        "node.id" => Some(Key::Id),
        "node.hostname" => Some(Key::Hostname),
        "node.ip" => Some(Key::Ip),
        "node.role" => Some(Key::Role),
        "node.platform.os" => Some(Key::PlatformOs),
        "node.platform.arch" => Some(Key::PlatformArch),
        _ => None,
    }
}

impl FromStr for Constraint {
    type Err = BadConstraint;
    fn from_str(text: &str) -> Result<Self, BadConstraint> {
        let whole = || text.to_owned();
        let (left, operator, right) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((l, r)), None) => (l, Operator::Equal, r),
            (None, Some((l, r))) => (l, Operator::NotEqual, r),
            _ => return Err(BadConstraint::Operator(whole())),
        };
        let key = key(left.trim()).ok_or_else(|| BadConstraint::Key(whole()))?;
        let value = right.trim();
        if value.is_empty() {
            return Err(BadConstraint::Value(whole()));
        }
        if key == Key::Ip && network(value).is_none() {
            return Err(BadConstraint::Address(whole()));
        }
        Ok(Self { key, operator, value: value.to_owned() })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Availability, Meta, NodeId, NodeSpec, NodeState, NodeStatus, Timestamp};

    fn node(addr: &str) -> Node {
        Node {
            id: NodeId::random(),
            meta: Meta::new(Timestamp::UNIX_EPOCH),
            spec: NodeSpec {
                name: None,
                labels: Default::default(),
                role: Role::Worker,
                availability: Availability::Active,
            },
            description: None,
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                addr: Some(addr.parse().unwrap()),
                port_conflicts: vec![],
                machine_answers: false,
            },
            manager: None,
            overlay_addr: None,
            credential: String::new(),
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written_and_may_be_within_a_network() {
        for (constraint, addr, matches) in [
            ("node.ip == 2001:DB8:0:0::1", "2001:db8::1", true),
            ("node.ip == 2001:db8::/32", "2001:db8::1", true),
            ("node.ip != 2001:db8::/32", "2001:db8::1", false),
            ("node.ip == 2001:db8::2", "2001:db8::1", false),
            ("node.ip == 192.0.2.0/24", "192.0.2.1", true),
            ("node.ip == 192.0.2.0/24", "2001:db8::1", false),
            ("node.ip == 192.0.2.1", "192.0.2.1", true),
        ] {
            let parsed: Constraint = constraint.parse().unwrap();
            assert_eq!(parsed.matches(&node(addr)), matches, "{constraint} on {addr}");
        }
        let refused = "node.ip == node1".parse::<Constraint>().unwrap_err();
        assert_eq!(refused, BadConstraint::Address("node.ip == node1".to_owned()));
    }
}
