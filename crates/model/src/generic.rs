//! Resources that the operator of a node names: `gpu=2`, or `gpu=UUID1,gpu=UUID2`.
//!
//! A node has so many of a kind that are all alike, or some that have names. A task asks for a number of a kind, and is given as many of what no
//! other task has: by number, or by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many a node has of a kind or a task has been given, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GenericResource {
    /// So many, all alike.
    Count(u64),
    /// These.
    Named(Vec<String>),
}

/// Resources by kind.
pub type GenericResources = BTreeMap<String, GenericResource>;

/// Not a description of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("generic resource {text:?}: {reason}")]
pub struct BadGenericResource {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl GenericResource {
    /// Reads what the operator of a node says that it has: `gpu=2` or `gpu=UUID1`, each for itself or several with commas.
    ///
    /// # Errors
    /// For what is not `KIND=VALUE`, for zero of a kind, for the same name twice, and for a kind with a number and anything else.
    pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<GenericResources, BadGenericResource> {
        let mut all = GenericResources::new();
        for text in texts.iter().flat_map(|text| text.as_ref().split(',')) {
            let bad = |reason| BadGenericResource { text: text.to_owned(), reason };
            let (kind, value) =
                text.split_once('=').ok_or(bad("use KIND=NUMBER, as gpu=2, or KIND=NAME, as gpu=UUID1"))?;
            if !is_kind(kind) || value.is_empty() || value.contains(char::is_whitespace) {
                return Err(bad("use KIND=NUMBER, as gpu=2, or KIND=NAME, as gpu=UUID1"));
            }
            let one = match value.parse() {
                Ok(0) => return Err(bad("there must be at least one of a kind")),
                Ok(count) => Self::Count(count),
                Err(_) if value.starts_with('-') => return Err(bad("there must be at least one of a kind")),
                Err(_) => Self::Named(vec![value.to_owned()]),
            };
            match (all.get_mut(kind), one) {
                (None, one) => drop(all.insert(kind.to_owned(), one)),
                (Some(Self::Named(names)), Self::Named(more)) if !names.contains(&more[0]) => names.extend(more),
                (Some(Self::Named(_)), Self::Named(_)) => return Err(bad("it is named twice")),
                _ => return Err(bad("a kind has one number, or names")),
            }
        }
        Ok(all)
    }

    /// The value of the variable that tells a container: the number, or the names with commas.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Named(names) => names.join(","),
        }
    }
}

/// Whether a kind of resources may be called so: it becomes part of a variable's name.
#[must_use]
pub fn is_kind(kind: &str) -> bool {
    !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

/// The variables that tell a container what its task was given: `DOCKER_RESOURCE_GPU=UUID1,UUID2`.
#[must_use]
pub fn environment(given: &GenericResources) -> Vec<String> {
    given.iter().map(|(kind, one)| format!("DOCKER_RESOURCE_{}={}", kind.to_ascii_uppercase(), one.value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has_is_said_at_once_or_one_by_one() {
        let named = |names: &[&str]| GenericResource::Named(names.iter().map(|n| (*n).to_owned()).collect());
        let expected = GenericResources::from([
            ("gpu".to_owned(), named(&["UUID1", "UUID2"])),
            ("ssd".to_owned(), GenericResource::Count(3)),
        ]);
        assert_eq!(GenericResource::parse_all(&["gpu=UUID1", "ssd=3", "gpu=UUID2"]).unwrap(), expected);
        assert_eq!(GenericResource::parse_all(&["gpu=UUID1,gpu=UUID2,ssd=3"]).unwrap(), expected);
        assert_eq!(environment(&expected), ["DOCKER_RESOURCE_GPU=UUID1,UUID2", "DOCKER_RESOURCE_SSD=3"]);
        assert!(GenericResource::parse_all::<&str>(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |texts: &[&str]| GenericResource::parse_all(texts).unwrap_err().to_string();
        for text in ["gpu", "=2", "gpu=", "g u=1", "gpu=a b", ""] {
            assert!(refused(&[text]).contains("use KIND=NUMBER"), "{text}");
        }
        for text in ["gpu=0", "gpu=-1"] {
            assert!(refused(&[text]).contains("at least one"), "{text}");
        }
        assert_eq!(refused(&["gpu=a", "gpu=a"]), "generic resource \"gpu=a\": it is named twice");
        for texts in [["gpu=2", "gpu=3"], ["gpu=2", "gpu=a"], ["gpu=a", "gpu=2"]] {
            assert!(refused(&texts).contains("one number, or names"), "{texts:?}");
        }
    }
}
