//! What this node is and has: `/info` and `/version`.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::Node;

use super::running::STORAGE_DRIVER;
use super::{generic, node, signed, swarm};
use crate::backend::cluster::ClusterView;
use crate::backend::container::{ContainerInfo, ContainerState};
use crate::backend::node::{NodeInfo, SwarmState};
use crate::types::info as wire;
use crate::types::meta::StringMap;
use crate::types::system::{Component, PlatformName, Version};

/// The processor in the words of Go.
fn go_arch(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes `/version`. The API's versions are the newest and the oldest served.
#[must_use]
pub fn version(info: &NodeInfo, newest: &str, oldest: &str) -> Version {
    let arch = go_arch(&info.architecture);
    let details = [
        ("ApiVersion", newest),
        ("Arch", arch),
        ("BuildTime", &info.build_time),
        ("Experimental", "false"),
        ("GitCommit", &info.git_commit),
        // Clients print it; there is no Go in skep.
        ("GoVersion", ""),
        ("KernelVersion", &info.kernel),
        ("MinAPIVersion", oldest),
        ("Os", "linux"),
    ];
    let details: StringMap = details.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    Version {
        platform: PlatformName { name: "skep".to_owned() },
        components: vec![Component { name: "Engine".to_owned(), version: info.version.clone(), details }],
        version: info.version.clone(),
        api_version: newest.to_owned(),
        min_api_version: oldest.to_owned(),
        git_commit: info.git_commit.clone(),
        go_version: String::new(),
        os: "linux".to_owned(),
        arch: arch.to_owned(),
        kernel_version: info.kernel.clone(),
        experimental: false,
        build_time: info.build_time.clone(),
    }
}

/// What `/info` counts on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    running: i64,
    stopped: i64,
    images: i64,
    listeners: i64,
}

impl Counts {
    /// Counts them.
    #[must_use]
    pub fn of(containers: &[ContainerInfo], images: usize, listeners: usize) -> Self {
        let runs = |c: &&ContainerInfo| matches!(c.state, ContainerState::Running { .. });
        let running = containers.iter().filter(runs).count();
        let int = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            running: int(running),
            stopped: int(containers.len() - running),
            images: int(images),
            listeners: int(listeners),
        }
    }
}

/// Writes `/info`. `view` is there on managers.
#[must_use]
pub fn info(node: &NodeInfo, state: SwarmState, counts: Counts, view: Option<&ClusterView>) -> wire::Info {
    let list = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let (runtime, path) = node.runtime.clone();
    wire::Info {
        id: node.id.clone(),
        containers: counts.running + counts.stopped,
        containers_running: counts.running,
        containers_stopped: counts.stopped,
        images: counts.images,
        driver: STORAGE_DRIVER.to_owned(),
        plugins: wire::Plugins {
            volume: list(&["local"]),
            network: list(&["overlay"]),
            authorization: None,
            log: list(&["json-file"]),
        },
        memory_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        pids_limit: true,
        ipv4_forwarding: true,
        n_fd: node.open_files.into(),
        system_time: node.now.to_string(),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: node.cgroup_version.to_string(),
        n_events_listener: counts.listeners,
        kernel_version: node.kernel.clone(),
        operating_system: node.operating_system.clone(),
        os_version: node.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: node.architecture.clone(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries(node)),
        ncpu: node.cpus.into(),
        mem_total: signed(node.memory),
        generic_resources: (!node.generic.is_empty()).then(|| generic::to_wire(&node.generic)),
        docker_root_dir: node.data_root.clone(),
        name: node.hostname.clone(),
        labels: node.labels.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        server_version: node.version.clone(),
        runtimes: BTreeMap::from([(runtime.clone(), wire::Runtime { path })]),
        default_runtime: runtime,
        swarm: swarm_info(node, state, view),
        live_restore_enabled: true,
        init_binary: String::new(),
        security_options: list(&["name=seccomp,profile=builtin"]),
        warnings: warnings(node, view),
        ..wire::Info::default()
    }
}

fn warnings(node: &NodeInfo, view: Option<&ClusterView>) -> Option<Vec<String>> {
    let mut warnings = node.warnings.clone();
    warnings.extend(view.and_then(rotation));
    (!warnings.is_empty()).then_some(warnings)
}

/// Who is waited for while the root certificate is replaced.
fn rotation(view: &ClusterView) -> Option<String> {
    const NAMED: usize = 5;
    let awaited = view.awaited()?;
    let state = |node: &&Arc<Node>| format!("{} ({})", node.hostname(), node::words::state(node.status.state));
    let mut names: Vec<String> = awaited.iter().take(NAMED).map(state).collect();
    if awaited.len() > NAMED {
        names.push(format!("{} more", awaited.len() - NAMED));
    }
    let waiting = match names.as_slice() {
        [] => "every node has a certificate under the new one".to_owned(),
        names => format!("waiting for a certificate under the new one on {}", names.join(", ")),
    };
    Some(format!(
        "WARNING: the swarm's root certificate is being replaced: {waiting}. `docker node rm` of a node that does not come back ends the wait for it."
    ))
}

fn registries(node: &NodeInfo) -> wire::RegistryConfig {
    let (networks, hosts): (Vec<&String>, Vec<&String>) =
        node.insecure_registries.iter().partition(|r| r.parse::<ipnet::IpNet>().is_ok());
    let index = |name: &str, secure: bool, official: bool| {
        (name.to_owned(), wire::IndexInfo { name: name.to_owned(), mirrors: Vec::new(), secure, official })
    };
    let mut index_configs = BTreeMap::from([index("docker.io", true, true)]);
    index_configs.extend(hosts.into_iter().map(|host| index(host, false, false)));
    wire::RegistryConfig {
        insecure_registry_cidrs: networks.into_iter().cloned().collect(),
        index_configs,
        mirrors: Vec::new(),
    }
}

fn swarm_info(node: &NodeInfo, state: SwarmState, view: Option<&ClusterView>) -> wire::SwarmInfo {
    let word = match state {
        SwarmState::Inactive => "inactive",
        SwarmState::Pending => "pending",
        SwarmState::Worker | SwarmState::Manager => "active",
        SwarmState::Error => "error",
        SwarmState::Locked => "locked",
    };
    let manager =
        |(id, addr): &(skep_model::NodeId, String)| wire::RemoteManager { node_id: id.to_string(), addr: addr.clone() };
    let managers: Vec<_> = node.swarm.managers.iter().map(manager).collect();
    let int = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    wire::SwarmInfo {
        node_id: node.swarm.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        node_addr: node.swarm.addr.map(|a| a.to_string()).unwrap_or_default(),
        local_node_state: word.to_owned(),
        control_available: state == SwarmState::Manager,
        error: node.swarm.error.clone(),
        remote_managers: (!managers.is_empty()).then_some(managers),
        nodes: view.map_or(0, |v| int(v.nodes.len())),
        managers: view.map_or(0, |v| int(v.nodes.values().filter(|n| n.manager.is_some()).count())),
        cluster: view.map(swarm::to_wire),
        warnings: Vec::new(),
    }
}
