//! Maglev hashing: which backend a new flow goes to.
//!
//! The algorithm is section 3.4 of Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer* (NSDI 2016). Every
//! backend has its own permutation of the slots; backends take turns to claim the next free slot of theirs. The outcome depends
//! only on the set of names and weights, never on their order or on the node that computes it, so all nodes send the
//! same flow to the same backend without telling each other.

/// Slots of a table: a prime, so that every step width visits every slot, and as many as fit into a page of two bytes each. With 100 backends shares differ by at most 5 %.
pub const SLOTS: usize = 2003;

/// A backend as the table sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// What identifies it on every node: the task's id.
    pub name: &'a str,
    /// Its share relative to the others; one with 0 gets no slot.
    pub weight: u32,
}

/// Fills the slots with indexes into `candidates`. Empty when no candidate has a weight. Names must differ from each other. With
/// more candidates than [`SLOTS`], those at the end of the order of names get none.
#[must_use]
pub fn table(candidates: &[Candidate<'_>]) -> Vec<u32> {
    let mut turns: Vec<Turn> = candidates.iter().enumerate().filter(|(_, c)| c.weight > 0).map(Turn::new).collect();
    turns.sort_by_key(|turn| candidates[turn.index as usize].name);
    let Some(heaviest) = turns.iter().map(|turn| turn.weight).max() else { return Vec::new() };
    let mut slots = vec![None; SLOTS];
    let mut free = SLOTS;
    while free > 0 {
        for turn in &mut turns {
            if free > 0 && turn.comes(heaviest) {
                turn.claim(&mut slots);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// One candidate's way through its permutation.
struct Turn {
    index: u32,
    weight: u64,
    credit: u64,
    next: usize,
    step: usize,
}

impl Turn {
    fn new((index, candidate): (usize, &Candidate<'_>)) -> Self {
        let slots = SLOTS as u64;
        let next = (hash(candidate.name, 0x5eed_0001) % slots) as usize;
        let step = (hash(candidate.name, 0x5eed_0002) % (slots - 1) + 1) as usize;
        Self {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            weight: u64::from(candidate.weight),
            credit: 0,
            next,
            step,
        }
    }

    /// Whether it claims a slot in this round: the heaviest in every round, others in proportion.
    fn comes(&mut self, heaviest: u64) -> bool {
        self.credit += self.weight;
        let due = self.credit >= heaviest;
        if due {
            self.credit -= heaviest;
        }
        due
    }

    fn claim(&mut self, slots: &mut [Option<u32>]) {
        while slots[self.next].is_some() {
            self.next = (self.next + self.step) % slots.len();
        }
        slots[self.next] = Some(self.index);
    }
}

/// FNV-1a with the finalizer of splitmix64: small, the same everywhere, and even enough for identifiers.
pub(crate) fn hash(text: &str, seed: u64) -> u64 {
    let fnv = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let state = text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, fnv);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn by_name(names: &[String], weights: &[u32]) -> Vec<String> {
        let candidates: Vec<_> = names.iter().zip(weights).map(|(name, &weight)| Candidate { name, weight }).collect();
        table(&candidates).into_iter().map(|i| names[i as usize].clone()).collect()
    }

    fn shares(slots: &[String]) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for name in slots {
            *shares.entry(name.as_str()).or_default() += 1;
        }
        shares
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::btree_set("[0-9a-z]{25}", 1..60).prop_map(|set| set.into_iter().collect())
    }

    #[test]
    fn nobody_gives_an_empty_table() {
        assert!(table(&[]).is_empty());
        assert!(table(&[Candidate { name: "a", weight: 0 }]).is_empty());
    }

    #[test]
    fn weights_are_kept() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let slots = by_name(&names, &[1, 2, 5]);
        let shares = shares(&slots);
        for (name, weight) in [("a", 1.0), ("b", 2.0), ("c", 5.0)] {
            let want = SLOTS as f64 * weight / 8.0;
            assert!((shares[name] as f64 - want).abs() <= 2.0, "{name}: {} of {SLOTS}", shares[name]);
        }
    }

    proptest! {
        #[test]
        fn equal_weights_get_equal_shares(names in names()) {
            let slots = by_name(&names, &vec![1; names.len()]);
            prop_assert_eq!(slots.len(), SLOTS);
            let counts: BTreeSet<usize> = shares(&slots).into_values().collect();
            prop_assert!(counts.last().unwrap() - counts.first().unwrap() <= 1);
            prop_assert_eq!(shares(&slots).len(), names.len());
        }

        #[test]
        fn the_order_of_candidates_does_not_matter(names in names(), turn in 0usize..60) {
            let weights: Vec<u32> = names.iter().map(|n| 1 + u32::from(n.as_bytes()[0] % 3)).collect();
            let mut turned = names.clone();
            turned.rotate_left(turn % names.len());
            let turned_weights: Vec<u32> = turned.iter().map(|n| 1 + u32::from(n.as_bytes()[0] % 3)).collect();
            prop_assert_eq!(by_name(&names, &weights), by_name(&turned, &turned_weights));
        }

        #[test]
        fn losing_one_moves_little_else(names in names(), lost in 0usize..60) {
            prop_assume!(names.len() > 1);
            let before = by_name(&names, &vec![1; names.len()]);
            let gone = names[lost % names.len()].clone();
            let rest: Vec<String> = names.iter().filter(|n| **n != gone).cloned().collect();
            let after = by_name(&rest, &vec![1; rest.len()]);
            let moved = before.iter().zip(&after).filter(|(b, a)| **b != gone && a != b).count();
            // The paper's evaluation sees a few per cent beyond the slots that had to move.
            prop_assert!(moved <= SLOTS / names.len() + SLOTS / 10, "{moved} of {SLOTS} moved without need");
        }
    }
}
