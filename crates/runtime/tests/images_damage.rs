//! Random damage: whatever the bytes are, loading ends with a result, and after a failure the store is as it was.

mod images_kit;

use images_kit::{Bench, Raw, packed, saved};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use skep_runtime::images::{InUse, Removal};

fn sample() -> Vec<u8> {
    let lower = Raw::new().dir("d").file("d/f", "lower").symlink("l", "d").mode(0o755).file("d/x", "x").finish();
    let records = [("SCHILY.xattr.user.a", "b"), ("mtime", "12.5")];
    let upper = Raw::new().file("d/.wh.f", "").pax(&records).file("l/new", "new").hard("h", "d/x").finish();
    let zipped = zstd::encode_all(&upper[..], 1).unwrap();
    packed("sample", &[lower.clone(), upper], &[lower, zipped])
}

fn check(bench: &Bench, archive: &[u8]) {
    let before = bench.contents();
    match bench.load(archive) {
        Ok(loaded) => {
            for one in loaded {
                let nothing = InUse::new(bench.images.moment(), Default::default());
                bench.images.remove(&one.id.hex(), Removal::Forced, &nothing).unwrap();
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(bench.contents(), before, "{error}");
        }
    }
    bench.assert_canary();
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(&Bench, S::Value)) {
    let bench = Bench::new();
    // The index appears with the first image.
    let name = bench.load(&saved("first", &[])[..]).unwrap()[0].id;
    TestRunner::new(Config { failure_persistence: None, ..Config::default() })
        .run(strategy, |value| {
            test(&bench, value);
            Ok(())
        })
        .unwrap();
    assert_eq!(bench.images.list().iter().map(|image| image.id).collect::<Vec<_>>(), [name]);
}

#[test]
fn random_bytes() {
    run(&proptest::collection::vec(any::<u8>(), 0..4096), |bench, bytes| check(bench, &bytes));
}

#[test]
fn random_bytes_behind_the_magic_of_a_compression() {
    let strategy = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..512));
    run(&strategy, |bench, (gzip, bytes)| {
        let magic: &[u8] = if gzip { &[0x1f, 0x8b, 8, 0] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
        check(bench, &[magic, &bytes].concat());
    });
}

#[test]
fn archives_cut_anywhere() {
    let whole = sample();
    run(&(0..whole.len()), |bench, at| check(bench, &whole[..at]));
}

#[test]
fn archives_with_changed_bytes() {
    let whole = sample();
    let change = (0..whole.len(), any::<u8>());
    run(&proptest::collection::vec(change, 1..8), |bench, changes| {
        let mut archive = whole.clone();
        changes.iter().for_each(|&(at, byte)| archive[at] = byte);
        check(bench, &archive);
    });
}

#[test]
fn layers_with_changed_bytes_and_right_digests() {
    let lower = Raw::new().dir("d").file("d/f", "lower").symlink("l", "d").finish();
    let records = [("SCHILY.xattr.user.a", "b"), ("path", "l/new")];
    let upper = Raw::new().file("d/.wh.f", "").pax(&records).file("x", "new").hard("h", "l/new").finish();
    // Mostly in headers, whose checksums are made right again: damage that gets past the tar reader.
    let change = (0..upper.len() / 512, 0..512_usize, any::<u8>());
    run(&proptest::collection::vec(change, 1..6), |bench, changes| {
        let mut layer = upper.clone();
        for (block, at, byte) in changes {
            layer[block * 512 + at] = byte;
            let block = &mut layer[block * 512..][..512];
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        check(bench, &saved("a", &[lower.clone(), layer]));
    });
}
