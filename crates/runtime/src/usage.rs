//! What a container uses: read from its cgroup, on v1, on v2 and where a machine has both, and from its network namespace.

mod processes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_model::usage::{ContainerUsage, CpuUsage, DeviceUsage, MemoryUsage, NetworkUsage};

pub(crate) use processes::of as processes;

/// From here on a limit of memory is none (cgroup v1 has the largest number of whole pages).
const UNLIMITED: u64 = 1 << 62;

/// The files of a cgroup, in whichever hierarchy they are.
struct Files(Vec<PathBuf>);

impl Files {
    fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|dir| fs::read_to_string(dir.join(name)).ok())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// Lines of a name and a number.
    fn table(&self, name: &str) -> BTreeMap<String, u64> {
        table(&self.text(name).unwrap_or_default())
    }
}

/// What the container with these cgroup directories uses; `init` is its first process.
pub(crate) fn of(cgroup: Vec<PathBuf>, init: i32) -> ContainerUsage {
    let files = Files(cgroup);
    let proc = Path::new("/proc");
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let memory_info = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let net = fs::read_to_string(proc.join(init.to_string()).join("net/dev")).unwrap_or_default();
    let (system, processors) = machine(&stat, processes::tick());
    ContainerUsage {
        cpu: CpuUsage { system, processors, ..cpu(&files, processes::tick()) },
        memory: memory(&files, &memory_info),
        pids: files.number("pids.current").unwrap_or_default(),
        pids_limit: files.number("pids.max"),
        devices: devices(&files),
        networks: networks(&net),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

fn cpu(files: &Files, tick: Duration) -> CpuUsage {
    let all = files.table("cpu.stat");
    let of = |name: &str| all.get(name).copied().unwrap_or_default();
    let (periods, throttled_periods) = (of("nr_periods"), of("nr_throttled"));
    let base = CpuUsage { periods, throttled_periods, ..CpuUsage::default() };
    // Where v1 counts processor time it does so for the container; v2 counts it too, and only for what is in its own hierarchy.
    if let Some(total) = files.number("cpuacct.usage") {
        let ticks = files.table("cpuacct.stat");
        let ticks =
            |name: &str| tick.saturating_mul(u32::try_from(ticks.get(name).copied().unwrap_or(0)).unwrap_or(u32::MAX));
        return CpuUsage {
            total: Duration::from_nanos(total),
            user: ticks("user"),
            kernel: ticks("system"),
            throttled: Duration::from_nanos(of("throttled_time")),
            ..base
        };
    }
    CpuUsage {
        total: Duration::from_micros(of("usage_usec")),
        user: Duration::from_micros(of("user_usec")),
        kernel: Duration::from_micros(of("system_usec")),
        throttled: Duration::from_micros(of("throttled_usec")),
        ..base
    }
}

/// Time of all processors, and their number, from `/proc/stat`.
fn machine(stat: &str, tick: Duration) -> (Duration, u32) {
    let mut lines = stat.lines().filter(|line| line.starts_with("cpu"));
    let all = lines.next().unwrap_or_default();
    // User, nice, system, idle, waiting, interrupts, soft interrupts, as Docker counts.
    let ticks: u64 = all.split_whitespace().skip(1).take(7).filter_map(|field| field.parse::<u64>().ok()).sum();
    let nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).saturating_mul(ticks);
    (Duration::from_nanos(nanos), u32::try_from(lines.count()).unwrap_or(u32::MAX))
}

fn memory(files: &Files, machine: &str) -> MemoryUsage {
    let v1 = files.number("memory.usage_in_bytes");
    let limit = files.number("memory.limit_in_bytes").or_else(|| files.number("memory.max"));
    let total =
        machine.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    MemoryUsage {
        usage: v1.or_else(|| files.number("memory.current")).unwrap_or_default(),
        peak: files.number("memory.max_usage_in_bytes"),
        failures: files.number("memory.failcnt"),
        limit: limit.filter(|limit| *limit < UNLIMITED).unwrap_or_else(|| total.unwrap_or(0_u64) * 1024),
        details: files.table("memory.stat"),
    }
}

fn devices(files: &Files) -> Vec<DeviceUsage> {
    match files.text("blkio.throttle.io_service_bytes_recursive") {
        Some(text) => devices_v1(&text),
        None => devices_v2(&files.text("io.stat").unwrap_or_default()),
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines like `8:0 Read 4096`.
fn devices_v1(text: &str) -> Vec<DeviceUsage> {
    let mut all: BTreeMap<(u64, u64), DeviceUsage> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some((major, minor)), Some(verb)) = (fields.next().and_then(device), fields.next()) else { continue };
        let bytes = fields.next().and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
        let one = all.entry((major, minor)).or_insert(DeviceUsage { major, minor, read: 0, written: 0 });
        match verb {
            "Read" => one.read = bytes,
            "Write" => one.written = bytes,
            _ => {}
        }
    }
    all.into_values().collect()
}

/// Lines like `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn devices_v2(text: &str) -> Vec<DeviceUsage> {
    let one = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        let (major, minor) = device(number)?;
        let of = |name: &str| {
            let fields = rest.split_whitespace().filter_map(|field| field.split_once('='));
            fields.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or_default()
        };
        Some(DeviceUsage { major, minor, read: of("rbytes"), written: of("wbytes") })
    };
    text.lines().filter_map(one).collect()
}

