//! What a data plane has in the kernel, by the kernel's own numbers: to tell afterwards that nothing of it is left.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::{MapInfo, loaded_maps};

use super::links::say;
use super::pins::MAPS;
use crate::datapath::DatapathError;

/// The maps of the data plane that is pinned in a directory. A loaded program keeps its maps alive, attached or not, so while one of either is
/// left, so is one of these numbers.
///
/// # Errors
/// When a map is not there or cannot be asked.
pub fn pinned(dir: &Path) -> Result<BTreeSet<u32>, DatapathError> {
    let id = |name: &&'static str| match MapInfo::from_pin(dir.join(name)) {
        Ok(info) => Ok(info.id()),
        Err(e) => Err(DatapathError::Map { map: name, reason: say(&e) }),
    };
    MAPS.iter().map(id).collect()
}

/// All maps in the kernel, also those of others.
#[must_use]
pub fn loaded() -> BTreeSet<u32> {
    // One that goes away while it is listed is gone.
    loaded_maps().flatten().map(|info| info.id()).collect()
}
