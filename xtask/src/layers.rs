//! Dependencies between crates point down only.

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// From the bottom up. A crate may depend on crates of lower layers only; `cli` may also use the wire types of `engine`.
const LAYERS: &[&[&str]] = &[
    &["skep-model"],
    &["skep-store", "skep-template"],
    &["skep-ca"],
    &["skep-rpc"],
    &["skep-raft"],
    &["skep-runtime", "skep-network", "skep-netdb"],
    &["skep-mesh", "skep-registry", "skep-dns"],
    &["skep-manager", "skep-agent"],
    &["skep-engine"],
    &["skep-cli", "skep-lab"],
    &["skep"],
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&name))
}

pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(own) = layer(name) else {
            if matches!(name, "xtask" | "skep-e2e" | "skep-fuzz") {
                continue;
            }
            bail!("{name} has no layer: name it in xtask/src/layers.rs");
        };
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for below in normal.filter_map(|d| layer(&d.name).map(|l| (l, &d.name))) {
            if below.0 >= own {
                wrong.push(format!("{name} must not depend on {}", below.1));
            }
        }
    }
    if wrong.is_empty() {
        println!("layers: {} crates, all dependencies point down", metadata.packages.len());
        return Ok(());
    }
    bail!("dependencies that do not point down:\n{}", wrong.join("\n"));
}
