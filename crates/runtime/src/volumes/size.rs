//! How much a volume's content is.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bytes of all files below a directory, each file once however many names it has. What goes away meanwhile is not counted; other file systems
/// mounted below are none of it.
pub(super) fn of(dir: &Path) -> io::Result<u64> {
    let device = std::fs::metadata(dir)?.dev();
    let (mut seen, mut left, mut total) = (BTreeSet::new(), vec![dir.to_owned()], 0_u64);
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let Ok(meta) = entry.as_ref().map_err(drop).and_then(|e| e.metadata().map_err(drop)) else { continue };
            if meta.dev() != device {
                continue;
            }
            if meta.is_dir() {
                left.push(entry?.path());
            } else if seen.insert(meta.ino()) {
                total = total.saturating_add(meta.size());
            }
        }
    }
    Ok(total)
}
