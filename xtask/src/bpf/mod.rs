//! The eBPF object is committed, so that building skep needs no clang; this rebuilds it, bit for bit, or checks that it is current.

mod stack;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Other versions of the compiler give other bytes.
const CLANG: &str = "clang-19";
const STRIP: &str = "llvm-strip-19";
const OBJDUMP: &str = "llvm-objdump-19";
const SOURCE: &str = "skep.bpf.c";
const OBJECT: &str = "crates/mesh/src/bpf/skep.bpf.o";

pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let committed = root.join(OBJECT);
    let built = compile(root)?;
    stack::check(&disassembly(&built)?)?;
    let now = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let same = fs::read(&committed).is_ok_and(|then| then == now);
    if check && !same {
        bail!("{OBJECT} is not what bpf/ gives: run `cargo xtask bpf` with {CLANG} and commit it");
    }
    if !same {
        fs::write(&committed, &now).with_context(|| format!("cannot write {OBJECT}"))?;
    }
    println!("bpf: {OBJECT}, {} bytes, {}", now.len(), if same { "current" } else { "rebuilt" });
    Ok(())
}

/// Compiles into the target folder. The paths in debug information are cut, or two checkouts would give different bytes.
fn compile(root: &Path) -> Result<PathBuf> {
    let source = root.join("bpf");
    let target = root.join("target");
    fs::create_dir_all(&target).context("cannot make the target folder")?;
    let object = target.join("skep.bpf.o");
    let mut clang = Command::new(CLANG);
    clang.current_dir(&source).args([
        "-O2",
        "-g",
        "-target",
        "bpfel",
        "-mcpu=v3",
        "-nostdinc",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]);
    clang.arg(format!("-ffile-prefix-map={}=.", source.display())).arg("-fdebug-compilation-dir=.");
    finish(clang.arg("-c").arg(SOURCE).arg("-o").arg(&object), CLANG)?;
    // Only what the kernel reads (BTF) stays of the debug information.
    finish(Command::new(STRIP).arg("--strip-debug").arg(&object), STRIP)?;
    Ok(object)
}

fn disassembly(object: &Path) -> Result<String> {
    let output = Command::new(OBJDUMP).args(["-d", "-r", "--no-show-raw-insn"]).arg(object).output();
    let output = output.with_context(|| format!("{OBJDUMP} is needed (Debian: apt install llvm-19)"))?;
    if !output.status.success() {
        bail!("{OBJDUMP} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn finish(command: &mut Command, name: &str) -> Result<()> {
    let status =
        command.status().with_context(|| format!("{name} is needed (Debian: apt install clang-19 llvm-19)"))?;
    if !status.success() {
        bail!("{name} failed");
    }
    Ok(())
}
