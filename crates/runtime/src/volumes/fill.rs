//! Content for empty volumes: what an image has where they are mounted.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::Content;

/// How the content comes into a volume.
pub(super) enum Way {
    /// Made in this directory beside it and renamed, so that a crash leaves no half of it.
    Aside(PathBuf),
    /// Where others see it already, or in a file system of its own.
    InPlace,
}

/// Copies what the image has into a volume that is empty. One that can only be read stays as it is.
pub(super) fn fill(data: &Path, content: &Content<'_>, way: &Way) -> io::Result<()> {
    if fs::read_dir(data)?.next().is_some() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = File::open(content.rootfs)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(dir) = rustix::fs::openat2(&root, content.target, flags, Mode::empty(), resolve) else { return Ok(()) };
    let from = PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    match way {
        Way::InPlace => match copy(&from, data) {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            copied => copied,
        },
        Way::Aside(aside) => {
            if aside.exists() {
                fs::remove_dir_all(aside)?;
            }
            fs::create_dir(aside)?;
            copy(&from, aside)?;
            fs::rename(aside, data)
        }
    }
}

/// Copies a tree of directories, files and links with owners and modes; other things are left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::metadata(from)?;
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, meta.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_dir() {
            fs::create_dir(&target)?;
            copy(&source, &target)?;
        } else if meta.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
            chown(&target, Some(meta.uid()), Some(meta.gid()))?;
            fs::set_permissions(&target, meta.permissions())?;
        }
    }
    Ok(())
}
