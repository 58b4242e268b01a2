//! The benches, built as they are shipped and run one after the other.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Requests, connections and bulk through the data plane, beside the same without it
    Mesh,
    /// From the API's call to every node's answer, and the daemons' memory
    Swarm,
}

/// Programs that are no part of skep, and the Debian packages that have them.
const NEEDED: &[(&str, &str)] = &[("wrk", "wrk"), ("iperf3", "iperf3"), ("ip", "iproute2"), ("curl", "curl")];

pub(crate) fn run(what: Option<Bench>) -> Result<()> {
    for (program, package) in NEEDED {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        ensure!(found.is_ok_and(|o| o.status.success()), "{program} is needed (Debian: apt install {package})");
    }
    for bench in what.map_or_else(|| vec![Bench::Mesh, Bench::Swarm], |one| vec![one]) {
        match bench {
            Bench::Mesh => cargo(&["run", "--quiet", "--release", "--package", "skep-mesh", "--example", "measure"])?,
            Bench::Swarm => {
                cargo(&["build", "--quiet", "--release", "--bin", "skep"])?;
                cargo(&["bench", "--quiet", "--package", "skep-e2e", "--bench", "swarm"])?;
            }
        }
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(args).status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}
