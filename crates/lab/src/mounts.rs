//! What is mounted below the lab's directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::error::LabError;

/// Mount points below `dir`, the deepest first.
pub(crate) fn below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    // Later mounts cover earlier ones: the table's order, turned round.
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    found.reverse();
    found
}

/// Takes everything below `dir` away. A mount that somebody still uses goes with its last user.
pub(crate) fn clear(dir: &Path) -> Vec<LabError> {
    let failed = |point: PathBuf| match unmount(&point, UnmountFlags::DETACH) {
        Ok(()) => None,
        Err(e) => Some(LabError::file("unmount", point, io::Error::from(e))),
    };
    below(dir).into_iter().filter_map(failed).collect()
}
