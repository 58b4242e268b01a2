//! What the machine is and has.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::utsname::uname;
use skep_engine::backend::node::ProcessInfo;
use skep_model::Timestamp;

/// Facts about the machine. Read anew each time: a host name may change.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) hostname: String,
    pub(crate) kernel: String,
    /// As the kernel calls it: `x86_64`.
    pub(crate) architecture: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub(crate) operating_system: String,
    /// `12`
    pub(crate) os_version: String,
    pub(crate) cpus: u32,
    /// Bytes.
    pub(crate) memory: u64,
    /// 1 or 2
    pub(crate) cgroup_version: u8,
}

impl Host {
    pub(crate) fn read() -> Self {
        let uts = uname().ok();
        let name = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            uts.as_ref().map(|u| f(u).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            hostname: name(|u| u.nodename()),
            kernel: name(|u| u.release()),
            architecture: name(|u| u.machine()),
            operating_system: os_field(&os_release, "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            os_version: os_field(&os_release, "VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cgroup_version: cgroup_version(Path::new("/sys/fs/cgroup")),
        }
    }
}

/// One field of `os-release(5)`.
fn os_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// All memory, in bytes, from `/proc/meminfo`.
fn memory(meminfo: &str) -> u64 {
    kilobytes(meminfo, "MemTotal:") * 1024
}

fn cgroup_version(root: &Path) -> u8 {
    let unified = statfs(root).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if unified { 2 } else { 1 }
}

/// How many files the daemon has open.
pub(crate) fn open_files() -> u32 {
    let count = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What this process uses. What cannot be read is 0.
pub(crate) fn process(started: Timestamp) -> ProcessInfo {
    let spent = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0));
    let cpu = getrusage(UsageWho::RUSAGE_SELF).map(|used| spent(used.user_time()) + spent(used.system_time()));
    ProcessInfo {
        resident_bytes: kilobytes(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:") * 1024,
        cpu: cpu.unwrap_or_default(),
        open_files: open_files(),
        started,
    }
}

/// A line of `/proc` that counts kB.
fn kilobytes(text: &str, name: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    count.and_then(|k| k.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_unquoted() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian GNU/Linux 12 (bookworm)'\n";
        assert_eq!(os_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_field(text, "PRETTY_NAME").as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_field(text, "VERSION"), None);
        assert_eq!(memory("MemTotal:       24683656 kB\nMemFree: 1 kB\n"), 24_683_656 * 1024);
    }

    #[test]
    fn a_process_knows_what_it_uses() {
        let used = process(Timestamp::UNIX_EPOCH);
        assert!(used.resident_bytes > 1 << 20, "{used:?}");
        assert!(used.open_files >= 3, "{used:?}");
        // Work until it shows: processor time is counted in ticks on some kernels.
        while process(Timestamp::UNIX_EPOCH).cpu <= used.cpu {}
    }
}
