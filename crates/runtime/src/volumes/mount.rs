//! File systems of volumes, by mount(2): no helper programs are run.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use skep_model::LocalVolume;

use super::VolumeError;

/// What the words of `o` mean to mount(2); what is left is for the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    bind: Option<Bind>,
    rest: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bind {
    Alone,
    WithAllBelow,
}

/// Words that set a flag, and those that take it away again.
const FLAGS: [(&str, &str, MountFlags); 10] = [
    ("ro", "rw", MountFlags::RDONLY),
    ("nosuid", "suid", MountFlags::NOSUID),
    ("nodev", "dev", MountFlags::NODEV),
    ("noexec", "exec", MountFlags::NOEXEC),
    ("sync", "async", MountFlags::SYNCHRONOUS),
    ("dirsync", "", MountFlags::DIRSYNC),
    ("noatime", "atime", MountFlags::NOATIME),
    ("nodiratime", "diratime", MountFlags::NODIRATIME),
    ("relatime", "norelatime", MountFlags::RELATIME),
    ("strictatime", "nostrictatime", MountFlags::STRICTATIME),
];

impl Words {
    fn of(options: &str) -> Self {
        let mut words = Self { flags: MountFlags::empty(), propagation: None, bind: None, rest: Vec::new() };
        for word in options.split(',').map(str::trim).filter(|word| !matches!(*word, "" | "defaults")) {
            words.take(word);
        }
        words
    }

    fn take(&mut self, word: &str) {
        if let Some((on, _, flag)) = FLAGS.iter().find(|(on, off, _)| *on == word || *off == word) {
            self.flags.set(*flag, *on == word);
            return;
        }
        match word {
            "bind" => self.bind = self.bind.or(Some(Bind::Alone)),
            "rbind" => self.bind = Some(Bind::WithAllBelow),
            "private" | "rprivate" => self.propagation = Some(MountPropagationFlags::PRIVATE),
            "slave" | "rslave" => self.propagation = Some(MountPropagationFlags::DOWNSTREAM),
            "shared" | "rshared" => self.propagation = Some(MountPropagationFlags::SHARED),
            "unbindable" | "runbindable" => self.propagation = Some(MountPropagationFlags::UNBINDABLE),
            other => self.rest.push(other.to_owned()),
        }
    }
}

/// Mounts a file system.
///
/// # Errors
/// Why not, in words.
pub(super) fn mount(local: &LocalVolume, at: &Path) -> Result<(), String> {
    let words = Words::of(&local.options);
    let made = match words.bind {
        Some(bind) => bind_mount(local, at, &words, bind),
        None => fresh_mount(local, at, &words)?,
    };
    let set = made.and_then(|()| match words.propagation {
        Some(propagation) => rustix::mount::mount_change(at, propagation),
        None => Ok(()),
    });
    set.map_err(|error| {
        // Half of what was asked for is not it.
        let _ = unmount(at);
        reason(error, local)
    })
}

fn fresh_mount(local: &LocalVolume, at: &Path, words: &Words) -> Result<Result<(), Errno>, String> {
    let mut rest = words.rest.clone();
    if matches!(local.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3") {
        rest = rest.into_iter().map(resolved).collect::<Result<_, _>>()?;
    }
    let data = CString::new(rest.join(",")).map_err(|e| e.to_string())?;
    Ok(rustix::mount::mount(local.device.as_str(), at, local.kind.as_str(), words.flags, data.as_c_str()))
}

fn bind_mount(local: &LocalVolume, at: &Path, words: &Words, bind: Bind) -> Result<(), Errno> {
    match bind {
        Bind::Alone => rustix::mount::mount_bind(local.device.as_str(), at)?,
        Bind::WithAllBelow => rustix::mount::mount_bind_recursive(local.device.as_str(), at)?,
    }
    // The kernel takes flags of a bind mount in a second step only.
    if words.flags.is_empty() {
        return Ok(());
    }
    rustix::mount::mount_remount(at, words.flags | MountFlags::BIND, c"")
}

/// The kernel knows addresses alone: `addr=nas.example` is asked of the node's resolver.
fn resolved(word: String) -> Result<String, String> {
    let Some(name) = word.strip_prefix("addr=").filter(|name| name.parse::<IpAddr>().is_err()) else {
        return Ok(word);
    };
    let failed = |e: String| format!("the name {name:?} of addr is not known to the node: {e}");
    let found = (name, 0).to_socket_addrs().map_err(|e| failed(e.to_string()))?.next();
    found.map(|found| format!("addr={}", found.ip())).ok_or_else(|| failed("it has no address".to_owned()))
}

/// What an error of mount(2) means.
fn reason(error: Errno, local: &LocalVolume) -> String {
    let LocalVolume { kind, device, .. } = local;
    match error {
        Errno::NODEV => format!("the kernel of the node has no file system of the type {kind:?}"),
        Errno::NOENT => format!("{device} is not there on the node"),
        Errno::NOTBLK => format!("{device} is no block device"),
        Errno::NOTDIR => format!("{device} is no directory"),
        Errno::INVAL if kind.starts_with("nfs") => {
            "the kernel does not take the options; nfs needs addr=ADDRESS among those of o".to_owned()
        }
        Errno::INVAL => {
            "the kernel does not take these options for it, or the device has another file system".to_owned()
        }
        other => io::Error::from(other).to_string(),
    }
}

/// Whether something is mounted exactly there.
pub(super) fn is_mounted(at: &Path) -> bool {
    let looked = rustix::fs::statx(CWD, at, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty());
    looked.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts what is mounted there; nothing is as good. What programs of the node still use goes once they let go of it.
pub(super) fn unmount(at: &Path) -> Result<(), VolumeError> {
    while is_mounted(at) {
        rustix::mount::unmount(at, UnmountFlags::NOFOLLOW)
            .or_else(|_| rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH))
            .map_err(VolumeError::io("unmount", at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_mount() {
        let words = Words::of("ro,noexec,exec,size=1m,rbind,rslave,defaults,mode=700");
        assert_eq!(words.flags, MountFlags::RDONLY);
        assert_eq!(words.bind, Some(Bind::WithAllBelow));
        assert_eq!(words.propagation, Some(MountPropagationFlags::DOWNSTREAM));
        assert_eq!(words.rest, ["size=1m", "mode=700"]);
        assert_eq!(Words::of("").rest, Vec::<String>::new());
    }

    #[test]
    fn names_of_servers_become_addresses() {
        assert_eq!(resolved("addr=10.0.0.1".into()).unwrap(), "addr=10.0.0.1");
        assert_eq!(resolved("vers=4".into()).unwrap(), "vers=4");
        assert!(["addr=127.0.0.1", "addr=::1"].contains(&resolved("addr=localhost".into()).unwrap().as_str()));
        assert!(resolved("addr=no.such.host.invalid".into()).unwrap_err().contains("no.such.host.invalid"));
    }
}
