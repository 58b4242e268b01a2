//! Tasks: one try at running one instance of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ContainerSpec, GenericResources, Meta, NetworkAttachment, NetworkId, NodeId, PortConfig, PublishedPort,
    RegistryAuth, Resources, ServiceId, ServiceName, TaskId, Timestamp, Version,
};

/// What a task runs and under which rules. Never changed once a task is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container.
    pub container: ContainerSpec,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// When it is tried again; `None` is the default.
    #[serde(default)]
    pub restart: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(default)]
    pub placement: Placement,
    /// Networks that it is attached to besides the ingress network, with the names it answers to there.
    #[serde(default)]
    pub networks: Vec<(NetworkId, Vec<String>)>,
    /// Raised by `--force` so that an unchanged spec still replaces its tasks.
    #[serde(default)]
    pub force_update: u64,
    /// What lets the nodes that run a task in at the image's registry. It goes to them alone, and is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<RegistryAuth>,
}

impl TaskSpec {
    /// Whether it asks for this network.
    #[must_use]
    pub fn is_on(&self, network: &NetworkId) -> bool {
        self.networks.iter().any(|(id, _)| id == network)
    }
}

/// When a task that ended is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which endings.
    pub condition: RestartCondition,
    /// How long to wait first; `None` when the person did not say (5 s).
    pub delay: Option<Duration>,
    /// The most tries within [`Self::window`]; 0 is without end.
    pub max_attempts: u64,
    /// The time over which tries are counted; `None` or zero is for ever.
    pub window: Option<Duration>,
}

impl RestartPolicy {
    /// Docker's default for [`Self::delay`].
    pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { condition: RestartCondition::Any, delay: None, max_attempts: 0, window: None }
    }
}

/// After which endings a task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// After a failure.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// Where a task may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Conditions, as the person wrote them (checked to be [`crate::Constraint`]s when the service was created).
    pub constraints: Vec<String>,
    /// Properties to spread over, most important first.
    pub preferences: Vec<SpreadOver>,
    /// The most tasks of the service on one node; 0 is any number.
    pub max_replicas: u64,
    /// Platforms that the image exists for; empty is any.
    pub platforms: Vec<crate::Platform>,
}

/// A property whose values should get equal numbers of tasks, `node.labels.zone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpreadOver(pub String);

/// How far a task is. Ordered: an observed state never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Made by the orchestrator.
    New,
    /// Ports and addresses are given out; waits for a node.
    Pending,
    /// The scheduler has chosen a node.
    Assigned,
    /// The node has taken it on.
    Accepted,
    /// The node makes the image and the network ready.
    Preparing,
    /// Ready to start; waits for its desired state to be running.
    Ready,
    /// Being started.
    Starting,
    /// Runs.
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Stopped because it was asked to.
    Shutdown,
    /// Ended by itself with another exit code, or lost.
    Failed,
    /// The node could not run it.
    Rejected,
    /// To be deleted: a desired state only.
    Remove,
    /// Its node has been gone for too long to know.
    Orphaned,
}

impl TaskState {
    /// The name that the Engine API shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Whether nothing runs any more and nothing will.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// What is known of a task's progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// When this was observed.
    pub timestamp: Timestamp,
    /// How far the task is.
    pub state: TaskState,
    /// A few words for people.
    pub message: String,
    /// What went wrong.
    #[serde(default)]
    pub err: Option<String>,
    /// The container, once there is one.
    #[serde(default)]
    pub container: Option<ContainerStatus>,
    /// Host ports as the node really published them.
    #[serde(default)]
    pub host_ports: Vec<PublishedPort>,
}

/// What is known of a task's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Process id of its first process, 0 when it does not run.
    pub pid: i32,
    /// Exit code, once it has ended; `None` in a terminal state means unknown.
    pub exit_code: Option<i32>,
}

/// A stored task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its identity.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service that it is an instance of.
    pub service: ServiceId,
    /// That service's name.
    pub service_name: ServiceName,
    /// That service's labels when the task was made, for templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_labels: BTreeMap<String, String>,
    /// The service's [`crate::Service::task_version`] when the task was made.
    pub service_version: Version,
    /// Which instance it is, from 1; `None` for global services.
    pub slot: Option<u64>,
    /// Where it runs: the scheduler's choice, or the node that a global task is for.
    pub node: Option<NodeId>,
    /// What it runs.
    pub spec: TaskSpec,
    /// The generic resources that are its own for as long as it has not ended: the scheduler's choice.
    #[serde(default, skip_serializing_if = "GenericResources::is_empty")]
    pub generic: GenericResources,
    /// What it should come to. Written by managers only.
    pub desired: TaskState,
    /// What it has come to. Written by its node once there is one.
    pub status: TaskStatus,
    /// Its addresses: the ingress network first.
    pub attachments: Vec<NetworkAttachment>,
    /// Host-mode ports asked for.
    pub host_ports: Vec<PortConfig>,
}

/// An observed state older than what was already known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task's state never goes back: {from:?} was known, {to:?} was reported")]
pub struct StateWentBack {
    /// What was known.
    pub from: TaskState,
    /// What was reported.
    pub to: TaskState,
}

impl Task {
    /// Takes over what the task's node has seen.
    ///
    /// # Errors
    /// When `status` is of an earlier state than the one known: the report is late and nothing is changed.
    pub fn observe(&mut self, status: TaskStatus) -> Result<(), StateWentBack> {
        if status.state < self.status.state {
            return Err(StateWentBack { from: self.status.state, to: status.state });
        }
        self.status = status;
        Ok(())
    }

    /// The name that people see: `web.1`, or `web.<node id>` for a global service.
    #[must_use]
    pub fn display_name(&self) -> String {
        match (self.slot, &self.node) {
            (Some(slot), _) => format!("{}.{slot}", self.service_name),
            (None, Some(node)) => format!("{}.{node}", self.service_name),
            (None, None) => self.service_name.to_string(),
        }
    }

    /// Whether the task runs or may come to run: both sides still want it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.desired <= TaskState::Running && !self.status.state.is_terminal()
    }
}
