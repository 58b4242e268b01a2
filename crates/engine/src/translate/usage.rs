//! What containers use, and their processes as `ps` shows them.

use std::time::Duration;

use serde_json::{Value, json};
use skep_model::Timestamp;
use skep_model::usage::{ContainerProcess, ContainerUsage, CpuUsage, DeviceUsage, MemoryUsage, NetworkUsage};

use crate::backend::container::ContainerInfo;
use crate::error::Error;
use crate::types::meta::Time;

/// What a container used at a moment; `None` for one that did not run.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was looked.
    pub at: Timestamp,
    /// What it used.
    pub usage: Option<ContainerUsage>,
}

/// Writes a sample, with the one before it to tell what has been used in between.
#[must_use]
pub fn stats(container: &ContainerInfo, sample: &Sample, before: Option<&Sample>) -> Value {
    let cpu_of = |sample: Option<&Sample>| {
        sample.and_then(|s| s.usage.as_ref()).map_or_else(|| cpu(None), |u| cpu(Some(&u.cpu)))
    };
    let read = |sample: Option<&Sample>| sample.map_or_else(Time::default, |s| s.at.into());
    let usage = sample.usage.as_ref();
    let mut pids = json!({});
    if let Some(usage) = usage {
        // Without a limit it is the largest number, as with Docker.
        pids = json!({ "current": usage.pids, "limit": usage.pids_limit.unwrap_or(u64::MAX) });
    }
    let mut written = json!({
        "id": container.id, "name": format!("/{}", container.name), "os_type": "linux",
        "read": read(Some(sample)), "preread": read(before),
        "cpu_stats": cpu_of(Some(sample)), "precpu_stats": cpu_of(before),
        "memory_stats": usage.map_or_else(|| json!({}), |u| memory(&u.memory)),
        "pids_stats": pids,
        "blkio_stats": blkio(usage.map_or(&[], |u| &u.devices)),
        "num_procs": 0, "storage_stats": {},
    });
    if let Some(usage) = usage {
        written["networks"] = usage.networks.iter().map(|(name, n)| (name.clone(), network(n))).collect();
    }
    written
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn cpu(usage: Option<&CpuUsage>) -> Value {
    let own = usage.copied().unwrap_or_default();
    let mut written = json!({
        "cpu_usage": {
            "total_usage": nanos(own.total), "usage_in_kernelmode": nanos(own.kernel), "usage_in_usermode": nanos(own.user),
        },
        "throttling_data": {
            "periods": own.periods, "throttled_periods": own.throttled_periods, "throttled_time": nanos(own.throttled),
        },
    });
    if usage.is_some() {
        written["system_cpu_usage"] = json!(nanos(own.system));
        written["online_cpus"] = json!(own.processors);
    }
    written
}

fn memory(usage: &MemoryUsage) -> Value {
    let mut written = json!({ "usage": usage.usage, "limit": usage.limit, "stats": usage.details });
    for (name, value) in [("max_usage", usage.peak), ("failcnt", usage.failures)] {
        if let Some(value) = value {
            written[name] = json!(value);
        }
    }
    written
}

fn blkio(devices: &[DeviceUsage]) -> Value {
    let entry =
        |d: &DeviceUsage, op: &str, value: u64| json!({ "major": d.major, "minor": d.minor, "op": op, "value": value });
    let both = devices.iter().flat_map(|d| [entry(d, "read", d.read), entry(d, "write", d.written)]);
    json!({
        "io_service_bytes_recursive": both.collect::<Vec<_>>(), "io_serviced_recursive": null, "io_queue_recursive": null,
        "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
        "io_time_recursive": null, "sectors_recursive": null,
    })
}

fn network(usage: &NetworkUsage) -> Value {
    let ([rx_bytes, rx_packets, rx_errors, rx_dropped], [tx_bytes, tx_packets, tx_errors, tx_dropped]) =
        (usage.received, usage.sent);
    json!({
        "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
        "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
    })
}

/// A column of `ps`: its names, its title, what it shows.
type Column = (&'static [&'static str], &'static str, fn(&ContainerProcess, &Moment) -> String);

/// When and where processes are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// The machine's memory, in bytes.
    pub memory: u64,
}

const COLUMNS: &[Column] = &[
    (&["uid", "euid"], "UID", |p, _| p.uid.to_string()),
    (&["user", "euser"], "USER", |p, _| p.user.clone()),
    (&["pid"], "PID", |p, _| p.pid.to_string()),
    (&["ppid"], "PPID", |p, _| p.parent.to_string()),
    (&["c"], "C", |p, m| format!("{:.0}", share(p, m))),
    (&["pcpu", "%cpu"], "%CPU", |p, m| format!("{:.1}", share(p, m))),
    (&["pmem", "%mem"], "%MEM", |p, m| format!("{:.1}", ratio(p.resident_bytes, m.memory))),
    (&["vsz", "vsize"], "VSZ", |p, _| (p.virtual_bytes / 1024).to_string()),
    (&["rss", "rssize"], "RSS", |p, _| (p.resident_bytes / 1024).to_string()),
    (&["stat", "s", "state"], "STAT", |p, _| p.state.to_string()),
    (&["tty", "tt", "tname"], "TTY", |p, _| p.terminal.clone()),
    (&["nlwp", "thcount"], "NLWP", |p, _| p.threads.to_string()),
    (&["ni", "nice"], "NI", |p, _| p.nice.to_string()),
    (&["stime", "start", "start_time"], "STIME", began),
    (&["etimes"], "ELAPSED", |p, m| lived(p, m).as_secs().to_string()),
    (&["time", "cputime"], "TIME", |p, _| clock(p.cpu)),
    (&["comm", "ucmd"], "COMMAND", |p, _| p.name.clone()),
    (&["cmd"], "CMD", command),
    (&["args", "command"], "COMMAND", command),
];

