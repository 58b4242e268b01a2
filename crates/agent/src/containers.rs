//! Which container belongs to which task.

use sha2::{Digest, Sha256};
use skep_model::TaskId;
use skep_runtime::ContainerId;

/// The container of a task: found from the task alone, so that a daemon that starts again needs no list of its own.
///
/// # Panics
/// Never: a SHA-256 in hexadecimal is a container id.
#[must_use]
pub fn container_id(task: &TaskId) -> ContainerId {
    let digest = Sha256::digest(task.as_str());
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    hex.parse().expect("64 hexadecimal digits")
}
