//! What fuzz targets drive: the readers of what images are made of.

use std::fs::File;
use std::path::Path;

use super::Limits;
use super::config::ConfigFile;
use super::unpack;

/// An image's configuration.
pub fn config(bytes: &[u8]) {
    let _ = ConfigFile::parse("config.json", bytes);
}

/// Unpacks a layer into a folder.
pub fn unpack(layer: &[u8], root: &Path, limits: &Limits) {
    let Ok(root) = File::open(root) else { return };
    let _ = unpack::unpack(layer, root.into(), limits);
}
