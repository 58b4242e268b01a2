//! What is mounted into a container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};
use skep_model::{Mount, MountKind, VolumeOptions};

use super::{FILES, Places};
use crate::container::Container;
use crate::error::RuntimeError;
use crate::images::ImageConfig;
use crate::volumes::Content;

/// Opens a file of an image for reading; links in it lead nowhere else.
pub(super) fn open_inside(rootfs: &Path, name: &str) -> io::Result<File> {
    let root = File::open(rootfs)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve)?.into())
}

/// The volumes of a container by where they are mounted.
pub(crate) type UsedVolumes = BTreeMap<String, String>;

/// All mounts, in order: the kernel's file systems, the files of `/etc`, and what the service and the image ask for.
pub(super) fn mounts(
    places: &Places<'_>,
    container: &Container,
    image: &ImageConfig,
) -> Result<(Vec<Value>, UsedVolumes), RuntimeError> {
    let asked: Vec<&str> = container.spec.mounts.iter().map(|m| m.target.trim_end_matches('/')).collect();
    let of_image = image.volumes.iter().filter(|v| !asked.contains(&v.trim_end_matches('/')));
    let anonymous = |target: &String| {
        let kind = MountKind::Volume { source: None, options: VolumeOptions::default() };
        Mount { kind, target: target.clone(), read_only: false }
    };
    let wanted: Vec<Mount> = container.spec.mounts.iter().cloned().chain(of_image.map(anonymous)).collect();
    let (mut own, mut used) = (Vec::new(), UsedVolumes::new());
    for (number, mount) in wanted.iter().enumerate() {
        own.push((mount.target.trim_end_matches('/').to_owned(), one(places, number, mount, &mut used)?));
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
    Ok((all, used))
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

fn one(places: &Places<'_>, number: usize, mount: &Mount, used: &mut UsedVolumes) -> Result<Value, RuntimeError> {
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
        MountKind::Volume { source, options } => {
            let content = Content { rootfs: places.rootfs, target };
            let (name, place) = places.volumes.take(places.id, (source.as_deref(), number), options, &content)?;
            used.insert(mount.target.clone(), name);
            Ok(bind(&place, "rprivate"))
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
