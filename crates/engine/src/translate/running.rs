//! Containers of this node's tasks.

use std::collections::BTreeMap;

use skep_model::{LOCAL_DRIVER, MountKind, Timestamp};

use super::{container, health, image, signed, text};
use crate::backend::container::{ContainerInfo, ContainerNetwork, ContainerPort, ContainerState, ContainerVolume};
use crate::types::container as wire;
use crate::types::image::{GraphDriver, ImageConfig};
use crate::types::meta::Time;

/// What keeps images and containers on disk.
pub const STORAGE_DRIVER: &str = "overlay2";

fn state_word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited { .. } => "exited",
    }
}

/// How long ago, in the words of `docker ps`.
fn ago(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

fn status(info: &ContainerInfo, now: Timestamp) -> String {
    let since = |at: &Timestamp| ago(now.as_second() - at.as_second());
    match &info.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running { since: start, .. } => {
            format!("Up {}{}", since(start), info.health.as_ref().map_or("", health::remark))
        }
        ContainerState::Exited { code: Some(code), at, .. } => format!("Exited ({code}) {} ago", since(at)),
        ContainerState::Exited { code: None, at, .. } => format!("Exited (unknown) {} ago", since(at)),
    }
}

fn port(port: &ContainerPort) -> Option<wire::Port> {
    match port {
        ContainerPort::Published(p) => Some(wire::Port {
            ip: "0.0.0.0".to_owned(),
            private_port: p.target.get(),
            public_port: p.published.get(),
            kind: p.protocol.to_string(),
        }),
        ContainerPort::Exposed(text) => {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            Some(wire::Port { private_port: number.parse().ok()?, kind: protocol.to_owned(), ..wire::Port::default() })
        }
    }
}

fn endpoint(place: &ContainerNetwork, id: &str) -> wire::EndpointSettings {
    let attachment = &place.attachment;
    let address = attachment.addr.addr().to_string();
    wire::EndpointSettings {
        ipam_config: Some(wire::EndpointIpam { ipv4_address: address.clone() }),
        network_id: attachment.network.to_string(),
        endpoint_id: id.to_owned(),
        ip_address: address,
        ip_prefix_len: attachment.addr.prefix_len(),
        global_ipv6_address: place.ipv6.map(|ipv6| ipv6.addr().to_string()).unwrap_or_default(),
        global_ipv6_prefix_len: place.ipv6.map(|ipv6| ipv6.prefix_len()).unwrap_or_default(),
        ..wire::EndpointSettings::default()
    }
}

fn networks(info: &ContainerInfo) -> BTreeMap<String, wire::EndpointSettings> {
    info.networks.iter().map(|place| (place.name.clone(), endpoint(place, &info.id))).collect()
}

fn mounts(info: &ContainerInfo) -> Vec<wire::MountPoint> {
    let point = |m: &skep_model::Mount| {
        let (kind, source) = match &m.kind {
            MountKind::Bind { source, .. } => ("bind", source.clone()),
            MountKind::Tmpfs(_) => ("tmpfs", String::new()),
            MountKind::Volume { .. } => return None,
        };
        let (destination, rw) = (m.target.clone(), !m.read_only);
        Some(wire::MountPoint { kind: kind.to_owned(), source, destination, rw, ..wire::MountPoint::default() })
    };
    // Those that the image asks for are among them.
    let volume = |v: &ContainerVolume| wire::MountPoint {
        kind: "volume".to_owned(),
        name: v.name.clone(),
        source: v.mountpoint.clone(),
        destination: v.target.clone(),
        driver: LOCAL_DRIVER.to_owned(),
        rw: !info.spec.mounts.iter().any(|m| m.target == v.target && m.read_only),
        ..wire::MountPoint::default()
    };
    info.spec.mounts.iter().filter_map(point).chain(info.volumes.iter().map(volume)).collect()
}

/// Writes a container as lists show it.
#[must_use]
pub fn summary(info: &ContainerInfo, now: Timestamp) -> wire::ContainerSummary {
    wire::ContainerSummary {
        id: info.id.clone(),
        names: vec![format!("/{}", info.name)],
        image: info.image.clone(),
        image_id: image::digest(&info.image_id),
        command: info.command.join(" "),
        created: info.created.as_second(),
        ports: info.ports.iter().filter_map(port).collect(),
        size_rw: info.size.map_or(0, signed),
        size_root_fs: 0,
        labels: info.labels.clone(),
        state: state_word(&info.state).to_owned(),
        status: status(info, now),
        host_config: wire::SummaryHostConfig { network_mode: "default".to_owned() },
        network_settings: wire::SummaryNetworks { networks: networks(info) },
        mounts: mounts(info),
    }
}

