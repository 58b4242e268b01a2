//! Overlay mounts: for unpacking a layer on its parents, and for the root file systems of containers.
//!
//! The new mount interface takes lower directories one by one (`lowerdir+`, since Linux 6.8) and can make a mount that is
//! in no directory at all: nothing is left of it when the process dies. Older kernels get the classic call, whose
//! options must fit into one page: the thread that calls it moves to the directory with the layers' short names.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use super::digest::ChainId;
use super::error::ImageError;
use super::layers;

/// A string given to fsconfig(2) must be shorter than this.
const FSCONFIG_STRING: usize = 256;

/// Features that would make an upper directory depend on the exact layers below it, or on this very mount. All layers are
/// mounted again in other company.
const PORTABLE: [(&str, &str); 3] = [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")];

/// Directories of an overlay mount.
pub(super) struct Overlay<'a> {
    /// The directory with the layers' short names.
    pub(super) links: &'a Path,
    /// Short names in `links`, the top first; none for an empty image.
    pub(super) lowers: Vec<String>,
    /// Where changes go.
    pub(super) upper: &'a Path,
    /// An empty directory on the same file system.
    pub(super) work: &'a Path,
    /// Whether the kernel may leave writing the changes out to us.
    pub(super) durability: Durability,
}

/// Who sees to it that changes reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The kernel, as on any file system.
    Kernel,
    /// The caller, after the mount is gone.
    Caller,
}

impl Overlay<'_> {
    fn lowers(&self) -> Vec<&str> {
        if self.lowers.is_empty() { vec!["empty"] } else { self.lowers.iter().map(String::as_str).collect() }
    }

    /// Mounts at no place and returns the root directory: the mount lives as long as descriptors into it. An old kernel
    /// mounts at `place` for a moment.
    pub(super) fn detached(&self, place: &Path) -> Result<OwnedFd, ImageError> {
        self.make().or_else(|_| self.detached_classic(place)).map_err(ImageError::mount(place))
    }

    fn detached_classic(&self, place: &Path) -> io::Result<OwnedFd> {
        self.classic(place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(place, flags, Mode::empty());
        unmount(place, UnmountFlags::DETACH)?;
        Ok(opened?)
    }

    /// Mounts at `place`.
    pub(super) fn attach(&self, place: &Path) -> Result<(), ImageError> {
        let Ok(made) = self.make() else { return self.classic(place).map_err(ImageError::mount(place)) };
        let moved = move_mount(made.as_fd(), "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        moved.map_err(ImageError::mount(place))
    }

    /// The new interface. Fails on kernels without `lowerdir+`, and on paths too long for it.
    fn make(&self) -> io::Result<OwnedFd> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &[u8]| -> io::Result<()> {
            if value.len() >= FSCONFIG_STRING {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            Ok(fsconfig_set_string(fs.as_fd(), key, value)?)
        };
        for lower in self.lowers() {
            set("lowerdir+", self.links.join(lower).as_os_str().as_bytes())?;
        }
        set("upperdir", self.upper.as_os_str().as_bytes())?;
        set("workdir", self.work.as_os_str().as_bytes())?;
        for (key, value) in PORTABLE {
            set(key, value.as_bytes())?;
        }
        if self.durability == Durability::Caller {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), "volatile")?;
        }
        set("source", b"overlay")?;
        fsconfig_create(fs.as_fd())?;
        Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
    }

    /// The classic interface, from a thread of its own: its working directory is nobody else's.
    fn classic(&self, place: &Path) -> io::Result<()> {
        let mut options = b"lowerdir=".to_vec();
        options.extend(self.lowers().join(":").bytes());
        for (key, dir) in [("upperdir", self.upper), ("workdir", self.work)] {
            options.extend(format!(",{key}=").bytes());
            options.extend(escaped(dir));
        }
        for (key, value) in PORTABLE {
            options.extend(format!(",{key}={value}").bytes());
        }
        if self.durability == Durability::Caller {
            options.extend(b",volatile");
        }
        if options.len() >= rustix::param::page_size() {
            let reason = format!("{} layers need {} bytes of mount options", self.lowers.len(), options.len());
            return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, reason));
        }
        let options = CString::new(options)?;
        let call = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(self.links)?;
            Ok(mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str())?)
        };
        std::thread::scope(|threads| threads.spawn(call).join())
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    }
}

/// A comma or colon in a path would end the option; the kernel takes a backslash before them.
fn escaped(path: &Path) -> impl Iterator<Item = u8> {
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.flat_map(|&b| if b",:\\".contains(&b) { vec![b'\\', b] } else { vec![b] })
}

