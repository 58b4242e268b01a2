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
mod tests;
