//! The Rust code of the messages between nodes, from `proto/`.
//!
//! The compiler for the proto language is a library (protox), so nobody needs `protoc`; the code is committed, so a build needs
//! neither of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const PROTO: &str = "proto/skep.proto";
const COMMITTED: &str = "crates/rpc/src/gen/skep.v1.rs";
const FILE: &str = "skep.v1.rs";

pub(crate) fn run(check: bool) -> Result<()> {
    let root = root()?;
    let fresh = generate(&root)?;
    let committed = root.join(COMMITTED);
    let old = std::fs::read_to_string(&committed).unwrap_or_default();
    if old == fresh {
        println!("gen: {COMMITTED} is what {PROTO} gives");
        return Ok(());
    }
    if check {
        bail!("{COMMITTED} is not what {PROTO} gives: run `cargo xtask gen` and commit the result");
    }
    std::fs::create_dir_all(committed.parent().context("the path has a parent")?)?;
    std::fs::write(&committed, fresh).with_context(|| format!("cannot write {}", committed.display()))?;
    println!("gen: {COMMITTED} written");
    Ok(())
}

/// The workspace's folder: the parent of this crate's.
fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("xtask has a parent folder")?.to_owned())
}

fn generate(root: &Path) -> Result<String> {
    let descriptors =
        protox::compile([root.join(PROTO)], [root.join("proto")]).with_context(|| format!("cannot compile {PROTO}"))?;
    let out = Scratch::new(root)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        // It carries a secret: the rpc crate writes its `Debug` by hand.
        .skip_debug(["skep.v1.GossipKeys", "skep.v1.Kept"])
        .out_dir(&out.0)
        .compile_fds(descriptors)
        .context("cannot generate code")?;
    let code = std::fs::read_to_string(out.0.join(FILE)).context("the generator wrote another file than expected")?;
    Ok(code)
}

/// A folder for the generator's output, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(root: &Path) -> Result<Self> {
        let path = root.join("target").join(format!("xtask-gen-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind at the worst; it is below target/.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
