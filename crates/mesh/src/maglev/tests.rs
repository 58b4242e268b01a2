use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Candidates in the order in which a node came to know them.
type Known = Vec<(String, u32)>;

/// Who has each slot.
fn owners(known: &Known) -> Vec<&str> {
    let candidates: Vec<_> = known.iter().map(|(name, weight)| Candidate { name, weight: *weight }).collect();
    table(&candidates).into_iter().map(|i| known[i as usize].0.as_str()).collect()
}

fn shares(known: &Known) -> BTreeMap<&str, usize> {
    let mut shares: BTreeMap<_, _> = known.iter().map(|(name, _)| (name.as_str(), 0)).collect();
    for owner in owners(known) {
        *shares.entry(owner).or_default() += 1;
    }
    shares
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("{n:0>25}"))
}

fn equals(count: usize) -> Known {
    names(count).map(|name| (name, 1)).collect()
}

fn weighted(weight: impl Strategy<Value = u32>) -> impl Strategy<Value = Known> {
    prop::collection::btree_map("[0-9a-z]{25}", weight, 1..60).prop_map(|map| map.into_iter().collect())
}

#[derive(Debug, Clone)]
enum Change {
    Add(String, u32),
    Remove(prop::sample::Index),
    Weigh(prop::sample::Index, u32),
}

fn change(weight: std::ops::Range<u32>) -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>();
    prop_oneof![
        3 => ("[0-9a-z]{25}", weight.clone()).prop_map(|(name, weight)| Change::Add(name, weight)),
        2 => index.clone().prop_map(Change::Remove),
        1 => (index, weight).prop_map(|(index, weight)| Change::Weigh(index, weight)),
    ]
}

fn suffer(known: &mut Known, change: Change) {
    match change {
        Change::Add(name, weight) if known.iter().all(|(other, _)| *other != name) => known.push((name, weight)),
        Change::Remove(which) if !known.is_empty() => drop(known.remove(which.index(known.len()))),
        Change::Weigh(which, weight) if !known.is_empty() => {
            let which = which.index(known.len());
            known[which].1 = weight;
        }
        _ => {}
    }
}

/// Slots that go from one candidate to another although both were there before as they are after.
fn moved_without_need(before: &Known, after: &Known) -> usize {
    let stays = |name: &str| {
        let weight = |known: &Known| known.iter().find(|(other, _)| other == name).map(|(_, weight)| *weight);
        weight(before) == weight(after)
    };
    owners(before).into_iter().zip(owners(after)).filter(|(b, a)| b != a && stays(b) && stays(a)).count()
}

#[test]
fn nobody_gives_an_empty_table() {
    assert!(table(&[]).is_empty());
    assert!(table(&[Candidate { name: "a", weight: 0 }]).is_empty());
}

#[test]
fn one_has_every_slot() {
    for weight in [1, 7, u32::MAX] {
        assert_eq!(table(&[Candidate { name: "a", weight }]), vec![0; SLOTS]);
    }
}

#[test]
fn of_more_than_there_are_slots_the_first_by_name_have_one_each() {
    for count in [SLOTS, SLOTS + 1, SLOTS + 500] {
        let mut known = equals(count);
        known.reverse();
        let shares = shares(&known);
        assert!(names(count).enumerate().all(|(n, name)| shares[name.as_str()] == usize::from(n < SLOTS)), "{count}");
    }
}

#[test]
fn the_heaviest_weight_there_is_leaves_the_lightest_nothing() {
    let known: Known =
        [("a", 1), ("b", u32::MAX), ("c", u32::MAX)].map(|(name, weight)| (name.to_owned(), weight)).to_vec();
    assert_eq!(shares(&known), BTreeMap::from([("a", 0), ("b", SLOTS.div_ceil(2)), ("c", SLOTS / 2)]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// In a round the heaviest claims one slot and another one in proportion, so nobody is ever two slots behind its due; what rounding leaves
    /// over, less than a slot for each, is shared by weight too.
    #[test]
    fn shares_are_in_proportion_to_weights(known in weighted(0..9_u32)) {
        let total: f64 = known.iter().map(|(_, weight)| f64::from(*weight)).sum();
        prop_assume!(total > 0.0);
        let shares = shares(&known);
        prop_assert_eq!(shares.values().sum::<usize>(), SLOTS);
        for (name, weight) in &known {
            let (share, part) = (shares[name.as_str()] as f64, f64::from(*weight) / total);
            let due = SLOTS as f64 * part;
            prop_assert!(due - 2.0 < share, "{name} has {share} of {SLOTS}, due are {due}");
            prop_assert!(share <= due + 1.0 + known.len() as f64 * part, "{name} has {share} of {SLOTS}, due are {due}");
            prop_assert!(*weight > 0 || share == 0.0, "{name} has {share} of {SLOTS} without a weight");
        }
    }

    #[test]
    fn equal_weights_get_equal_shares(known in weighted(Just(3_u32))) {
        let shares = shares(&known);
        let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        prop_assert!(most - least <= 1, "from {least} to {most} of {SLOTS}");
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (known, other) in weighted(0..9_u32).prop_flat_map(|known| (Just(known.clone()), Just(known).prop_shuffle())),
    ) {
        prop_assert_eq!(owners(&known), owners(&other));
    }

    #[test]
    fn a_change_moves_little_else(changes in prop::collection::vec(change(0..2), 1..24)) {
        prop_assert!(most_moved(changes) <= SLOTS / 4);
    }

    /// With a change of the heaviest weight everybody else's turns come at other times.
    #[test]
    fn a_change_of_weights_moves_little_else(changes in prop::collection::vec(change(0..9), 1..24)) {
        prop_assert!(most_moved(changes) <= SLOTS / 3);
    }
}

/// The most slots that one of the changes has moved without need.
fn most_moved(changes: Vec<Change>) -> usize {
    let mut known = equals(8);
    let moved = changes.into_iter().map(|change| {
        let before = known.clone();
        suffer(&mut known, change);
        moved_without_need(&before, &known)
    });
    moved.max().unwrap_or(0)
}

/// Where one leaves, and as well where one comes, not one in twenty of the others' slots moves with it.
#[test]
fn on_average_next_to_nothing_else_moves() {
    for count in [2, 3, 10, 30, 100] {
        let all = equals(count);
        let without = |one: usize| all.iter().enumerate().filter(|(n, _)| *n != one).map(|(_, c)| c.clone()).collect();
        let moved: usize = (0..count).map(|one| moved_without_need(&all, &without(one))).sum();
        assert!(moved * 20 <= count * SLOTS, "of {count} one leaves: {} of {SLOTS} slots move", moved / count);
    }
}
