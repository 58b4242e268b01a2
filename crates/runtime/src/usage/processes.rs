//! The processes of a container, as `/proc` of the node shows them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, Uid, User, sysconf};
use skep_model::Timestamp;
use skep_model::usage::ContainerProcess;

/// The length of a clock tick, in which `/proc` counts.
pub(super) fn tick() -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u32::try_from(ticks).ok());
    Duration::from_secs(1) / per_second.filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// The processes with these numbers; those that have ended meanwhile are left out.
pub(crate) fn of(pids: &[i32]) -> Vec<ContainerProcess> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0);
    pids.iter().filter_map(|pid| one(*pid, booted)).collect()
}

fn one(pid: i32, booted: i64) -> Option<ContainerProcess> {
    let dir = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| fs::read(dir.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok();
    let status = read("status")?;
    // Real, effective, saved, of the file system: `ps` shows the second.
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uids.split_whitespace().nth(1)?.parse().ok()?;
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let cmdline = read("cmdline").unwrap_or_default();
    let args = cmdline.split_terminator('\0').map(str::to_owned).collect();
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    parse(&read("stat")?, booted, tick(), page).map(|process| ContainerProcess { uid, user, args, ..process })
}

/// What `/proc/<pid>/stat` tells (proc(5)).
fn parse(stat: &str, booted: i64, tick: Duration, page: u64) -> Option<ContainerProcess> {
    let (pid, rest) = stat.split_once(" (")?;
    // The name may contain anything; after its last parenthesis come the fields from the third.
    let (name, fields) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |at: usize| field(at).and_then(|text| text.parse::<u64>().ok());
    let ticks = |count: u64| tick.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    let started = Timestamp::from_second(booted).ok()?.checked_add(ticks(number(22)?)).ok()?;
    Some(ContainerProcess {
        pid: pid.trim().parse().ok()?,
        parent: field(4)?.parse().ok()?,
        uid: 0,
        user: String::new(),
        state: field(3)?.chars().next()?,
        terminal: terminal(number(7)?),
        threads: number(20)?,
        nice: field(19)?.parse().ok()?,
        virtual_bytes: number(23)?,
        resident_bytes: number(24)?.saturating_mul(page),
        cpu: ticks(number(14)? + number(15)?),
        started,
        name: name.to_owned(),
        args: Vec::new(),
    })
}

/// The name of a terminal by its device number: the minor number is in bits 31 to 20 and 7 to 0, the major in 15 to 8.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        // Pseudo-terminals have eight major numbers with 256 (since Linux 2.6: a million) minor ones each.
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc() {
        let stat = "42 (a) b) S 1 42 42 34817 42 4194304 1 0 0 0 150 50 0 0 20 5 3 0 200 8192 2 18446744073709551615";
        let process = parse(stat, 1000, Duration::from_millis(10), 4096).unwrap();
        assert_eq!((process.pid, process.parent, process.name.as_str(), process.state), (42, 1, "a) b", 'S'));
        assert_eq!((process.cpu, process.terminal.as_str(), process.threads), (Duration::from_secs(2), "pts/1", 3));
        assert_eq!((process.virtual_bytes, process.resident_bytes, process.nice), (8192, 8192, 5));
        assert_eq!(process.started, Timestamp::from_second(1002).unwrap());
        assert!(parse("42 (a) S 1", 0, Duration::from_millis(10), 4096).is_none());
    }

    #[test]
    fn one_of_our_own() {
        let me = std::process::id().cast_signed();
        let found = of(&[me, i32::MAX]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, found[0].uid), (me, Uid::effective().as_raw()));
        assert_eq!(found[0].args, std::env::args().collect::<Vec<_>>());
        assert!(found[0].resident_bytes > 0 && found[0].started <= Timestamp::now());
    }
}
