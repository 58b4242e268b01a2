//! The first file system: tests, tools, modules.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Message, TargetKind};

use super::Kernel;
use super::cpio::Archive;
use super::packages::{find, run};

/// What the tests call, as far as this machine has it.
const TOOLS: &[&str] = &[
    "ip", "tc", "bridge", "ss", "nsenter", "unshare", "bpftool", "ethtool", "nft", "curl", "iperf3", "setpriv", "flock",
];

/// Modules that skep or a test wants to find, as far as the kernel has them; others load them by themselves.
const MODULES: &[&str] = &[
    // What skep is made of.
    "veth",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "overlay",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "sctp",
    "sctp_diag",
    "br_netfilter",
    "bridge",
    // What else there may be on a node.
    "act_bpf",
    "act_gact",
    "act_mirred",
    "cls_u32",
    "cls_matchall",
    "sch_netem",
    "sch_fq",
    "sch_tbf",
    "dummy",
    "ifb",
    "8021q",
    "bonding",
    "macvlan",
    "ipvlan",
    "tun",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
];

/// What is built here and run there.
pub(super) struct Programs {
    /// Test binaries, by the names that they get.
    tests: Vec<(String, PathBuf)>,
    skep: Option<PathBuf>,
}

impl Programs {
    /// Builds the tests of the data plane's crate, and the program itself.
    pub(super) fn build(root: &Path, with_skep: bool) -> Result<Self> {
        let tests = built(root, &["test", "--no-run", "--package", "skep-mesh", "--lib", "--tests"])?;
        ensure!(!tests.is_empty(), "cargo built no tests of skep-mesh");
        let skep = if with_skep { built(root, &["build", "--bin", "skep"])?.pop().map(|(_, path)| path) } else { None };
        Ok(Self { tests, skep })
    }
}

/// Has cargo build something, and returns the programs with the names of their targets.
fn built(root: &Path, what: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    println!("cargo {}", what.join(" "));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(what).arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut cargo = cargo.spawn().context("cargo cannot be run")?;
    let messages = std::io::BufReader::new(cargo.stdout.take().context("cargo's output")?);
    let mut programs = Vec::new();
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(path) = artifact.executable
        {
            let unit = artifact.target.kind.contains(&TargetKind::Lib);
            let name = if unit { "unit".to_owned() } else { artifact.target.name };
            programs.push((name, path.into_std_path_buf()));
        }
    }
    ensure!(cargo.wait()?.success(), "cargo {} failed", what.join(" "));
    Ok(programs)
}

/// Writes the file system for one kernel, and returns where.
pub(super) fn write(
    scratch: &Path,
    root: &Path,
    kernel: &Kernel,
    programs: &Programs,
    settings: &str,
) -> Result<PathBuf> {
    let path = scratch.join(format!("{}.initramfs", kernel.release));
    let out = File::create(&path).with_context(|| path.display().to_string())?;
    let mut archive = Archive::new(BufWriter::new(out));
    let init = root.join("tests/kernels/init.sh");
    archive.file("/init", &fs::read(&init).with_context(|| init.display().to_string())?)?;
    archive.file("/settings", settings.as_bytes())?;
    archive.file("/busybox", &fs::read(find("busybox").context("busybox is needed")?)?)?;
    let mut libraries = BTreeSet::new();
    let mut program = |place: &str, file: &Path| -> Result<()> {
        libraries.extend(libraries_of(file)?);
        Ok(archive.file(place, &stripped(scratch, file)?)?)
    };
    for (name, file) in &programs.tests {
        program(&format!("/tests/{name}"), file)?;
    }
    if let Some(skep) = &programs.skep {
        program("/usr/bin/skep", skep)?;
    }
    for tool in TOOLS {
        if let Some(file) = find(tool) {
            program(&format!("/usr/bin/{tool}"), &file)?;
        }
    }
    for library in libraries {
        archive.file(&library, &fs::read(&library)?)?;
    }
    add_modules(&mut archive, kernel)?;
    archive.finish()?;
    Ok(path)
}

/// The file without what only a debugger reads: it all has to fit into the machine's memory.
fn stripped(scratch: &Path, file: &Path) -> Result<Vec<u8>> {
    let out = scratch.join("stripped");
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&out).arg(file))?;
    Ok(fs::read(&out)?)
}

/// The shared libraries that a program is loaded with, and the loader.
fn libraries_of(file: &Path) -> Result<Vec<String>> {
    let said = run(Command::new("ldd").arg(file))?;
    Ok(said
        .split_whitespace()
        .filter(|word| word.starts_with('/') && word.contains(".so"))
        .map(str::to_owned)
        .collect())
}

/// Adds the modules and what they need, and the list of them in an order in which they can be loaded.
fn add_modules(archive: &mut Archive<impl std::io::Write>, kernel: &Kernel) -> Result<()> {
    let list = kernel.modules.join("modules.dep");
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let mut order = String::new();
    for path in in_order(&list, MODULES) {
        let name = file_name(path).trim_end_matches(".xz").trim_end_matches(".zst").trim_end_matches(".gz");
        archive.file(&format!("/modules/{name}"), &module(&kernel.modules.join(path))?)?;
        order += &format!("{name}\n");
    }
    archive.file("/modules/order", order.as_bytes())?;
    Ok(())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A module's content; newer Debian kernels have them compressed.
fn module(path: &Path) -> Result<Vec<u8>> {
    let unpack = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(unpack).arg("-dc").arg(path).output().with_context(|| format!("{unpack} is needed"))?;
    ensure!(output.status.success(), "{unpack} cannot read {}", path.display());
    Ok(output.stdout)
}

/// The files of the modules of these names and of all that they need, those that are needed first. `list` is depmod's: a file, a colon,
/// and what it needs, last first. What the kernel does not have as a module is left out.
fn in_order<'a>(list: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut order = Vec::new();
    let lines: Vec<_> = list.lines().filter_map(|line| line.split_once(':')).collect();
    for name in wanted {
        let is_it = |path: &str| file_name(path).split_once('.').is_some_and(|(stem, _)| stem == *name);
        let Some((path, needs)) = lines.iter().find(|(path, _)| is_it(path)) else { continue };
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn modules_come_after_what_they_need() {
        let list = "net/a.ko.xz: net/b.ko.xz net/c.ko.xz\nnet/b.ko.xz: net/c.ko.xz\nnet/c.ko.xz:\nnet/ab.ko.xz:\n";
        assert_eq!(in_order(list, &["a", "none", "b"]), ["net/c.ko.xz", "net/b.ko.xz", "net/a.ko.xz"]);
    }
}
