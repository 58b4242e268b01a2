//! Unpacks a layer's tar into a tree.
//!
//! Layers are written by strangers and unpacked by root. The rules: paths are resolved by [`Tree`], which they cannot leave;
//! what stands in the way is unlinked before something is created, and created with `O_EXCL` or calls that do the same;
//! owners are set before modes (changing the owner clears setuid bits); of extended attributes only `security.capability`
//! and `user.*` are taken; the character device 0:0, which is a whiteout to overlayfs, is refused; bytes, entries and depth
//! are limited.
//!
//! Whiteouts (`.wh.name`, `.wh..wh..opq`; OCI image layer specification) delete from the merged tree, and only what lower
//! layers put there, wherever they stand among the layer's entries.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use tar::EntryType;

use super::Limits;
use super::stream::{Allowance, Limited};
use super::tree::{Absent, EntryPath, Place, Tree, children, delete, kind};

/// Why a layer was not unpacked.
#[derive(Debug)]
pub(super) enum Refused {
    /// The tar itself is damaged.
    Tar(io::Error),
    /// More bytes than allowed.
    Bytes,
    /// More entries than allowed.
    Entries,
    /// One entry is not acceptable, or could not be created.
    Entry { path: String, reason: String },
}

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Bytes in regular files.
    pub(super) size: u64,
}

/// Unpacks the (uncompressed) `layer` into `root`, and reads it to its very end.
pub(super) fn unpack(layer: impl Read, root: OwnedFd, limits: &Limits) -> Result<Unpacked, Refused> {
    let tree = Tree::new(root).map_err(Refused::Tar)?;
    let mut unpacker = Unpacker { tree, created: HashSet::new(), times: Vec::new(), size: 0 };
    let allowance = Allowance::new(limits.bytes);
    let cut = |error: io::Error| if allowance.left() == 0 { Refused::Bytes } else { Refused::Tar(error) };
    let mut archive = tar::Archive::new(Limited::new(layer, allowance.clone()));
    let mut entries = archive.entries().map_err(Refused::Tar)?;
    let mut count = 0;
    // Names and attributes are read into memory by `next`; the contents of entries are not.
    while let Some(entry) = allowance.within(limits.text, || entries.next()) {
        let mut entry = entry.map_err(cut)?;
        count += 1;
        if count > limits.entries {
            return Err(Refused::Entries);
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).chars().take(300).collect();
        unpacker.apply(&mut entry).map_err(|problem| match problem {
            Problem::Io(_) if allowance.left() == 0 => Refused::Bytes,
            Problem::Io(error) => Refused::Entry { path, reason: error.to_string() },
            Problem::Rule(reason) => Refused::Entry { path, reason: reason.to_owned() },
        })?;
        // What is left of the entry must not count as the next one's name.
        io::copy(&mut entry, &mut io::sink()).map_err(cut)?;
    }
    unpacker.set_directory_times();
    // The digest is of all bytes, those after the archive's end included.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(cut)?;
    Ok(Unpacked { size: unpacker.size })
}