/// See [`super::Images::mount`].
pub(super) fn mount_container(root: &Path, chain: &[ChainId], at: &Path) -> Result<PathBuf, ImageError> {
    let fresh = !at.join("upper").exists();
    for dir in ["upper", "work", "rootfs"] {
        let dir = at.join(dir);
        fs::create_dir_all(&dir).map_err(ImageError::io("create", &dir))?;
    }
    let at = fs::canonicalize(at).map_err(ImageError::io("resolve", at))?;
    let rootfs = at.join("rootfs");
    if mounts()?.contains(&rootfs) {
        return Ok(rootfs);
    }
    if let Some(top) = chain.last().filter(|_| fresh) {
        super::place::same_owner(&layers::layer_path(root, top).join("diff"), &at.join("upper"))?;
    }
    for layer in chain {
        layers::ensure_link(root, layer)?;
    }
    let overlay = Overlay {
        links: &root.join("l"),
        lowers: chain.iter().rev().map(layers::link_name).collect(),
        upper: &at.join("upper"),
        work: &at.join("work"),
        durability: Durability::Kernel,
    };
    overlay.attach(&rootfs)?;
    Ok(rootfs)
}

/// See [`super::Images::unmount`].
pub(super) fn unmount_container(at: &Path) -> Result<(), ImageError> {
    let Ok(at) = fs::canonicalize(at) else { return Ok(()) };
    unmount_all(&at.join("rootfs"))
}

/// Unmounts everything at or below `dir`.
pub(super) fn unmount_below(dir: &Path) -> Result<(), ImageError> {
    mounts()?.iter().rev().filter(|place| place.starts_with(dir)).try_for_each(|place| detach(place))
}

fn unmount_all(place: &Path) -> Result<(), ImageError> {
    mounts()?.iter().filter(|there| *there == place).try_for_each(|place| detach(place))
}

/// Takes a mount out of sight at once; what a dying process still has open in it goes with that process.
fn detach(place: &Path) -> Result<(), ImageError> {
    match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(ImageError::mount(place)(error)),
    }
}

/// Where something is mounted, in the order of mounting (proc(5), mountinfo).
fn mounts() -> Result<Vec<PathBuf>, ImageError> {
    let path = Path::new("/proc/self/mountinfo");
    let bytes = fs::read(path).map_err(ImageError::io("read", path))?;
    Ok(bytes.split(|&b| b == b'\n').filter_map(mount_point).collect())
}

fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|&b| b == b' ').nth(4)?;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let line = br"36 35 98:0 /mnt1 /mnt\040a\134b\011c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), Path::new("/mnt a\\b\tc"));
        assert_eq!(mount_point(b""), None);
        assert_eq!(mount_point(br"1 2 3:4 / /a\9 rw").unwrap(), Path::new(r"/a\9"));
    }

    /// Three layers with a file each, under short names.
    fn three_layers(dir: &Path) {
        for name in ["l/a", "l/b", "l/c", "upper,1", "work", "place"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for name in ["a", "b", "c"] {
            fs::write(dir.join("l").join(name).join("top"), name).unwrap();
            fs::write(dir.join("l").join(name).join(name), "").unwrap();
        }
    }

    #[test]
    fn both_interfaces_of_the_kernel_stack_layers_alike() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts file systems: run it as root");
        for classic in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path();
            three_layers(path);
            let (links, upper, work, place) =
                (path.join("l"), path.join("upper,1"), path.join("work"), path.join("place"));
            let overlay = Overlay {
                links: &links,
                lowers: ["c", "b", "a"].map(str::to_owned).to_vec(),
                upper: &upper,
                work: &work,
                durability: Durability::Caller,
            };
            let root = if classic { overlay.detached_classic(&place).unwrap() } else { overlay.make().unwrap() };
            assert!(!mounts().unwrap().contains(&place), "nothing is mounted where others see it");
            let read = |name: &str| {
                let file = rustix::fs::openat(&root, name, OFlags::RDONLY, Mode::empty())?;
                io::read_to_string(fs::File::from(file))
            };
            assert_eq!(read("top").unwrap(), "c", "the first lower directory is the top");
            assert!(["a", "b", "c"].iter().all(|name| read(name).is_ok()));
            rustix::fs::unlinkat(&root, "top", rustix::fs::AtFlags::empty()).unwrap();
            assert!(read("top").is_err() && upper.join("top").symlink_metadata().is_ok());
        }
    }

    #[test]
    fn too_many_layers_for_the_classic_interface_are_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay {
            links: dir.path(),
            lowers: vec!["0123456789abcdef0123".to_owned(); 300],
            upper: dir.path(),
            work: dir.path(),
            durability: Durability::Kernel,
        };
        assert!(overlay.classic(dir.path()).unwrap_err().to_string().contains("300 layers need"));
    }
}
