//! Generic resources.

use std::collections::BTreeMap;

use skep_model::generic::is_kind;
use skep_model::{GenericResource, GenericResources};

use super::signed;
use crate::error::Error;
use crate::types::generic as wire;

/// Reads what a service asks for: numbers, because which ones a task gets is the scheduler's to say.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for names, for a kind that is given twice, and for less than one.
pub(super) fn asked(wire: &[wire::GenericResource]) -> Result<BTreeMap<String, u64>, Error> {
    let field = "TaskTemplate.Resources.Reservations.GenericResources";
    let mut all = BTreeMap::new();
    for one in wire {
        let Some(discrete) = &one.discrete_resource_spec else {
            return Err(Error::invalid(format!(
                "{field}: a service asks for a number of a kind, such as gpu=2, not for one by its name"
            )));
        };
        let kind = &discrete.kind;
        if !is_kind(kind) {
            return Err(Error::invalid(format!(
                "{field}: {kind:?} is no kind of resources: use letters, digits, - and _"
            )));
        }
        let count = u64::try_from(discrete.value).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| {
            Error::invalid(format!("{field}: {kind}={}: there must be at least one of a kind", discrete.value))
        })?;
        if all.insert(kind.clone(), count).is_some() {
            return Err(Error::invalid(format!("{field}: {kind} is asked for twice")));
        }
    }
    Ok(all)
}

/// Writes what a service asks for.
pub(super) fn asked_to_wire(asked: &BTreeMap<String, u64>) -> Vec<wire::GenericResource> {
    asked.iter().map(|(kind, count)| discrete(kind, *count)).collect()
}

/// Writes what a node has, or what a task was given.
pub(super) fn to_wire(all: &GenericResources) -> Vec<wire::GenericResource> {
    let one = |(kind, one): (&String, &GenericResource)| match one {
        GenericResource::Count(count) => vec![discrete(kind, *count)],
        GenericResource::Named(names) => names.iter().map(|name| named(kind, name)).collect(),
    };
    all.iter().flat_map(one).collect()
}

fn discrete(kind: &str, count: u64) -> wire::GenericResource {
    let spec = wire::DiscreteResource { kind: kind.to_owned(), value: signed(count) };
    wire::GenericResource { discrete_resource_spec: Some(spec), ..Default::default() }
}

fn named(kind: &str, name: &str) -> wire::GenericResource {
    let spec = wire::NamedResource { kind: kind.to_owned(), value: name.to_owned() };
    wire::GenericResource { named_resource_spec: Some(spec), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<BTreeMap<String, u64>, String> {
        asked(&serde_json::from_value::<Vec<wire::GenericResource>>(value).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_are_asked_for() {
        let given = json!([
            { "DiscreteResourceSpec": { "Kind": "gpu", "Value": 2 } },
            { "DiscreteResourceSpec": { "Kind": "ssd", "Value": 1 } },
        ]);
        let all = read(given.clone()).unwrap();
        assert_eq!(all, BTreeMap::from([("gpu".to_owned(), 2), ("ssd".to_owned(), 1)]));
        assert_eq!(serde_json::to_value(asked_to_wire(&all)).unwrap(), given);
        for (bad, why) in [
            (json!([{ "NamedResourceSpec": { "Kind": "gpu", "Value": "a" } }]), "not for one by its name"),
            (json!([{ "DiscreteResourceSpec": { "Kind": "gpu", "Value": -1 } }]), "gpu=-1: there must be at least one"),
            (json!([{ "DiscreteResourceSpec": { "Kind": "gpu" } }]), "at least one"),
            (json!([{ "DiscreteResourceSpec": { "Kind": "g=u", "Value": 1 } }]), "no kind of resources"),
            (json!([given[0], given[0]]), "gpu is asked for twice"),
        ] {
            let refused = read(bad).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn what_there_is_is_shown_one_by_one() {
        let names = GenericResource::Named(vec!["a".to_owned(), "b".to_owned()]);
        let all = GenericResources::from([("gpu".to_owned(), names), ("ssd".to_owned(), GenericResource::Count(3))]);
        let expected = json!([
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "a" } },
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "b" } },
            { "DiscreteResourceSpec": { "Kind": "ssd", "Value": 3 } },
        ]);
        assert_eq!(serde_json::to_value(to_wire(&all)).unwrap(), expected);
    }
}
