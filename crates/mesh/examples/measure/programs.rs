//! What skep's programs cost by the kernel's own clock.

use std::os::fd::OwnedFd;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};

use crate::lab::Netns;

/// The kernel takes the time of all programs while this lives; that costs each run some nanoseconds, the same everywhere.
pub(crate) struct Clock(#[expect(dead_code, reason = "it is held, not used")] OwnedFd);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(enable_stats(Stats::RunTime).expect("the kernel times programs"))
    }
}

/// Nanoseconds and runs of all programs at these devices since they were loaded.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    nanoseconds: u128,
    runs: u64,
}

impl Spent {
    pub(crate) fn at<'a>(devices: impl IntoIterator<Item = (&'a Netns, &'a str)>) -> Self {
        let mut spent = Self { nanoseconds: 0, runs: 0 };
        for (ns, device) in devices {
            for program in ns.run(|| programs(device)) {
                spent.nanoseconds += program.run_time().as_nanos();
                spent.runs += program.run_count();
            }
        }
        spent
    }

    /// Nanoseconds per run since `before`.
    pub(crate) fn per_run_since(self, before: Self) -> f64 {
        (self.nanoseconds - before.nanoseconds) as f64 / (self.runs - before.runs) as f64
    }
}

fn programs(device: &str) -> Vec<ProgramInfo> {
    let (_, programs) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).expect("a kernel with TCX (6.6)");
    programs
}
