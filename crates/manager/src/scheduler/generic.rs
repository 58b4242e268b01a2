//! Generic resources of a node: what is left of them, and who gets which.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{GenericResource, GenericResources};

/// What tasks of a node have been given and not given back.
#[derive(Debug, Default)]
pub(super) struct Given {
    counts: BTreeMap<String, u64>,
    names: BTreeSet<(String, String)>,
}

impl Given {
    pub(super) fn add(&mut self, task: &GenericResources) {
        for (kind, one) in task {
            match one {
                GenericResource::Count(count) => *self.counts.entry(kind.clone()).or_default() += count,
                GenericResource::Named(names) => self.names.extend(names.iter().map(|n| (kind.clone(), n.clone()))),
            }
        }
    }

    /// What a task that asks for `wanted` gets of what a node `has`; `None` when there is not enough left of something.
    pub(super) fn give(&self, has: &GenericResources, wanted: &BTreeMap<String, u64>) -> Option<GenericResources> {
        let one = |(kind, count): (&String, &u64)| Some((kind.clone(), self.give_one(has.get(kind)?, kind, *count)?));
        wanted.iter().map(one).collect()
    }

    fn give_one(&self, has: &GenericResource, kind: &str, count: u64) -> Option<GenericResource> {
        match has {
            GenericResource::Count(all) => {
                let given = self.counts.get(kind).copied().unwrap_or_default();
                (given.saturating_add(count) <= *all).then_some(GenericResource::Count(count))
            }
            GenericResource::Named(names) => {
                let free = |name: &&String| !self.names.contains(&(kind.to_owned(), (*name).clone()));
                let count = usize::try_from(count).ok()?;
                let chosen: Vec<_> = names.iter().filter(free).take(count).cloned().collect();
                (chosen.len() == count).then_some(GenericResource::Named(chosen))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(texts: &[&str]) -> GenericResources {
        GenericResource::parse_all(texts).unwrap()
    }

    fn wants(kind: &str, count: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([(kind.to_owned(), count)])
    }

    #[test]
    fn as_many_are_given_as_there_are() {
        let (node, mut given) = (has(&["gpu=3"]), Given::default());
        for left in [true, false] {
            let two = given.give(&node, &wants("gpu", 2));
            assert_eq!(two, left.then(|| has(&["gpu=2"])));
            two.iter().for_each(|two| given.add(two));
        }
        assert_eq!(given.give(&node, &wants("gpu", 1)), Some(has(&["gpu=1"])));
        assert_eq!(given.give(&node, &wants("fpga", 1)), None);
        assert_eq!(given.give(&node, &BTreeMap::new()), Some(GenericResources::new()));
        assert_eq!(given.give(&node, &wants("gpu", u64::MAX)), None);
    }

    #[test]
    fn what_has_a_name_is_given_once() {
        let (node, mut given) = (has(&["gpu=a,gpu=b,gpu=c"]), Given::default());
        let first = given.give(&node, &wants("gpu", 2)).unwrap();
        assert_eq!(first, has(&["gpu=a,gpu=b"]));
        given.add(&first);
        assert_eq!(given.give(&node, &wants("gpu", 1)), Some(has(&["gpu=c"])));
        assert_eq!(given.give(&node, &wants("gpu", 2)), None);
        // The same name of another kind is another thing.
        assert_eq!(given.give(&has(&["fpga=a"]), &wants("fpga", 1)), Some(has(&["fpga=a"])));
    }
}
