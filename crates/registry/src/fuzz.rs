//! What fuzz targets drive: the readers of what registries say.

use crate::challenge;
use crate::manifest::{Document, Platform};

/// A manifest or an index.
pub fn document(bytes: &[u8]) {
    if let Ok(document) = Document::parse("example.test/a:1", "", bytes) {
        let _ = document.choose("example.test/a:1", &Platform::own());
        let _ = document.platforms();
    }
}

/// A header that asks who is there.
pub fn challenge(header: &str) {
    let _ = challenge::choose([header].into_iter());
}