fn state(state: &ContainerState) -> wire::State {
    let base = wire::State { status: state_word(state).to_owned(), ..wire::State::default() };
    match state {
        ContainerState::Created => base,
        ContainerState::Running { pid, since } => {
            wire::State { running: true, pid: (*pid).into(), started_at: Time(*since), ..base }
        }
        ContainerState::Exited { code, started, at } => wire::State {
            exit_code: code.map_or(-1, i64::from),
            started_at: started.map(Time).unwrap_or_default(),
            finished_at: Time(*at),
            ..base
        },
    }
}

fn host_config(info: &ContainerInfo) -> wire::HostConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let spec = &info.spec;
    wire::HostConfig {
        log_config: wire::LogConfig { kind: "json-file".to_owned(), ..wire::LogConfig::default() },
        network_mode: "default".to_owned(),
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        cgroupns_mode: "private".to_owned(),
        dns: some(&spec.dns.nameservers),
        dns_options: some(&spec.dns.options),
        dns_search: some(&spec.dns.search),
        extra_hosts: some(&spec.hosts),
        group_add: some(&spec.groups),
        ipc_mode: "private".to_owned(),
        oom_score_adj: spec.oom_score_adj,
        readonly_rootfs: spec.read_only,
        sysctls: spec.sysctls.clone(),
        runtime: "skep".to_owned(),
        isolation: "default".to_owned(),
        memory: signed(info.limits.memory),
        nano_cpus: signed(info.limits.nano_cpus),
        pids_limit: (info.limits.pids != 0).then(|| signed(info.limits.pids)),
        ulimits: spec.ulimits.iter().map(container::ulimit_to_wire).collect(),
        init: spec.init,
        ..wire::HostConfig::default()
    }
}

fn config(info: &ContainerInfo) -> ImageConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let spec = &info.spec;
    let exposed: Vec<String> =
        info.ports.iter().filter_map(port).map(|p| format!("{}/{}", p.private_port, p.kind)).collect();
    ImageConfig {
        hostname: info.hostname.clone(),
        user: text(spec.user.as_ref()),
        exposed_ports: image::set(&exposed),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: some(&spec.env),
        cmd: some(&info.command),
        image: info.image.clone(),
        working_dir: text(spec.dir.as_ref()),
        entrypoint: some(&spec.command),
        labels: Some(info.labels.clone()),
        stop_signal: text(spec.stop_signal.as_ref()),
        healthcheck: info.health_config.as_ref().map(health::to_wire),
        ..ImageConfig::default()
    }
}

fn network_settings(info: &ContainerInfo) -> wire::NetworkSettings {
    let mut ports: BTreeMap<String, Option<Vec<wire::PortBinding>>> = BTreeMap::new();
    for port in info.ports.iter().filter_map(port) {
        let bindings = ports.entry(format!("{}/{}", port.private_port, port.kind)).or_default();
        if port.public_port != 0 {
            let binding = wire::PortBinding { host_ip: port.ip, host_port: port.public_port.to_string() };
            bindings.get_or_insert_default().push(binding);
        }
    }
    wire::NetworkSettings {
        sandbox_key: info.netns.clone(),
        ports,
        networks: networks(info),
        ..wire::NetworkSettings::default()
    }
}

/// Writes a container in full.
#[must_use]
pub fn inspect(info: &ContainerInfo) -> wire::ContainerInspect {
    let (path, args) = info.command.split_first().map_or((String::new(), Vec::new()), |(p, a)| (p.clone(), a.to_vec()));
    wire::ContainerInspect {
        id: info.id.clone(),
        created: info.created.into(),
        path,
        args,
        state: wire::State { health: info.health.as_ref().map(health::state), ..state(&info.state) },
        image: image::digest(&info.image_id),
        name: format!("/{}", info.name),
        driver: STORAGE_DRIVER.to_owned(),
        platform: "linux".to_owned(),
        host_config: host_config(info),
        graph_driver: GraphDriver { data: None, name: STORAGE_DRIVER.to_owned() },
        size_rw: info.size.map(signed),
        mounts: mounts(info),
        config: config(info),
        network_settings: network_settings(info),
        ..wire::ContainerInspect::default()
    }
}
