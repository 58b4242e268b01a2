//! Kernels and tools, as Debian packages. Kernels are unpacked below `target/`, and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Kernel;

/// What is used here and inside. `sh` finds the program, the package has it.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("ip", "iproute2"),
    ("bpftool", "bpftool"),
    ("strip", "binutils"),
];

pub(super) fn install_tools() -> Result<()> {
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
    run(install.args(missing)).context("the packages cannot be installed: this needs Debian 12 and root")?;
    Ok(())
}

/// Where a program is.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    // Not everybody's PATH has what only root needs.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file())
}

/// Runs a command, and returns what it prints.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A kernel of Debian's, by the name of its package or of one that depends on it. Downloaded once.
pub(super) fn from_debian(package: &str, scratch: &Path) -> Result<Kernel> {
    let name = real_package(package).or_else(|_| {
        // A fresh machine has no list of packages.
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        real_package(package)
    })?;
    let dir = scratch.join(&name);
    if let Ok(kernel) = unpacked(&dir) {
        return Ok(kernel);
    }
    println!("fetching {name}");
    let download = scratch.join(format!("{name}.download"));
    clear(&download)?;
    run(Command::new("apt-get").current_dir(&download).args(["download", "-qq", &name]))
        .with_context(|| format!("{name} cannot be fetched (apt-get update renews apt's lists)"))?;
    let files = fs::read_dir(&download)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    let kernel = unpack(&files, &dir)?;
    fs::remove_dir_all(&download)?;
    Ok(kernel)
}

/// A kernel of files that somebody has.
pub(super) fn from_files(files: &[PathBuf], scratch: &Path) -> Result<Kernel> {
    unpack(files, &scratch.join("given"))
}

/// The package with the files: the name itself, unless it is one of those that only point to the newest.
fn real_package(package: &str) -> Result<String> {
    let said = run(Command::new("apt-cache").args(["depends", "--important", package]))
        .with_context(|| format!("apt knows no package {package}"))?;
    let mut depends = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(depends.find(|name| name.starts_with("linux-image-")).unwrap_or(package).to_owned())
}

fn unpack(files: &[PathBuf], dir: &Path) -> Result<Kernel> {
    // Under another name until it is complete, or what is left of a run that was stopped would pass for a kernel.
    let partial = dir.with_file_name("partial");
    clear(&partial)?;
    for file in files {
        run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&partial))?;
    }
    let release = unpacked(&partial).with_context(|| format!("in {files:?}"))?.release;
    run(Command::new("depmod").arg("-b").arg(&partial).arg(release))?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&partial, dir).with_context(|| dir.display().to_string())?;
    unpacked(dir)
}

fn unpacked(dir: &Path) -> Result<Kernel> {
    let boot = fs::read_dir(dir.join("boot")).with_context(|| format!("no kernel in {}", dir.display()))?;
    for entry in boot {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(release) = name.strip_prefix("vmlinuz-").map(str::to_owned) else { continue };
        let modules = dir.join("lib/modules").join(&release);
        ensure!(modules.is_dir(), "no modules of {release}: give their package too");
        return Ok(Kernel { release, image: path, modules });
    }
    bail!("no kernel in {}", dir.display())
}

fn clear(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())
}
