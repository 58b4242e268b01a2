//! The OCI bundle: `config.json` and the files of `/etc` that are made for each container.

pub(crate) mod memory;
mod mounts;
mod process;
mod resolv_conf;
mod users;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

pub(crate) use mounts::UsedVolumes;
pub(crate) use process::{TERM, args, override_env};
pub(crate) use users::resolve as user;

use crate::container::{Container, ContainerId};
use crate::error::RuntimeError;
use crate::images::ImageConfig;
use crate::volumes::Volumes;

/// The annotation of a bundle whose first process is to be a small reaper, with the program as its child.
pub(crate) const REAPER: &str = "skep.reaper";

/// The annotation of a bundle whose `HOME` is where its user lives: its value. There is none when image or service have said it.
pub(crate) const HOME: &str = "skep.home";

/// The files that a container sees at `/etc/<name>`, below its directory.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What every container's `/etc/hosts` begins with, as Docker writes it.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                     ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Parts of `/proc` and `/sys` that Docker hides.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Parts of `/proc` that Docker lets containers only read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The character devices that a container may open, major and minor (all of them when there is none): null, zero, full, random,
/// urandom, tty, console, ptmx, and pseudo-terminals. Of other devices it may only make nodes.
pub(crate) const DEVICES: &[(i32, Option<i32>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Where a bundle's parts lie on the node.
pub(crate) struct Places<'a> {
    /// The container's directory.
    pub(crate) dir: &'a Path,
    /// Its mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// The container.
    pub(crate) id: &'a ContainerId,
    /// The volumes of the node.
    pub(crate) volumes: &'a Volumes,
    /// Its cgroup, from the root of each hierarchy.
    pub(crate) cgroup: &'a str,
}

/// Writes everything that the shim starts the container from into its directory. Returns the volumes that it uses.
pub(crate) fn write(
    places: &Places<'_>,
    container: &Container,
    image: &ImageConfig,
) -> Result<UsedVolumes, RuntimeError> {
    write_files(&places.dir.join("files"), container)?;
    memory::fill(places.dir, &container.files)?;
    let mut annotations = serde_json::Map::new();
    if container.spec.init == Some(true) {
        annotations.insert(REAPER.to_owned(), "true".into());
    }
    let (process, home) = process::process(places.rootfs, container, image)?;
    if let Some(home) = home {
        annotations.insert(HOME.to_owned(), home.into());
    }
    let (mounts, used) = mounts::mounts(places, container, image)?;
    let spec = json!({
        "ociVersion": "1.0.2",
        "annotations": annotations,
        "hostname": container.hostname,
        "root": { "path": places.rootfs, "readonly": container.spec.read_only },
        "process": process,
        "mounts": mounts,
        "linux": linux(places, container)?,
    });
    let path = places.dir.join("config.json");
    fs::write(&path, spec.to_string()).map_err(RuntimeError::io("write", &path))?;
    Ok(used)
}

fn write_files(dir: &Path, container: &Container) -> Result<(), RuntimeError> {
    fs::create_dir_all(dir).map_err(RuntimeError::io("create", dir))?;
    let mut hosts = HOSTS.to_owned();
    for line in &container.spec.hosts {
        hosts.push_str(&format!("{line}\n"));
    }
    for address in &container.addresses {
        hosts.push_str(&format!("{address}\t{}\n", container.hostname));
    }
    let contents = [hosts, format!("{}\n", container.hostname), resolv_conf::of(container)];
    for (name, content) in FILES.iter().zip(contents) {
        let path = dir.join(name);
        fs::write(&path, content).map_err(RuntimeError::io("write", &path))?;
    }
    Ok(())
}

fn linux(places: &Places<'_>, container: &Container) -> Result<Value, RuntimeError> {
    let mut sysctl = serde_json::Map::new();
    sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
    sysctl.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
    for (name, value) in &container.spec.sysctls {
        let own = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
            || name == "kernel.sem";
        if !own {
            return Err(RuntimeError::BadSysctl(name.clone()));
        }
        sysctl.insert(name.clone(), json!(value));
    }
    Ok(json!({
        "namespaces": [
            { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
            { "type": "network", "path": container.netns },
        ],
        "cgroupsPath": places.cgroup,
        "resources": resources(container),
        "sysctl": sysctl,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    }))
}

fn resources(container: &Container) -> Value {
    let (limits, reserved) = (container.resources.limits, &container.resources.reservations);
    let mut devices = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    for (major, minor) in DEVICES {
        let mut device = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            device["minor"] = json!(minor);
        }
        devices.push(device);
    }
    let mut resources = json!({ "devices": devices });
    let mut memory = serde_json::Map::new();
    if limits.memory > 0 {
        memory.insert("limit".into(), json!(limits.memory));
    }
    if reserved.memory > 0 {
        memory.insert("reservation".into(), json!(reserved.memory));
    }
    if !memory.is_empty() {
        resources["memory"] = memory.into();
    }
    if limits.nano_cpus > 0 {
        // A tenth of a second's worth, in microseconds; the kernel takes no quota below a millisecond.
        resources["cpu"] = json!({ "period": 100_000, "quota": (limits.nano_cpus / 10_000).max(1000) });
    }
    if limits.pids > 0 {
        resources["pids"] = json!({ "limit": limits.pids });
    }
    resources
}