enum Problem {
    Io(io::Error),
    Rule(&'static str),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Problem {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<&'static str> for Problem {
    fn from(rule: &'static str) -> Self {
        Self::Rule(rule)
    }
}

/// Owner, mode, time and attributes of an entry.
struct Meta {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
    attributes: Vec<(String, Vec<u8>)>,
}

struct Unpacker {
    tree: Tree,
    /// Where this layer has put something, by [`Place::key`], and the directories above.
    created: HashSet<Vec<u8>>,
    /// Times of directories, set at the end: creating files in them changes them.
    times: Vec<(Vec<u8>, Timestamps)>,
    size: u64,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Unpacker {
    fn apply(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Problem> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = EntryPath::parse(&entry.path_bytes())?;
        let Some((parent, name)) = path.split() else {
            return self.root(entry, kind);
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&parent, name);
        }
        let place = self.tree.dir(&parent, Absent::Make)?;
        let key = place.key(name);
        match kind {
            EntryType::Directory => self.directory(entry, &place, name)?,
            EntryType::Link => self.hard_link(entry, &place, name)?,
            _ => {
                let meta = meta(entry)?;
                delete(&place.dir, name)?;
                self.other(entry, kind, &place.dir, name, &meta)?;
            }
        }
        self.record(&place, key);
        Ok(())
    }

    fn record(&mut self, place: &Place, key: Vec<u8>) {
        self.created.insert(key);
        let mut above = place.real();
        while !above.is_empty() && self.created.insert(above.to_vec()) {
            above = &above[..above.iter().rposition(|&b| b == b'/').unwrap_or(0)];
        }
    }

    fn root(&mut self, entry: &mut tar::Entry<'_, impl Read>, kind: EntryType) -> Result<(), Problem> {
        if kind != EntryType::Directory {
            return Err("only a directory can be the root".into());
        }
        let meta = meta(entry)?;
        set_meta(self.tree.reopen(b"")?.as_fd(), &meta)?;
        self.times.push((Vec::new(), meta.times));
        Ok(())
    }

    fn directory(&mut self, entry: &mut tar::Entry<'_, impl Read>, place: &Place, name: &[u8]) -> Result<(), Problem> {
        let meta = meta(entry)?;
        if kind(&place.dir, name)? != Some(FileType::Directory) {
            delete(&place.dir, name)?;
            mkdirat(&place.dir, name, Mode::RWXU)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        set_meta(openat(&place.dir, name, flags, Mode::empty())?.as_fd(), &meta)?;
        self.times.push((place.key(name), meta.times));
        Ok(())
    }

    fn hard_link(&mut self, entry: &mut tar::Entry<'_, impl Read>, place: &Place, name: &[u8]) -> Result<(), Problem> {
        let target = entry.link_name_bytes().ok_or("a hard link without a target")?;
        let target = EntryPath::parse(&target).map_err(|_| "the target of the hard link has a .. in it")?;
        let (dir, file) = target.split().ok_or("a hard link to the root")?;
        let there = self.tree.dir(&dir, Absent::Fail).map_err(|_| "the target of the hard link does not exist")?;
        match kind(&there.dir, file)? {
            None => return Err("the target of the hard link does not exist".into()),
            Some(FileType::Directory) => return Err("a hard link to a directory".into()),
            Some(_) if there.key(file) == place.key(name) => return Ok(()),
            Some(_) => {}
        }
        delete(&place.dir, name)?;
        Ok(linkat(&there.dir, file, &place.dir, name, AtFlags::empty())?)
    }

    /// Files, symbolic links, devices and pipes, at a place where nothing is.
    fn other(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        kind: EntryType,
        dir: &OwnedFd,
        name: &[u8],
        meta: &Meta,
    ) -> Result<(), Problem> {
        let node = |kind, device| -> Result<(), Problem> {
            mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)?;
            // Nothing could have been put in the way: nobody else can reach the tree.
            chownat(dir, name, Some(meta.uid), Some(meta.gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(dir, name, meta.mode, AtFlags::empty())?;
            Ok(utimensat(dir, name, &meta.times, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, dir, name, meta),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or("a symbolic link without a target")?;
                symlinkat(&*target, dir, name)?;
                chownat(dir, name, Some(meta.uid), Some(meta.gid), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(utimensat(dir, name, &meta.times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            EntryType::Fifo => node(FileType::Fifo, 0),
            EntryType::Char => match device(entry)? {
                0 => Err("a character device 0:0 would hide files of other layers".into()),
                number => node(FileType::CharacterDevice, number),
            },
            EntryType::Block => node(FileType::BlockDevice, device(entry)?),
            _ => Err("the type of the entry is unknown".into()),
        }
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        dir: &OwnedFd,
        name: &[u8],
        meta: &Meta,
    ) -> Result<(), Problem> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
        self.size += io::copy(entry, &mut file)?;
        set_meta(file.as_fd(), meta)?;
        Ok(rustix::fs::futimens(&file, &meta.times)?)
    }

    fn whiteout(&mut self, parent: &EntryPath, name: &[u8]) -> Result<(), Problem> {
        let hidden = &name[WHITEOUT.len()..];
        if name != OPAQUE && matches!(hidden, b"" | b"." | b"..") {
            return Err("a whiteout of nothing".into());
        }
        // A directory that is not there has nothing to hide.
        let Ok(place) = self.tree.dir(parent, Absent::Fail) else { return Ok(()) };
        if name == OPAQUE {
            for child in children(&place.dir, b".")?.1 {
                self.hide(&place.dir, &child, &place.key(&child))?;
            }
            return Ok(());
        }
        if hidden.starts_with(WHITEOUT) {
            return Ok(()); // Bookkeeping of AUFS.
        }
        Ok(self.hide(&place.dir, hidden, &place.key(hidden))?)
    }

    /// Deletes what lower layers have put at `key`, and keeps what this layer has.
    fn hide(&self, dir: &OwnedFd, name: &[u8], key: &[u8]) -> io::Result<()> {
        if !self.created.contains(key) {
            return delete(dir, name);
        }
        if kind(dir, name)? == Some(FileType::Directory) {
            let (inner, names) = children(dir, name)?;
            for child in names {
                self.hide(&inner, &child, &[key, b"/", &child].concat())?;
            }
        }
        Ok(())
    }

    /// A directory that was replaced meanwhile is left alone.
    fn set_directory_times(&self) {
        for (key, times) in &self.times {
            if let Ok(dir) = self.tree.reopen(key) {
                let _ = rustix::fs::futimens(&dir, times);
            }
        }
    }
}

fn meta(entry: &mut tar::Entry<'_, impl Read>) -> Result<Meta, Problem> {
    // The highest number means "unchanged" to chown(2).
    let id = |number: io::Result<u64>| -> Result<u32, Problem> {
        u32::try_from(number?).ok().filter(|&id| id != u32::MAX).ok_or_else(|| "its owner's number is too big".into())
    };
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let header = entry.header();
    let (uid, gid) = (id(header.uid())?, id(header.gid())?);
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    Ok(Meta {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        mode,
        times: Timestamps { last_access: time, last_modification: time },
        attributes: attributes(entry)?,
    })
}

/// The extended attributes that a stranger may set. `user.overlay.` is for overlayfs alone.
fn attributes(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
        let allowed = name.starts_with("user.") && !name.starts_with("user.overlay.");
        if allowed || name == "security.capability" {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn device(entry: &tar::Entry<'_, impl Read>) -> Result<u64, Problem> {
    let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
    Ok(rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0)))
}

fn set_meta(file: BorrowedFd<'_>, meta: &Meta) -> Result<(), Problem> {
    fchown(file, Some(meta.uid), Some(meta.gid))?;
    fchmod(file, meta.mode)?;
    for (name, value) in &meta.attributes {
        match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // File systems without user attributes are common, and programs that need them are rare.
            Err(rustix::io::Errno::NOTSUP) if name.starts_with("user.") => {}
            other => other?,
        }
    }
    Ok(())
}
