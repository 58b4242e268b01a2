//! Services: what a person wants to run, and where it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Meta, NetworkId, PortConfig, PublishMode, PublishedPort, ServiceId, ServiceName, TaskSpec, Timestamp, Version,
    VirtualIp,
};

/// A stored service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its identity.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What was asked for last.
    pub spec: ServiceSpec,
    /// What was asked for before, for rollback.
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// The version at which something last changed that a task must be replaced for. A task is up to date when
    /// its own [`crate::Task::service_version`] equals this. Published ingress ports, labels and the number of replicas are not
    /// among those things.
    pub task_version: Version,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// The rolling update under way, or the last one.
    pub update_status: Option<UpdateStatus>,
}

impl Service {
    /// Whether it is to be on this network.
    #[must_use]
    pub fn is_on(&self, network: &NetworkId) -> bool {
        self.spec.task.is_on(network)
    }
}

/// What a person asks a service to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Labels of the service; those that begin with `skep.` are options of the mesh.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What each task runs.
    pub task: TaskSpec,
    /// How many tasks, and where.
    pub mode: ServiceMode,
    /// How updates roll; `None` is the default.
    #[serde(default)]
    pub update: Option<UpdateConfig>,
    /// How rollbacks roll; `None` is the default.
    #[serde(default)]
    pub rollback: Option<UpdateConfig>,
    /// What is published, and how names resolve.
    #[serde(default)]
    pub endpoint: Option<EndpointSpec>,
}

impl ServiceSpec {
    /// The ports that the person asked to publish.
    #[must_use]
    pub fn ports(&self) -> &[PortConfig] {
        self.endpoint.as_ref().map_or(&[], |e| &e.ports)
    }

    /// The ports published on the nodes that run a task.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortConfig> {
        self.ports().iter().filter(|p| p.mode == PublishMode::Host)
    }
}

/// How many tasks, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// So many tasks, on whichever nodes suit.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on every node that suits.
    Global,
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// To one virtual address.
    #[default]
    Vip,
    /// To the addresses of the tasks.
    Dnsrr,
}

/// What is published, and how names resolve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// How the service's name resolves; `None` when the person did not say (stack files).
    pub mode: Option<EndpointMode>,
    /// What is published, in the order given.
    pub ports: Vec<PortConfig>,
}

/// Where a service answers: the allocator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The spec that [`Self::ports`] was made from; differs from the service's while the allocator is behind.
    pub spec: Option<EndpointSpec>,
    /// Ports with every choice made, in the spec's order. Host ports whose number each node chooses are not here.
    pub ports: Vec<PublishedPort>,
    /// One address per network that the service is reached on.
    pub virtual_ips: Vec<VirtualIp>,
}

/// How tasks are replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Tasks replaced at a time; 0 is all at once.
    pub parallelism: u64,
    /// Pause between batches.
    pub delay: Duration,
    /// What a failed task does to the update.
    pub failure_action: FailureAction,
    /// How long a new task is watched for failure; `None` when the person did not say (5 s).
    pub monitor: Option<Duration>,
    /// The share of failed tasks that is put up with, 0 to 1.
    pub max_failure_ratio: f64,
    /// Which goes first, the old task or the new one.
    pub order: UpdateOrder,
}

impl UpdateConfig {
    /// Docker's default for [`Self::monitor`].
    pub const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Some(Self::DEFAULT_MONITOR),
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// What a failed task does to an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FailureAction {
    /// Stop the update where it is.
    #[default]
    Pause,
    /// Go on.
    Continue,
    /// Go back to the spec before.
    Rollback,
}

/// Which goes first when a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old one stops, then the new one starts.
    #[default]
    StopFirst,
    /// The new one runs, then the old one stops.
    StartFirst,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// A sentence for people.
    pub message: String,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// Stopped by a failure, or by a person.
    Paused,
    /// All tasks run the new spec.
    Completed,
    /// Going back has begun.
    RollbackStarted,
    /// Going back was stopped by a failure.
    RollbackPaused,
    /// All tasks run the old spec again.
    RollbackCompleted,
}
