//! The driver: inputs one after the other, until a bound is reached or one does harm.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Mutator, Target};

/// An input that takes longer does harm: whoever sends it a hundred times has a processor of ours for himself. Generous, for builds that are not
/// optimized on machines that have something else to do.
const SLOW: Duration = Duration::from_secs(5);

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// So many inputs.
    Inputs(u64),
    /// So long.
    Time(Duration),
}

/// Drives a target from its seeds and its corpus. Returns how many inputs it was given.
///
/// # Panics
/// When an input does harm: it is kept as a file, which the message names.
pub fn drive(target: &Target, seed: u64, bound: Bound) -> u64 {
    let mut inputs = (target.seeds)();
    inputs.extend(corpus(target));
    inputs.iter().for_each(|input| give(target, input));
    let (mut mutator, began, mut given) = (Mutator::new(seed), Instant::now(), inputs.len() as u64);
    loop {
        match bound {
            Bound::Inputs(most) if given >= most => return given,
            Bound::Time(most) if began.elapsed() >= most => return given,
            _ => {}
        }
        give(target, &mutator.spoil(&inputs));
        given += 1;
    }
}

fn give(target: &Target, input: &[u8]) {
    let began = Instant::now();
    let given = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if given.is_ok() && began.elapsed() < SLOW {
        return;
    }
    let kept = keep(target, input);
    match given {
        Err(why) => {
            eprintln!("{}: the input is in {}", target.name, kept.display());
            panic::resume_unwind(why)
        }
        Ok(()) => panic!("{}: an input took {:?}; it is in {}", target.name, began.elapsed(), kept.display()),
    }
}

/// What was found before, and mended.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let path = std::env::temp_dir().join(format!("skep-fuzz-{}-{:016x}", target.name, hash.finish()));
    fs::write(&path, input).expect("a file for the input");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_harm_is_found_and_kept() {
        let target = Target {
            name: "planted",
            run: |bytes| assert!(!bytes.starts_with(b"{\"a\":null"), "harm"),
            seeds: || vec![b"{\"a\":1,\"b\":[2]}".to_vec()],
        };
        let found = panic::catch_unwind(|| drive(&target, 1, Bound::Inputs(100_000)));
        assert!(found.is_err());
        let kept = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("skep-fuzz-planted-");
        let kept: Vec<_> = fs::read_dir(std::env::temp_dir()).unwrap().flatten().filter(kept).collect();
        assert!(
            kept.iter().all(|entry| fs::read(entry.path()).unwrap().starts_with(b"{\"a\":null")) && !kept.is_empty()
        );
        kept.iter().for_each(|entry| fs::remove_file(entry.path()).unwrap());
    }
}
