//! The containers of this node's tasks.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use skep_model::{
    ContainerSpec, Health, HealthConfig, Network, NetworkAttachment, PublishedPort, ResourceLimits, Timestamp,
};

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerNetwork {
    /// The network's name.
    pub name: String,
    /// The network, and the address there.
    pub attachment: NetworkAttachment,
    /// The IPv6 address there, if the network was made with IPv6.
    pub ipv6: Option<Ipv6Net>,
}

impl ContainerNetwork {
    /// On a network that may not be known any more.
    #[must_use]
    pub fn of(attachment: &NetworkAttachment, network: Option<&Network>) -> Self {
        let with_ipv6 = network.filter(|network| network.spec.ipv6);
        Self {
            name: network.map_or_else(|| attachment.network.to_string(), |network| network.spec.name.clone()),
            attachment: attachment.clone(),
            ipv6: with_ipv6.map(|network| network.spec.ipv6_of(attachment.addr.addr())),
        }
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `<service>.<slot>.<task id>`.
    pub name: String,
    /// The image as the service names it.
    pub image: String,
    /// The image's id, without `sha256:`; empty when it is gone.
    pub image_id: String,
    /// The program and its arguments as really run.
    pub command: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// How it is.
    pub state: ContainerState,
    /// Labels, those of the swarm (`com.docker.swarm.task.id`, …) among them.
    pub labels: BTreeMap<String, String>,
    /// Ports that its image or its service knows of.
    pub ports: Vec<ContainerPort>,
    /// Its place on networks.
    pub networks: Vec<ContainerNetwork>,
    /// Volumes that are mounted into it.
    pub volumes: Vec<ContainerVolume>,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// What it may use.
    pub limits: ResourceLimits,
    /// What its health checks come to; `None` when it has none.
    pub health: Option<Health>,
    /// How its health is checked, by its service and its image.
    pub health_config: Option<HealthConfig>,
    /// Its host name.
    pub hostname: String,
    /// Its network namespace's path; empty when it has none.
    pub netns: String,
    /// Bytes of its writable layer; `None` when nobody has counted.
    pub size: Option<u64>,
}

/// A volume of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerVolume {
    /// Where the container has it.
    pub target: String,
    /// Its name.
    pub name: String,
    /// Where its content is on the node.
    pub mountpoint: String,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerPort {
    /// Published on this node.
    Published(PublishedPort),
    /// Only open inside, `80/tcp`.
    Exposed(String),
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running {
        /// Its first process.
        pid: i32,
        /// Since when.
        since: Timestamp,
    },
    /// Has ended.
    Exited {
        /// With which code; `None` when nobody saw it.
        code: Option<i32>,
        /// When it was started, if it was.
        started: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
    },
}
