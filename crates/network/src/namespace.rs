//! Namespaces that a path holds on to.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::error::NetworkError;

/// Which kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceKind {
    /// Links, addresses, routes, sockets.
    Net,
    /// The host name.
    Uts,
}

impl NamespaceKind {
    fn flag(self) -> CloneFlags {
        match self {
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
        }
    }

    fn own(self) -> &'static str {
        match self {
            Self::Net => "/proc/thread-self/ns/net",
            Self::Uts => "/proc/thread-self/ns/uts",
        }
    }
}

/// An open namespace. It lives as long as this value, a process in it, or the path that it is pinned at.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    kind: NamespaceKind,
}

impl Namespace {
    /// The network namespace pinned at `path`; a new one, with its loopback up, if there is none.
    ///
    /// # Errors
    /// When the kernel refuses; a file that an ended system left at `path` is taken over.
    pub fn ensure(path: &Path) -> Result<Self, NetworkError> {
        match Self::open(path) {
            Ok(found) => Ok(found),
            Err(_) => Self::create(path),
        }
    }

    /// A new network namespace, its loopback up, pinned at `path`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(path: &Path) -> Result<Self, NetworkError> {
        Self::pin(path, NamespaceKind::Net, raise_loopback)
    }

    /// A new UTS namespace with the given host name, pinned at `path`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create_uts(path: &Path, hostname: &str) -> Result<Self, NetworkError> {
        Self::pin(path, NamespaceKind::Uts, || Ok(nix::unistd::sethostname(hostname)?))
    }

    fn pin(
        path: &Path,
        kind: NamespaceKind,
        setup: impl FnOnce() -> io::Result<()> + Send,
    ) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "create", path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        File::options().create(true).append(true).open(path).map_err(failed)?;
        // The thread ends with its namespace; only the bind mount keeps it. Another thread would have to go back.
        let made = on_a_thread(|| {
            unshare(kind.flag())?;
            setup()?;
            mount(Some(kind.own()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        });
        if let Err(source) = made {
            let _ = fs::remove_file(path);
            return Err(failed(source));
        }
        Self::open_kind(path, kind)
    }

    /// The network namespace at `path`: a pinned one, or `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        Self::open_kind(path, NamespaceKind::Net)
    }

    /// A namespace of either kind at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open_kind(path: &Path, kind: NamespaceKind) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "open", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let held = nix::sys::statfs::fstatfs(&file).map_err(|e| failed(e.into()))?;
        if held.filesystem_type() != NSFS_MAGIC {
            return Err(NetworkError::NotANamespace(path.to_owned()));
        }
        Ok(Self { file, path: path.to_owned(), kind })
    }

    /// The network namespace in which this process runs.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, NetworkError> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// Lets go of the namespace pinned at `path`; nothing happens if there is none.
    ///
    /// # Errors
    /// What could not be unmounted or unlinked; the other is done all the same.
    pub fn delete(path: &Path) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "delete", path: path.to_owned(), source };
        let mut errors = Vec::new();
        // Several mounts may be stacked when two processes made the same namespace at once.
        while statfs(path).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC) {
            if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
                errors.push(failed(error.into()));
                break;
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => errors.push(failed(error)),
            _ => {}
        }
        NetworkError::collect(errors)
    }

    /// Paths in `directory` at which a namespace is pinned, sorted; none if there is no such directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(directory: &Path) -> Result<Vec<PathBuf>, NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "list", path: directory.to_owned(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let paths: io::Result<Vec<PathBuf>> = entries.map(|e| e.map(|e| e.path())).collect();
        let mut paths = paths.map_err(failed)?;
        paths.retain(|p| statfs(p).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC));
        paths.sort();
        Ok(paths)
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Not for work that blocks.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        on_a_thread(|| {
            setns(self.file.as_fd(), self.kind.flag())?;
            Ok(work())
        })
        .map_err(|source| NetworkError::Namespace { action: "enter", path: self.path.clone(), source })
    }

    /// Makes `command` start inside.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn enter_on_exec(&self, command: &mut Command) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "open", path: self.path.clone(), source };
        let file = self.file.try_clone().map_err(failed)?;
        let flag = self.kind.flag();
        // SAFETY: between fork and exec only setns(2) is called, on a descriptor that the closure owns: nothing is allocated or locked.
        unsafe { command.pre_exec(move || Ok(setns(file.as_fd(), flag)?)) };
        Ok(())
    }

    /// What identifies the namespace while it lives: equal to that of `/proc/<pid>/ns/net` of the processes in it.
    ///
    /// # Errors
    /// When the descriptor cannot be asked.
    pub fn inode(&self) -> Result<u64, NetworkError> {
        let failed = |source| NetworkError::Namespace { action: "identify", path: self.path.clone(), source };
        Ok(self.file.metadata().map_err(failed)?.ino())
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Brings `lo` of the calling thread's namespace up.
fn raise_loopback() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq of zeros is valid: a name, and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open, and SIOCSIFFLAGS reads one ifreq, which lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
