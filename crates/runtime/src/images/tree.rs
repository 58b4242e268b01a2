//! A directory tree that strangers' paths are resolved in: nothing here can reach outside of its root.
//!
//! Every parent directory is opened by the kernel with the tree as its whole world (`openat2` with `RESOLVE_IN_ROOT`:
//! symbolic links and `..` in them end at the root, magic links are refused); the last component is only ever used in
//! calls that do not follow links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat, unlinkat};
use rustix::io::Errno;

/// Directories below one another, in a path and on disk. Deeper trees could not be deleted again with few open files.
pub(super) const DEPTH: usize = 128;

/// A path within the tree: no root, no `.`, no `..`, no empty components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPath(Vec<Vec<u8>>);

impl EntryPath {
    /// Absolute paths are taken as relative to the tree; `..` is refused wherever it stands.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let parts = bytes.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        if parts.iter().any(|part| part == b"..") {
            return Err("its path has a .. in it");
        }
        if parts.len() > DEPTH {
            return Err("its path has too many components");
        }
        Ok(Self(parts))
    }

    /// The directory and the name in it; `None` for the root.
    pub(super) fn split(&self) -> Option<(Self, &[u8])> {
        let (name, parent) = self.0.split_last()?;
        Some((Self(parent.to_vec()), name))
    }

    fn bytes(&self) -> Vec<u8> {
        if self.0.is_empty() { b".".to_vec() } else { self.0.join(&b'/') }
    }
}

/// What to do about directories that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// Make them, owned by root, mode 0755.
    Make,
    /// Fail.
    Fail,
}

/// An opened directory of the tree, and where it really is.
pub(super) struct Place {
    pub(super) dir: OwnedFd,
    real: Vec<u8>,
}

impl Place {
    /// Where `name` in this directory really is: the same for every path that leads there.
    pub(super) fn key(&self, name: &[u8]) -> Vec<u8> {
        [&self.real[..], b"/", name].concat()
    }

    /// Where this directory really is: empty for the root, else beginning with a slash.
    pub(super) fn real(&self) -> &[u8] {
        &self.real
    }
}

/// The tree.
pub(super) struct Tree {
    root: OwnedFd,
    prefix: Vec<u8>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> io::Result<Self> {
        let prefix = real_path(root.as_fd())?;
        Ok(Self { root, prefix: if prefix == b"/" { Vec::new() } else { prefix } })
    }

    /// Opens the directory at `path`.
    pub(super) fn dir(&self, path: &EntryPath, absent: Absent) -> io::Result<Place> {
        let opened = match (self.open(&path.bytes(), ResolveFlags::empty()), path.split()) {
            (Err(Errno::NOENT), Some((parent, name))) if absent == Absent::Make => {
                let parent = self.dir(&parent, absent)?;
                rustix::fs::mkdirat(&parent.dir, name, Mode::from_raw_mode(0o755)).map_err(|e| match e {
                    Errno::EXIST => io::Error::other("a directory on its path is a symbolic link to nothing"),
                    other => other.into(),
                })?;
                let made = self.open(&path.bytes(), ResolveFlags::empty())?;
                // The mode again, because of the umask.
                let itself = openat(&made, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                rustix::fs::fchmod(&itself, Mode::from_raw_mode(0o755))?;
                made
            }
            (opened, _) => opened?,
        };
        let whole = real_path(opened.as_fd())?;
        let real = whole.strip_prefix(&self.prefix[..]).unwrap_or(&whole);
        let real = if real == b"/" { Vec::new() } else { real.to_vec() };
        if real.iter().filter(|&&b| b == b'/').count() > DEPTH {
            return Err(io::Error::other("its directory is too deep in the tree"));
        }
        Ok(Place { dir: opened, real })
    }

    /// Opens a directory by what [`Place::key`] said, if no link has taken its place since.
    pub(super) fn reopen(&self, key: &[u8]) -> io::Result<OwnedFd> {
        let path = key.strip_prefix(b"/").unwrap_or(key);
        let found = self.open(if path.is_empty() { b"." } else { path }, ResolveFlags::NO_SYMLINKS)?;
        Ok(openat(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn open(&self, path: &[u8], more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        // EAGAIN: something was renamed meanwhile, somewhere in the system, while a `..` was being resolved.
        loop {
            match openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }
}

/// The kernel's own name for an open directory.
fn real_path(dir: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    Ok(rustix::fs::readlinkat(CWD, link, Vec::new())?.into_bytes())
}

/// What `name` in `dir` is, links not followed; `None` when there is nothing.
pub(super) fn kind(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<FileType>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names in the directory `name` of `dir`, and the directory itself.
pub(super) fn children(dir: &OwnedFd, name: &[u8]) -> io::Result<(OwnedFd, Vec<Vec<u8>>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(dir, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok((opened, names))
}

/// Deletes `name` in `dir` with all that is in it; nothing there is fine.
pub(super) fn delete(dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match kind(dir, name)? {
        None => Ok(()),
        Some(FileType::Directory) => {
            let (inner, names) = children(dir, name)?;
            names.iter().try_for_each(|child| delete(&inner, child))?;
            Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
        }
        Some(_) => Ok(unlinkat(dir, name, AtFlags::empty())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_go_down_only() {
        let path = |text: &str| EntryPath::parse(text.as_bytes()).map(|p| String::from_utf8(p.bytes()).unwrap());
        assert_eq!(path("./a//b/.").unwrap(), "a/b");
        assert_eq!(path("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(path("./").unwrap(), ".");
        for bad in ["..", "a/../b", "../a", "a/..", "/.."] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path(&"a/".repeat(DEPTH)).is_ok());
        assert!(path(&"a/".repeat(DEPTH + 1)).is_err());
    }

    #[test]
    fn links_end_at_the_root_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::create_dir(outside.path().join("secret")).unwrap();
        for (link, target) in [("up", "../secret"), ("abs", outside.path().to_str().unwrap()), ("in", "real")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = Tree::new(rustix::fs::open(&root, flags, Mode::empty()).unwrap()).unwrap();
        let at = |text: &str, absent| tree.dir(&EntryPath::parse(text.as_bytes()).unwrap(), absent);
        assert_eq!(at("in", Absent::Fail).unwrap().key(b"x"), b"/real/x");
        assert_eq!(at(".", Absent::Fail).unwrap().real(), b"");
        for leaving in ["up", "abs", "nothing"] {
            assert_eq!(at(leaving, Absent::Fail).err().unwrap().kind(), io::ErrorKind::NotFound, "{leaving}");
        }
        assert!(at("up/x", Absent::Make).is_err());
        assert_eq!(at("in/new/dir", Absent::Make).unwrap().real(), b"/real/new/dir");
        assert!(root.join("real/new/dir").is_dir());
        assert!(tree.reopen(b"/in").is_err() && tree.reopen(b"/real").is_ok());
    }
}
