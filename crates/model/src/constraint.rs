//! Placement constraints: `node.role == manager`, `node.labels.zone != east`.

use std::fmt;
use std::str::FromStr;

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
    /// Whether `node` meets it. Values are compared without regard to case, as Docker does.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let equal = self.property(node).is_some_and(|actual| actual.eq_ignore_ascii_case(&self.value));
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