/// What `ps -ef` and `ps aux` show.
const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,cmd";
const AUX: &str = "user,pid,%cpu,%mem,vsz,rss,tty,stat,start=START,time,command";

fn lived(process: &ContainerProcess, moment: &Moment) -> Duration {
    Duration::try_from(moment.now.duration_since(process.started)).unwrap_or_default()
}

/// Per cent of one processor since it was started.
fn share(process: &ContainerProcess, moment: &Moment) -> f64 {
    let lived = lived(process, moment).as_secs_f64();
    if lived > 0.0 { process.cpu.as_secs_f64() * 100.0 / lived } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole > 0 { part as f64 * 100.0 / whole as f64 } else { 0.0 }
}

/// The time of day in UTC, or the day when that is longer ago than one.
fn began(process: &ContainerProcess, moment: &Moment) -> String {
    let recent = lived(process, moment) < Duration::from_secs(24 * 60 * 60);
    process.started.strftime(if recent { "%H:%M" } else { "%b%d" }).to_string()
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Without arguments the kernel's name, in brackets, as `ps` has it.
fn command(process: &ContainerProcess, _: &Moment) -> String {
    if process.args.is_empty() { format!("[{}]", process.name) } else { process.args.join(" ") }
}

/// The columns that `ps` would show for these arguments, each with its title.
fn columns(args: &str) -> Result<Vec<(String, &'static Column)>, Error> {
    let list = match args.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] | ["-ef" | "ef" | "-fe" | "-eF"] => FULL.to_owned(),
        ["aux" | "-aux" | "axu"] => AUX.to_owned(),
        [all @ .., last]
            if all.iter().all(|a| matches!(*a, "-o" | "-eo" | "-e" | "o" | "-A" | "-Ao")) && !all.is_empty() =>
        {
            (*last).to_owned()
        }
        [one] if one.starts_with("-o") => one[2..].to_owned(),
        _ => {
            let message =
                format!("cannot show processes for {args:?}: there are -ef, aux and -o with names of columns");
            return Err(Error::invalid(message));
        }
    };
    list.split(',').map(column).collect()
}

fn column(text: &str) -> Result<(String, &'static Column), Error> {
    let (name, title) = text.split_once('=').map_or((text, None), |(name, title)| (name, Some(title)));
    let found = COLUMNS.iter().find(|(names, ..)| names.contains(&name.to_ascii_lowercase().as_str()));
    let found = found.ok_or_else(|| {
        let known: Vec<&str> = COLUMNS.iter().map(|(names, ..)| names[0]).collect();
        Error::invalid(format!("unknown column {name:?} of processes: there are {}", known.join(", ")))
    })?;
    Ok((title.unwrap_or(found.1).to_owned(), found))
}

/// Writes processes as `ps` shows them with these arguments.
///
/// # Errors
/// Arguments that are not understood.
pub fn top(processes: &[ContainerProcess], args: &str, moment: Moment) -> Result<Value, Error> {
    let columns = columns(args)?;
    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    let row = |p: &ContainerProcess| columns.iter().map(|(_, column)| (column.2)(p, &moment)).collect::<Vec<_>>();
    Ok(json!({ "Titles": titles, "Processes": processes.iter().map(row).collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ContainerProcess {
        ContainerProcess {
            pid: 42,
            parent: 1,
            uid: 101,
            user: "web".to_owned(),
            state: 'S',
            terminal: "?".to_owned(),
            threads: 3,
            nice: 0,
            virtual_bytes: 8 << 20,
            resident_bytes: 1 << 20,
            cpu: Duration::from_secs(65),
            started: "2026-11-30T10:00:00Z".parse().unwrap(),
            name: "nginx".to_owned(),
            args: vec!["nginx".to_owned(), "-g".to_owned()],
        }
    }

    fn shown(args: &str) -> Result<Value, Error> {
        let moment = Moment { now: "2026-11-30T10:10:50Z".parse().unwrap(), memory: 100 << 20 };
        top(&[process()], args, moment)
    }

    #[test]
    fn as_ps_shows_them() {
        let full = json!({
            "Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
            "Processes": [["web", "42", "1", "10", "10:00", "?", "00:01:05", "nginx -g"]],
        });
        assert_eq!(shown("").unwrap(), full);
        assert_eq!(shown("-ef").unwrap(), full);
        let aux = shown("aux").unwrap();
        assert_eq!(aux["Titles"][2], "%CPU");
        assert_eq!(
            aux["Processes"][0],
            json!(["web", "42", "10.0", "1.0", "8192", "1024", "?", "S", "10:00", "00:01:05", "nginx -g"])
        );
        let chosen = json!({ "Titles": ["PID", "COMMAND"], "Processes": [["42", "nginx"]] });
        assert_eq!(shown("-o pid,comm").unwrap(), chosen);
        assert_eq!(shown("-eo pid,comm").unwrap(), chosen);
        for bad in ["-o pid,nosuch", "--help", "-ef; rm"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
