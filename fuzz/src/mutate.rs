//! Spoils valid inputs.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Numbers at which something turns over, in both orders of bytes.
const EDGES: [&[u8]; 8] = [
    &[0],
    &[0x7f],
    &[0xff],
    &[0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0x7f],
    // The largest number as LEB128.
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
];
/// What texts are made of.
const WORDS: [&str; 14] = [
    "-1",
    "0",
    "18446744073709551616",
    "1e400",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\u{0}",
    "..",
    "/",
    "\\ud800",
    "é",
];

/// Spoils inputs, the same way with the same seed.
#[derive(Debug)]
pub struct Mutator {
    rng: StdRng,
}

impl Mutator {
    /// One that `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// One of `inputs`, spoiled in one to five ways; another one of them may have a part in it.
    ///
    /// # Panics
    /// When there are none.
    pub fn spoil<T: AsRef<[u8]>>(&mut self, inputs: &[T]) -> Vec<u8> {
        let mut bytes = self.choose(inputs).as_ref().to_vec();
        for _ in 0..self.rng.random_range(1..=5) {
            self.step(&mut bytes, inputs);
        }
        bytes
    }

    fn step<T: AsRef<[u8]>>(&mut self, bytes: &mut Vec<u8>, inputs: &[T]) {
        let at = self.rng.random_range(0..=bytes.len());
        let end = self.rng.random_range(at..=bytes.len());
        let near = end.min(at + self.rng.random_range(0..16));
        match self.rng.random_range(0..9) {
            0 => bytes.truncate(at),
            1 | 2 => {
                let bit = 1 << self.rng.random_range(0..8);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
            3 => self.put(bytes, at, |this| this.choose(&EDGES).to_vec()),
            4 => self.put(bytes, at, |this| this.choose(&WORDS).as_bytes().to_vec()),
            5 => drop(bytes.drain(at..near)),
            // Lists get longer, and nests deeper.
            6 => {
                let again = bytes[at..near].repeat(self.rng.random_range(1..4));
                drop(bytes.splice(at..at, again));
            }
            7 => {
                let other = self.choose(inputs).as_ref().to_vec();
                let from = self.rng.random_range(0..=other.len());
                let upto = self.rng.random_range(from..=other.len());
                drop(bytes.splice(at..near, other[from..upto].iter().copied()));
            }
            _ => {
                let other = self.choose(inputs).as_ref();
                let from = at.min(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }

    /// Puts something in, or over what is there.
    fn put(&mut self, bytes: &mut Vec<u8>, at: usize, what: impl FnOnce(&mut Self) -> Vec<u8>) {
        let what = what(self);
        let over = if self.rng.random_bool(0.5) { what.len() } else { 0 };
        let end = bytes.len().min(at + over);
        drop(bytes.splice(at..end, what));
    }

    fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.random_range(0..of.len())]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_spoils_the_same_way_and_others_differ() {
        let spoil = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..100).map(|_| mutator.spoil(&[b"{\"a\":[1,2]}".as_slice(), b"", b"x"])).collect::<Vec<_>>()
        };
        assert_eq!(spoil(1), spoil(1));
        assert_ne!(spoil(1), spoil(2));
        assert!(spoil(3).into_iter().collect::<BTreeSet<_>>().len() > 60);
    }
}
