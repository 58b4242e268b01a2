//! The lab's cgroups, on every hierarchy that the machine has.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::LabError;

/// Directories of the cgroup at `path` (from the root of each hierarchy), with those below, the deepest first.
pub(crate) fn dirs(path: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        back.starts_with("cgroup").then(|| front.split(' ').nth(4).map(PathBuf::from)).flatten()
    };
    let roots = table.lines().filter_map(root);
    roots.map(|root| root.join(path.trim_start_matches('/'))).filter(|d| d.is_dir()).flat_map(|d| tree(&d)).collect()
}

fn tree(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut all: Vec<PathBuf> = below.flat_map(|e| tree(&e.path())).collect();
    all.push(dir.to_owned());
    all
}

/// Removes the cgroup at `path` with all below. Its processes must have ended.
pub(crate) fn clear(path: &str) -> Vec<LabError> {
    let failed = |dir: PathBuf| match fs::remove_dir(&dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Some(LabError::file("remove", dir, e)),
        _ => None,
    };
    dirs(path).into_iter().filter_map(failed).collect()
}
