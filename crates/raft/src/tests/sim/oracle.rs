//! Whether what clients saw is linearizable.
//!
//! Every write that is applied gets a version, and every read says at which version it read. That is an order of all of them; what is
//! left to check is that it is the order of a register (each read sees the last write before it), that it respects real time (what began
//! after something ended comes after it), that what was refused is not in it, and that all members applied the same. A
//! write without an answer may be in it, at any place after its beginning, or not.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use skep_model::{NodeId, Version};
use skep_store::ProposeError;

use super::client::{Deed, What};

/// What members have applied: by version, the register and its value.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<Version, (NodeId, String)>);

impl Seen {
    /// A member has applied it.
    pub(super) fn note(&mut self, version: Version, register: &NodeId, value: &str) {
        let new = (register.clone(), value.to_owned());
        let known = self.0.entry(version).or_insert_with(|| new.clone());
        assert_eq!(*known, new, "two members have applied different things as {version:?}");
    }
}

/// What a story amounted to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Summary {
    pub(super) acknowledged: u64,
    pub(super) reads: u64,
    /// Writes without an answer, and how many of them turned out to be applied.
    pub(super) unknown: u64,
    pub(super) unknown_applied: u64,
    pub(super) refused: u64,
    /// Of the group in the end: how many were not in it at first, and how many that were are not.
    pub(super) joined: u64,
    pub(super) left: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.unknown_applied += other.unknown_applied;
        self.refused += other.refused;
        self.joined += other.joined;
        self.left += other.left;
    }
}

/// Checks a whole story.
pub(super) fn check(history: &[Deed], seen: &Seen) -> Summary {
    let mut applied: HashMap<&str, Version> = HashMap::new();
    for (version, (_, value)) in &seen.0 {
        assert_eq!(applied.insert(value, *version), None, "{value} was applied twice, last as {version:?}");
    }
    let mut summary = Summary::default();
    let mut placed = Vec::new();
    for deed in history {
        match &deed.what {
            What::Read { value, at } => {
                summary.reads += 1;
                check_read(seen, deed, value.as_deref(), *at);
                placed.push((deed, *at));
            }
            What::Write { value, base, outcome } => {
                let version = applied.get(value.as_str()).copied();
                check_write(deed, seen, version, outcome, &mut summary);
                if let (Some(version), Some(base)) = (version, base) {
                    assert_eq!(version, base.next(), "applied on another version than planned: {deed:?}");
                }
                placed.extend(version.map(|version| (deed, version)));
            }
        }
    }
    check_time(&placed);
    summary
}

fn check_read(seen: &Seen, deed: &Deed, value: Option<&str>, at: Version) {
    let before = seen.0.range(..=at).rev().find(|(_, (register, _))| *register == deed.register);
    let expected = before.map(|(_, (_, value))| value.as_str());
    assert_eq!(value, expected, "not what was written last before it: {deed:?}");
}

fn check_write(
    deed: &Deed,
    seen: &Seen,
    version: Option<Version>,
    outcome: &Result<Version, ProposeError>,
    summary: &mut Summary,
) {
    match outcome {
        Ok(acknowledged) => {
            summary.acknowledged += 1;
            assert_eq!(version, Some(*acknowledged), "acknowledged and not there: {deed:?}");
            assert_eq!(seen.0[acknowledged].0, deed.register);
        }
        Err(ProposeError::NoLeader | ProposeError::Outdated(_)) => {
            summary.refused += 1;
            assert_eq!(version, None, "refused and there: {deed:?}");
        }
        Err(ProposeError::Unknown | ProposeError::Fatal(_)) => {
            summary.unknown += 1;
            summary.unknown_applied += u64::from(version.is_some());
        }
    }
}

/// What began after something had ended comes after it: a write strictly, a read not before.
fn check_time(placed: &[(&Deed, Version)]) {
    let mut by_end: Vec<_> = placed.iter().filter(|(deed, _)| answered(deed)).collect();
    by_end.sort_by_key(|(deed, _)| deed.ended);
    let mut by_beginning: Vec<_> = placed.iter().collect();
    by_beginning.sort_by_key(|(deed, _)| deed.began);
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<&(&Deed, Version)> = None;
    for now in by_beginning {
        while let Some(before) = ended.next_if(|(deed, _)| deed.ended < now.0.began) {
            latest = latest.filter(|latest| latest.1 >= before.1).or(Some(before));
        }
        let Some(before) = latest else { continue };
        let follows = match now.0.what {
            What::Write { .. } => now.1 > before.1,
            What::Read { .. } => now.1 >= before.1,
        };
        assert!(follows, "{now:?} began after this had ended, and is before it: {before:?}");
    }
}

/// Whether it is known when it had happened.
fn answered(deed: &Deed) -> bool {
    matches!(deed.what, What::Read { .. } | What::Write { outcome: Ok(_), .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(times: (u64, u64), register: &NodeId, value: &str, outcome: Result<u64, ProposeError>) -> Deed {
        let what = What::Write { value: value.to_owned(), base: None, outcome: outcome.map(Version) };
        Deed { began: times.0, ended: times.1, register: register.clone(), what }
    }

    fn read(times: (u64, u64), register: &NodeId, value: Option<&str>, at: u64) -> Deed {
        let what = What::Read { value: value.map(str::to_owned), at: Version(at) };
        Deed { began: times.0, ended: times.1, register: register.clone(), what }
    }

    fn holds(history: &[Deed], applied: &[(&NodeId, &str)]) -> bool {
        let mut seen = Seen::default();
        for (at, (register, value)) in (1..).zip(applied) {
            seen.note(Version(at), register, value);
        }
        std::panic::catch_unwind(|| check(history, &seen)).is_ok()
    }

    #[test]
    fn the_oracle_tells_good_histories_from_bad_ones() {
        let [a, b] = [NodeId::random(), NodeId::random()];
        let lost = || Err(ProposeError::Unknown);
        let good = [write((1, 2), &a, "x", Ok(1)), read((3, 4), &a, Some("x"), 1), read((3, 4), &b, None, 1)];
        assert!(holds(&good, &[(&a, "x")]));
        assert!(!holds(&good, &[]), "an acknowledged write is gone");
        assert!(!holds(&[write((1, 2), &a, "x", Err(ProposeError::NoLeader))], &[(&a, "x")]), "refused and applied");
        assert!(!holds(&[], &[(&a, "x"), (&a, "x")]), "applied twice");
        let stale = [write((1, 2), &a, "x", Ok(1)), read((3, 4), &a, None, 0)];
        assert!(!holds(&stale, &[(&a, "x")]), "a read from before what had ended");
        let overlapping = [write((1, 4), &a, "x", Ok(1)), read((2, 3), &a, None, 0)];
        assert!(holds(&overlapping, &[(&a, "x")]));
        assert!(!holds(&[read((1, 2), &a, Some("y"), 1)], &[(&a, "x")]), "a value that nobody wrote");
        let unknown = [write((1, 2), &a, "x", lost()), read((3, 4), &a, None, 0), write((5, 6), &b, "y", Ok(1))];
        assert!(holds(&unknown, &[(&b, "y"), (&a, "x")]), "it may be applied late");
        assert!(holds(&unknown, &[(&b, "y")]), "or never");
        let early = [write((1, 2), &a, "x", Ok(2)), write((3, 4), &a, "y", lost())];
        assert!(!holds(&early, &[(&a, "y"), (&a, "x")]), "but not before it began");
    }
}
