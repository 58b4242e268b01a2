//! Files of a container that are nowhere but in memory: a file system of their own below the container's directory, from which each is bound
//! into the container. It goes when the container has ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::container::ContainerFile;
use crate::error::RuntimeError;

/// The directory that the file system is mounted at.
fn place(dir: &Path) -> PathBuf {
    dir.join("memory")
}

/// Puts the files of a container there. Nothing is made where there are none.
pub(super) fn fill(dir: &Path, files: &[ContainerFile]) -> Result<(), RuntimeError> {
    if files.is_empty() {
        return Ok(());
    }
    let place = place(dir);
    drop_files(dir)?;
    fs::create_dir_all(&place).map_err(RuntimeError::io("create", &place))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Kernels before 6.4 do not know that it must not be swapped out.
    rustix::mount::mount("tmpfs", &place, "tmpfs", flags, c"mode=0700,noswap")
        .or_else(|_| rustix::mount::mount("tmpfs", &place, "tmpfs", flags, c"mode=0700"))
        .map_err(RuntimeError::io("mount memory at", &place))?;
    for (number, file) in files.iter().enumerate() {
        let path = place.join(number.to_string());
        write(&path, file).map_err(RuntimeError::io("write", &path))?;
    }
    Ok(())
}

fn write(path: &Path, file: &ContainerFile) -> io::Result<()> {
    let mut made: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    made.write_all(&file.data.0)?;
    fchown(&made, Some(file.uid), Some(file.gid))?;
    // After the owner, whose change takes setuid bits away.
    made.set_permissions(fs::Permissions::from_mode(file.mode))
}

/// The mounts by which the container sees them, with their targets.
pub(super) fn mounts(dir: &Path, files: &[ContainerFile]) -> Vec<(String, Value)> {
    let one = |(number, file): (usize, &ContainerFile)| {
        let source = place(dir).join(number.to_string());
        let options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
        (file.path.clone(), json!({ "destination": file.path, "type": "bind", "source": source, "options": options }))
    };
    files.iter().enumerate().map(one).collect()
}

/// Whether the files are there; they go with a restart of the machine.
pub(crate) fn is_there(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    matches!((device(dir), device(&place(dir))), (Ok(below), Ok(here)) if below != here)
}

/// Takes them away for good. That there are none is as good.
pub(crate) fn drop_files(dir: &Path) -> Result<(), RuntimeError> {
    let place = place(dir);
    while is_there(dir) {
        rustix::mount::unmount(&place, UnmountFlags::DETACH).map_err(RuntimeError::io("unmount", &place))?;
    }
    match fs::remove_dir(&place) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(RuntimeError::io("delete", &place)(e)),
        _ => Ok(()),
    }
}
