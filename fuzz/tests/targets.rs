//! Every target, driven for a while: so many inputs as take a second or two, or `SKEP_FUZZ_SECONDS` each, from another seed each time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_fuzz::{ALL, Bound, drive};

/// Inputs that are files take a hundred times longer.
fn inputs(target: &str) -> u64 {
    if matches!(target, "layer" | "archive") { 400 } else { 20_000 }
}

fn run(name: &str) {
    let target = ALL.iter().find(|target| target.name == name).expect("a target");
    let seconds = std::env::var("SKEP_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (seed, bound) = match seconds {
        None => (17, Bound::Inputs(inputs(name))),
        Some(seconds) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
            (now.as_nanos() as u64, Bound::Time(Duration::from_secs(seconds)))
        }
    };
    println!("{name}: seed {seed}");
    println!("{name}: {} inputs did no harm", drive(target, seed, bound));
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn none_is_left_out() {
            assert_eq!([$(stringify!($name)),*].as_slice(), ALL.iter().map(|target| target.name).collect::<Vec<_>>());
        }
    };
}

targets!(
    api,
    rpc,
    raft_message,
    raft_entry,
    raft_snapshot,
    raft_key,
    token,
    dns,
    manifest,
    image_config,
    layer,
    archive,
);
