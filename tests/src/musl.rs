//! The resolver of musl, which programs of Alpine's images have.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::images::kept;

/// A program without libraries that looks a name up as programs of musl do: `lookup NAME [4|6]`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn musl_lookup() -> PathBuf {
    let path = kept("lookup", include_str!("lookup.c")).with_extension("");
    if !path.exists() {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/lookup.c");
        let aside = path.with_extension(std::process::id().to_string());
        let status = Command::new("musl-gcc").args(["-static", "-O1", "-o"]).arg(&aside).arg(&source).status();
        let status = status.expect("stories need musl-gcc (Debian: apt install musl-tools)");
        assert!(status.success(), "{} cannot be compiled", source.display());
        fs::rename(&aside, &path).expect("rename");
    }
    path
}
