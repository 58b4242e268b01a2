//! The benches, built as they are shipped and run one after the other.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Requests, connections, latency, bulk and datagrams through the data plane, beside its rivals
    Mesh,
    /// What tasks send each other, beside a plain VXLAN device, and how long they wait for names
    Networks,
    /// Making and removing a container, beside runc
    Containers,
    /// From an image in a registry to a root file system, beside skopeo and umoci
    Images,
    /// From the API's call to every node's answer, and the daemons' memory
    Swarm,
}

impl Bench {
    /// Programs that are no part of skep, by the Debian packages that have them.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Mesh => &["haproxy", "iperf3", "iproute2", "libnginx-mod-stream", "nftables", "nginx", "wrk"],
            Self::Networks => &["busybox-static", "curl", "iperf3", "iproute2", "wrk"],
            Self::Containers => &["busybox-static", "iproute2", "runc", "tini"],
            Self::Images => &["curl", "docker-registry", "iproute2", "skopeo", "umoci"],
            Self::Swarm => &["curl", "iproute2"],
        }
    }
}

/// The data plane's bench.
const MEASURE: [&str; 8] = ["run", "--quiet", "--release", "--package", "skep-mesh", "--example", "measure", "--"];

/// Runs one bench or all. `options` are the mesh bench's own, which that of networks has too; `--help` among them lists them.
pub(crate) fn run(what: Option<Bench>, options: &[String]) -> Result<()> {
    for bench in what.map_or_else(|| Bench::value_variants().to_vec(), |one| vec![one]) {
        install(bench.packages())?;
        match bench {
            Bench::Mesh => cargo(&MEASURE, options)?,
            Bench::Networks => {
                cargo(&[&MEASURE[..], &["--only", "talks"]].concat(), options)?;
                cargo(&["build", "--quiet", "--release", "--bin", "skep"], &[])?;
                cargo(&["bench", "--quiet", "--package", "skep-e2e", "--bench", "names"], &[])?;
            }
            Bench::Containers => story("containers", options)?,
            Bench::Images => story("images", options)?,
            Bench::Swarm => story("swarm", options)?,
        }
    }
    Ok(())
}

/// A bench of the whole program.
fn story(name: &str, options: &[String]) -> Result<()> {
    ensure!(options.is_empty(), "bench {name} has no options");
    cargo(&["build", "--quiet", "--release", "--bin", "skep"], &[])?;
    cargo(&["bench", "--quiet", "--package", "skep-e2e", "--bench", name], &[])
}

/// Debian packages, as `tests/run` does it.
fn install(packages: &[&str]) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/packages");
    let status = Command::new(script).args(packages).status().with_context(|| format!("{script} cannot be run"))?;
    ensure!(
        status.success(),
        "the bench needs {}: install them by hand (on Debian as root: apt-get install {})",
        packages.join(", "),
        packages.join(" ")
    );
    Ok(())
}

fn cargo(args: &[&str], more: &[String]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(args).args(more).status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}
