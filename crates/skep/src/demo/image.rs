//! The demo's image: this very binary, and the shared libraries that it is loaded with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skep_model::Protocol;
use skep_runtime::images::ImageBuilder;

use super::answer;

/// Its name.
pub(crate) const NAME: &str = "skep-demo-web";
const BINARY: &str = "/skep";

/// Writes the image as an archive that `docker load` takes.
pub(crate) fn write(path: &Path) -> Result<()> {
    let binary = fs::read("/proc/self/exe").context("reading this program")?;
    let mut image = ImageBuilder::new(NAME)
        .dir("tmp", 0o1777)
        .file(BINARY.trim_start_matches('/'), 0o755, binary)
        .entrypoint([BINARY, "answer"])
        .expose(answer::PORT, Protocol::Tcp);
    for library in libraries().context("finding this program's libraries")? {
        let content = fs::read(&library).with_context(|| library.display().to_string())?;
        image = image.file(library.to_string_lossy().trim_start_matches('/'), 0o755, content);
    }
    let mut file = fs::File::create(path).with_context(|| path.display().to_string())?;
    image.write(&mut file).with_context(|| path.display().to_string())?;
    Ok(())
}

/// The files that this process is loaded from, without the program itself, at the paths at which the loader looks for them.
fn libraries() -> Result<BTreeSet<PathBuf>> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut files: BTreeSet<PathBuf> =
        maps.lines().filter_map(mapped_library).filter(|path| *path != program).collect();
    // The loader is named in the program with its own, fixed path, which is a link on merged-/usr systems.
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if loader.exists() {
        files.insert(loader.to_owned());
    }
    Ok(files)
}

/// The path of a line of `maps` (proc(5)) that maps a shared library.
fn mapped_library(line: &str) -> Option<PathBuf> {
    let path = Path::new(line.split_whitespace().nth(5)?);
    let name = path.file_name()?.to_str()?;
    (path.is_absolute() && name.contains(".so")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_other_maps() {
        let library = "7f00-7f01 r-xp 00000000 fe:00 1234   /usr/lib/x86_64-linux-gnu/libc.so.6";
        assert_eq!(mapped_library(library), Some(PathBuf::from("/usr/lib/x86_64-linux-gnu/libc.so.6")));
        assert_eq!(mapped_library("7f00-7f01 rw-p 00000000 00:00 0   [heap]"), None);
        assert_eq!(mapped_library("7f00-7f01 rw-p 00000000 00:00 0"), None);
        assert_eq!(mapped_library("5500-5501 r-xp 00000000 fe:00 99   /usr/bin/skep"), None);
    }
}