/// `/proc/<pid>/net/dev`, which is that of the process's namespace.
fn networks(text: &str) -> BTreeMap<String, NetworkUsage> {
    let one = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let four = |from: usize| <[u64; 4]>::try_from(counts.get(from..from + 4)?).ok();
        Some((name.trim().to_owned(), NetworkUsage { received: four(0)?, sent: four(8)? }))
    };
    text.lines().filter_map(one).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    fn files(of: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        of.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let files = Files(vec![dir.path().join("absent"), dir.path().to_owned()]);
        (dir, files)
    }

    #[test]
    fn as_cgroup_v1_tells_it() {
        let (_dir, files) = files(&[
            ("cpuacct.usage", "1500000000\n"),
            ("cpuacct.stat", "user 100\nsystem 50\n"),
            ("cpu.stat", "nr_periods 7\nnr_throttled 2\nthrottled_time 3000\n"),
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.max_usage_in_bytes", "9000\n"),
            ("memory.failcnt", "3\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "cache 10\ntotal_inactive_file 4096\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Write 5\nTotal 35\n",
            ),
        ]);
        let cpu = cpu(&files, TICK);
        assert_eq!(
            (cpu.total, cpu.user, cpu.kernel),
            (Duration::from_millis(1500), Duration::from_secs(1), Duration::from_millis(500))
        );
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (7, 2, Duration::from_nanos(3000)));
        let memory = memory(&files, "MemTotal:  2 kB\n");
        assert_eq!((memory.usage, memory.limit, memory.peak, memory.failures), (8192, 2048, Some(9000), Some(3)));
        assert_eq!(memory.details["total_inactive_file"], 4096);
        let device = |minor, read, written| DeviceUsage { major: 8, minor, read, written };
        assert_eq!(devices(&files), [device(0, 10, 20), device(16, 0, 5)]);
    }

    #[test]
    fn as_cgroup_v2_tells_it() {
        let (_dir, files) = files(&[
            (
                "cpu.stat",
                "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 3\n",
            ),
            ("memory.current", "8192\n"),
            ("memory.max", "16384\n"),
            ("memory.stat", "anon 1\ninactive_file 4096\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
        ]);
        let cpu = cpu(&files, TICK);
        assert_eq!(
            (cpu.total, cpu.user, cpu.throttled),
            (Duration::from_millis(1500), Duration::from_secs(1), Duration::from_micros(3))
        );
        let memory = memory(&files, "MemTotal:  2 kB\n");
        assert_eq!(
            (memory.usage, memory.limit, memory.peak, memory.details["inactive_file"]),
            (8192, 16384, None, 4096)
        );
        assert_eq!(devices(&files), [DeviceUsage { major: 8, minor: 0, read: 10, written: 20 }]);
    }

    #[test]
    fn the_machine_and_its_networks() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\ncpu1 3 4\nintr 5\n";
        assert_eq!(machine(stat, TICK), (TICK * 28, 2));
        let dev = "Inter-| Receive | Transmit\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let eth0 = NetworkUsage { received: [10, 2, 3, 4], sent: [50, 6, 7, 8] };
        assert_eq!(networks(dev), BTreeMap::from([("eth0".to_owned(), eth0)]));
    }
}
