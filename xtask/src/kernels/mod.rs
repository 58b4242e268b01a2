//! Other kernels than this machine's: boots them in QEMU, and runs the data plane's tests and a small swarm there.
//!
//! `packages` has the kernels and tools from Debian, `image` makes the first file system out of what is built here, `boot` runs the
//! machine, `report` reads what it says. What happens inside is `tests/kernels/init.sh`.

mod boot;
mod cpio;
mod image;
mod packages;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

/// What is booted when nothing is said: Debian 12's kernel, and the newer one that it offers. The older one attaches programs by clsact,
/// the newer one by TCX.
const KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Debian packages of kernels, or of what depends on one
    #[arg(default_values_t = KERNELS.iter().map(|k| (*k).to_owned()), conflicts_with = "deb")]
    kernels: Vec<String>,
    /// A kernel that is not in Debian: its package files, image and modules (may be given several times)
    #[arg(long)]
    deb: Vec<PathBuf>,
    /// Run only tests whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// Leave out the swarm: no `skep` is built and started
    #[arg(long)]
    no_swarm: bool,
    /// Seconds for one test
    #[arg(long, default_value_t = 300)]
    limit: u32,
    /// Minutes for one kernel
    #[arg(long, default_value_t = 15)]
    minutes: u64,
}

/// A kernel as its package has it.
struct Kernel {
    /// What `uname -r` will say.
    release: String,
    image: PathBuf,
    /// With `depmod`'s lists.
    modules: PathBuf,
}

pub(crate) fn run(flags: &Flags) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let scratch = root.join("target/kernels");
    packages::install_tools()?;
    let kernels = if flags.deb.is_empty() {
        flags.kernels.iter().map(|package| packages::from_debian(package, &scratch)).collect::<Result<Vec<_>>>()?
    } else {
        vec![packages::from_files(&flags.deb, &scratch)?]
    };
    let programs = image::Programs::build(root, !flags.no_swarm)?;
    let settings = format!("LIMIT={}\nONLY='{}'\n", flags.limit, flags.only.replace('\'', ""));
    let mut failed = Vec::new();
    for kernel in &kernels {
        let initramfs = image::write(&scratch, root, kernel, &programs, &settings)?;
        let limit = Duration::from_secs(60 * flags.minutes);
        let outcome = boot::boot(kernel, &initramfs, &scratch, limit)?;
        println!("{}: {outcome}", kernel.release);
        if !outcome.good() {
            failed.push(kernel.release.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not everything passed on {}", failed.join(", "))
}
