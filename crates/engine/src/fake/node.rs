//! The node of the fake.

use std::collections::BTreeMap;

use skep_model::{ImageRef, TaskState, Timestamp};

use super::state::State;
use crate::backend::container::{ContainerInfo, ContainerNetwork, ContainerPort, ContainerState};
use crate::backend::image::{ImageConfig, ImageInfo};
use crate::backend::node::{NodeInfo, SwarmInfo};
use crate::error::{Error, ErrorKind};

/// 64 hexadecimal digits that depend on `seed` alone.
pub(super) fn hex(seed: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let word = |n: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, n).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(word).collect()
}

pub(super) fn image(reference: Option<ImageRef>) -> ImageInfo {
    ImageInfo {
        id: hex(&reference.as_ref().map(ToString::to_string).unwrap_or_default()),
        refs: reference.into_iter().collect(),
        size: 1_982_556,
        created: Some(Timestamp::UNIX_EPOCH),
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        author: String::new(),
        config: ImageConfig {
            cmd: vec!["/bin/serve".to_owned()],
            exposed_ports: vec!["80/tcp".to_owned()],
            ..ImageConfig::default()
        },
        layers: vec![format!("sha256:{}", hex("layer"))],
    }
}

pub(super) fn find<'a>(images: &'a [ImageInfo], name: &str) -> Result<&'a ImageInfo, Error> {
    let id = name.strip_prefix("sha256:").unwrap_or(name);
    let reference: Option<ImageRef> = name.parse().ok();
    let named = |i: &&ImageInfo| reference.as_ref().is_some_and(|r| i.refs.contains(r));
    let found = images.iter().find(named).or_else(|| images.iter().find(|i| i.id.starts_with(id)));
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No such image: {name}")))
}

pub(super) fn info(state: &State) -> NodeInfo {
    let own = state.view.as_ref().and_then(|v| v.nodes.values().next());
    NodeInfo {
        id: "fake".to_owned(),
        hostname: "node1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: String::new(),
        build_time: String::new(),
        kernel: "6.18.0".to_owned(),
        operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        os_version: "12".to_owned(),
        architecture: "x86_64".to_owned(),
        cpus: 2,
        generic: Default::default(),
        runtime: ("skep".to_owned(), "skep shim".to_owned()),
        memory: 1 << 30,
        data_root: "/var/lib/skep".to_owned(),
        cgroup_version: 2,
        labels: BTreeMap::new(),
        open_files: 10,
        now: Timestamp::now(),
        insecure_registries: vec!["127.0.0.0/8".to_owned()],
        warnings: Vec::new(),
        swarm: SwarmInfo {
            node: own.map(|n| n.id.clone()),
            addr: own.and_then(|n| n.status.addr),
            managers: own.iter().filter_map(|n| Some((n.id.clone(), n.manager.as_ref()?.addr.to_string()))).collect(),
            error: String::new(),
        },
    }
}

pub(super) fn containers(state: &State) -> Vec<ContainerInfo> {
    let Some(view) = &state.view else { return Vec::new() };
    let of = |task: &std::sync::Arc<skep_model::Task>| {
        let status = task.status.container.as_ref()?;
        let running = task.status.state == TaskState::Running;
        let at = task.status.timestamp;
        let name = format!("{}.{}", task.display_name(), task.id);
        let on = |a| ContainerNetwork::of(a, view.networks.get(&a.network).map(AsRef::as_ref));
        let label = |key: &str, value: &str| (format!("com.docker.swarm.{key}"), value.to_owned());
        Some(ContainerInfo {
            id: status.id.clone(),
            name: name.clone(),
            image: task.spec.container.image.clone(),
            image_id: hex(&task.spec.container.image),
            command: vec!["/bin/serve".to_owned()],
            created: task.meta.created,
            state: match running {
                true => ContainerState::Running { pid: 4242, since: at },
                false => ContainerState::Exited { code: Some(0), started: Some(at), at },
            },
            labels: BTreeMap::from([
                label("service.name", task.service_name.as_str()),
                label("task.id", task.id.as_str()),
                label("task.name", &name),
            ]),
            ports: vec![ContainerPort::Exposed("80/tcp".to_owned())],
            networks: task.attachments.iter().map(on).collect(),
            volumes: Vec::new(),
            spec: task.spec.container.clone(),
            limits: task.spec.resources.limits,
            health: None,
            health_config: task.spec.container.health.clone(),
            hostname: status.id[..12].to_owned(),
            netns: String::new(),
            size: Some(13),
        })
    };
    view.tasks.values().filter_map(of).collect()
}
