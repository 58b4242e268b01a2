//! What is mounted into a container.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};
use skep_model::{Mount, MountKind};

use super::{FILES, Places};
use crate::container::Container;
use crate::error::RuntimeError;
use crate::images::ImageConfig;

/// Opens a file of an image for reading; links in it lead nowhere else.
pub(super) fn open_inside(rootfs: &Path, name: &str) -> io::Result<File> {
    let root = File::open(rootfs)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve)?.into())
}

/// All mounts, in order: the kernel's file systems, the files of `/etc`, and what the service and the image ask for.
pub(super) fn mounts(
    places: &Places<'_>,
    container: &Container,
    image: &ImageConfig,
) -> Result<Vec<Value>, RuntimeError> {
    let asked: Vec<&str> = container.spec.mounts.iter().map(|m| m.target.trim_end_matches('/')).collect();
    let of_image = image.volumes.iter().filter(|v| !asked.contains(&v.trim_end_matches('/')));
    let anonymous =
        |target: &String| Mount { kind: MountKind::Volume { source: None }, target: target.clone(), read_only: false };
    let wanted: Vec<Mount> = container.spec.mounts.iter().cloned().chain(of_image.map(anonymous)).collect();
    let mut own = Vec::new();
    for (number, mount) in wanted.iter().enumerate() {
        own.push((mount.target.trim_end_matches('/').to_owned(), one(places, number, mount)?));
    }
    for name in FILES {
        let (target, source) = (format!("/etc/{name}"), places.dir.join("files").join(name));
        if !asked.contains(&target.as_str()) {
            let bind =
                json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"] });
            own.push((target, bind));
        }
    }
    own.extend(super::memory::mounts(places.dir, &container.files));
    // Parents first, so that none hides a mount below it.
    own.sort_by_key(|(target, _)| Path::new(target).components().count());
    let mut all = kernel();
    all.retain(|mount| !asked.iter().any(|target| mount["destination"] == *target));
    all.extend(own.into_iter().map(|(_, mount)| mount));
    Ok(all)
}

fn kernel() -> Vec<Value> {
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ]
}

fn one(places: &Places<'_>, number: usize, mount: &Mount) -> Result<Value, RuntimeError> {
    let target = Path::new(&mount.target);
    if !target.is_absolute() || target.parent().is_none() || target.components().any(|c| c == Component::ParentDir) {
        let reason = "it must be an absolute path without \"..\", other than \"/\"".to_owned();
        return Err(RuntimeError::BadMount { target: mount.target.clone(), reason });
    }
    let access = if mount.read_only { "ro" } else { "rw" };
    let bind = |source: &Path, propagation: &str| json!({ "destination": mount.target, "type": "bind", "source": source, "options": ["rbind", propagation, access] });
    match &mount.kind {
        MountKind::Bind { source, propagation } => {
            let path = Path::new(source);
            if !path.is_absolute() {
                let reason = format!("the source {source:?} must be an absolute path");
                return Err(RuntimeError::BadMount { target: mount.target.clone(), reason });
            }
            if fs::metadata(path).is_err() {
                return Err(RuntimeError::NoBindSource(path.to_owned()));
            }
            Ok(bind(path, propagated(&mount.target, propagation.as_deref())?))
        }
        MountKind::Volume { source } => {
            let dir = match source {
                Some(name) => places.volumes.join(volume_name(&mount.target, name)?),
                None => places.dir.join("volumes").join(number.to_string()),
            };
            Ok(bind(&filled(&dir, places.rootfs, target)?, "rprivate"))
        }
        MountKind::Tmpfs(options) => {
            let mut list = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned(), access.to_owned()];
            list.extend(options.size.map(|size| format!("size={size}")));
            list.extend(options.mode.map(|mode| format!("mode={mode:o}")));
            Ok(json!({ "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": list }))
        }
    }
}

/// How mounts made later on one side of a bind mount are seen on the other.
fn propagated<'a>(target: &str, asked: Option<&'a str>) -> Result<&'a str, RuntimeError> {
    match asked.filter(|p| !p.is_empty()).unwrap_or("rprivate") {
        known @ ("rprivate" | "rshared" | "rslave" | "private" | "shared" | "slave") => Ok(known),
        other => {
            Err(RuntimeError::BadMount { target: target.to_owned(), reason: format!("unknown propagation {other:?}") })
        }
    }
}

fn volume_name<'a>(target: &str, name: &'a str) -> Result<&'a str, RuntimeError> {
    let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    let reason = || format!("{name:?} is no name of a volume: letters, digits, '_', '.' and '-' are allowed");
    if good { Ok(name) } else { Err(RuntimeError::BadMount { target: target.to_owned(), reason: reason() }) }
}

/// The directory of a volume, filled with what the image has at `target` when it is new. Made aside and renamed, so that a
/// crash leaves no half of it.
fn filled(volume: &Path, rootfs: &Path, target: &Path) -> Result<PathBuf, RuntimeError> {
    if volume.exists() {
        return Ok(volume.to_owned());
    }
    // Volumes and what is being made live apart: no volume's name begins with a dot.
    let name = volume.file_name().unwrap_or_default().to_string_lossy();
    let aside = volume.with_file_name(format!(".{name}-{}", unique()));
    let failed = |source: io::Error| RuntimeError::Io { verb: "fill volume", path: volume.to_owned(), source };
    fs::create_dir_all(&aside).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = File::open(rootfs).map_err(failed)?;
    let inside =
        rustix::fs::openat2(&root, target, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    if let Ok(dir) = inside {
        copy(Path::new(&format!("/proc/self/fd/{}/.", dir.as_raw_fd())), &aside).map_err(failed)?;
    }
    match fs::rename(&aside, volume) {
        Ok(()) => Ok(volume.to_owned()),
        // Another container filled the same volume meanwhile: its content stays.
        Err(_) if volume.exists() => {
            fs::remove_dir_all(&aside).map_err(failed)?;
            Ok(volume.to_owned())
        }
        Err(source) => Err(failed(source)),
    }
}

/// A number that no other work under way has.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
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
