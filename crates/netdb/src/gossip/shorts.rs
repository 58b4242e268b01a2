//! Owners in short: datagrams are full of them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use skep_model::NodeId;

use crate::wire;

/// Bytes of an owner in short.
pub(crate) const SHORT_LEN: usize = 5;

/// 40 bits of an owner's identifier. What members say that have the same is not believed of either when it comes in a datagram, and is known by
/// exchanges alone; among 1,000 members that happens in one swarm of two millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Short(u64);

impl Short {
    pub(crate) fn of(node: &NodeId) -> Self {
        Self(wire::head(node.as_str()) & 0xff_ffff_ffff)
    }

    pub(crate) fn to_bytes(self) -> [u8; SHORT_LEN] {
        let [_, _, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; SHORT_LEN]) -> Self {
        Self(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Identifiers are random, and made by managers: spreading them over all bits is enough (Fibonacci hashing, Knuth, TAOCP 6.4).
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 << 8 | u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The members, by as much of their identifier.
#[derive(Debug, Default)]
pub(super) struct Shorts(HashMap<Short, Known, BuildHasherDefault<Spread>>);

/// A member, and a version of its table that is known here: that one or a later one.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) node: NodeId,
    pub(super) version: u64,
}

impl Shorts {
    /// Those that cannot be told from another are not in it.
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a NodeId>) -> Self {
        let (mut shorts, mut twice) = (Self::default(), Vec::new());
        for node in members {
            let short = Short::of(node);
            if shorts.0.insert(short, Known { node: node.clone(), version: 0 }).is_some() {
                twice.push(short);
            }
        }
        shorts.0.retain(|short, _| !twice.contains(short));
        shorts
    }

    pub(super) fn get_mut(&mut self, short: Short) -> Option<&mut Known> {
        self.0.get_mut(&short)
    }

    pub(super) fn node(&self, short: Short) -> Option<&NodeId> {
        self.0.get(&short).map(|known| &known.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_told_from_another_is_left_out() {
        let ids = ["000000000001", "000000000002", "000000000001"].map(|head| format!("{head}{}", "0".repeat(13)));
        let mut ids = ids.map(|id| id.parse::<NodeId>().unwrap());
        let shorts = Shorts::of(ids.iter());
        assert_eq!(ids.iter().filter(|id| shorts.node(Short::of(id)) == Some(id)).count(), 1);
        ids[2] = NodeId::random();
        let shorts = Shorts::of(ids.iter());
        for id in &ids {
            assert_eq!(shorts.node(Short::from_bytes(Short::of(id).to_bytes())), Some(id));
        }
    }
}
