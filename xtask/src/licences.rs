//! What we build on: every dependency has a licence that we can pass on, and nothing compiles C that is not known to.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Licences that may be passed on with an Apache-2.0 OR MIT program. MPL-2.0 is by file and fine for unmodified dependencies.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates whose manifest forgets the licence that their LICENSE file has.
const READ_BY_HAND: &[(&str, &str)] = &[("rust-criu", "MIT")];

/// Crates that compile C.
const COMPILE_C: &[&str] = &["ring", "zstd-sys"];

/// Crates that compile C on other machines only: `nc` where Rust has no inline assembly.
const COMPILE_C_ELSEWHERE: &[&str] = &["nc"];

/// Crates that must not appear, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "one TLS library: rustls with ring"),
    ("aws-lc-sys", "one TLS provider: ring"),
    ("libseccomp-sys", "needs a C library: seccompiler does it"),
    ("libbpf-sys", "needs a C library: aya does it"),
    ("tokio-tar", "reads damaged headers as other files"),
];

pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .other_options(vec!["--filter-platform".into(), "x86_64-unknown-linux-gnu".into()])
        .exec()
        .context("cargo metadata")?;
    let foreign: Vec<&Package> = metadata.packages.iter().filter(|p| p.source.is_some()).collect();
    let mut wrong: Vec<String> = foreign.iter().filter_map(|p| licence_trouble(p)).collect();
    wrong.extend(foreign.iter().filter_map(|p| ban_trouble(p)));
    wrong.extend(c_trouble(&metadata));
    if wrong.is_empty() {
        println!(
            "licences: {} dependencies, all accepted; C is compiled by {} only",
            foreign.len(),
            COMPILE_C.join(", ")
        );
        return Ok(());
    }
    bail!("dependencies that cannot stay:\n{}", wrong.join("\n"));
}

fn licence_trouble(package: &Package) -> Option<String> {
    let by_hand = READ_BY_HAND.iter().find(|(name, _)| *name == package.name.as_str()).map(|(_, licence)| *licence);
    let Some(expression) = package.license.as_deref().or(by_hand) else {
        return Some(format!("{} {} names no licence", package.name, package.version));
    };
    (!accepted(expression)).then(|| format!("{} {} has licence {expression}", package.name, package.version))
}

/// Whether an SPDX expression can be met. `/` is an older way to write `OR`.
fn accepted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // Without its parentheses `(A OR B) AND C` reads as `A OR (B AND C)`; asking that all of the AND parts have an accepted
    // alternative errs on the strict side.
    expression.split(" AND ").all(|part| part.split(" OR ").map(str::trim).any(|licence| ACCEPTED.contains(&licence)))
}

fn ban_trouble(package: &Package) -> Option<String> {
    let (_, why) = BANNED.iter().find(|(name, _)| *name == package.name.as_str())?;
    Some(format!("{} is banned: {why}", package.name))
}

/// Packages that build with `cc` for this machine and are not known to.
fn c_trouble(metadata: &Metadata) -> Vec<String> {
    let used: BTreeSet<&str> = metadata
        .resolve
        .iter()
        .flat_map(|r| &r.nodes)
        .filter(|node| {
            node.deps.iter().any(|d| {
                (d.name == "cc" || d.name == "cmake") && d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Build)
            })
        })
        .filter_map(|node| metadata.packages.iter().find(|p| p.id == node.id))
        .map(|p| p.name.as_str())
        .collect();
    used.into_iter()
        .filter(|name| !COMPILE_C.contains(name) && !COMPILE_C_ELSEWHERE.contains(name))
        .map(|name| format!("{name} compiles C"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::accepted;

    #[test]
    fn expressions_are_read() {
        for good in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(accepted(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "LGPL-2.1-only"] {
            assert!(!accepted(bad), "{bad}");
        }
    }
}
