//! What is written to the log, and what watchers hear.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_model::{
    Cluster, Config, ConfigId, Network, NetworkId, Node, NodeId, Secret, SecretId, Service, ServiceId, Task, TaskId,
    Timestamp, Version,
};

/// Any stored object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The swarm's own.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A network.
    Network(Arc<Network>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
}

impl Object {
    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Cluster(_) => Key::Cluster,
            Self::Node(o) => Key::Node(o.id.clone()),
            Self::Network(o) => Key::Network(o.id.clone()),
            Self::Service(o) => Key::Service(o.id.clone()),
            Self::Task(o) => Key::Task(o.id.clone()),
            Self::Secret(o) => Key::Secret(o.id.clone()),
            Self::Config(o) => Key::Config(o.id.clone()),
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The swarm's own: there is one.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

/// One change to one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Create or replace it. The store sets version and time of change.
    Put(Object),
    /// Delete it; no error if it is not there.
    Delete(Key),
}

impl From<Cluster> for Change {
    fn from(object: Cluster) -> Self {
        Self::Put(Object::Cluster(Arc::new(object)))
    }
}

impl From<Node> for Change {
    fn from(object: Node) -> Self {
        Self::Put(Object::Node(Arc::new(object)))
    }
}

impl From<Network> for Change {
    fn from(object: Network) -> Self {
        Self::Put(Object::Network(Arc::new(object)))
    }
}

impl From<Service> for Change {
    fn from(object: Service) -> Self {
        Self::Put(Object::Service(Arc::new(object)))
    }
}

impl From<Task> for Change {
    fn from(object: Task) -> Self {
        Self::Put(Object::Task(Arc::new(object)))
    }
}

impl From<Secret> for Change {
    fn from(object: Secret) -> Self {
        Self::Put(Object::Secret(Arc::new(object)))
    }
}

impl From<Config> for Change {
    fn from(object: Config) -> Self {
        Self::Put(Object::Config(Arc::new(object)))
    }
}

/// Changes that are committed together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The version of the tables that the changes were planned on: on any other they are not applied. It keeps a plan from undoing
    /// what was committed meanwhile, by a leader before or by a proposal whose answer got lost. `None`: on any.
    pub base: Option<Version>,
    /// The leader's clock when it proposed: every manager stamps the objects with the same time.
    pub now: Timestamp,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was not there before.
    Created,
    /// It was replaced.
    Updated,
    /// It is gone.
    Deleted,
}

/// One object changed.
#[derive(Debug, Clone)]
pub struct Event {
    /// How.
    pub kind: EventKind,
    /// The object as it is now, or as it was last when it is gone.
    pub object: Object,
    /// The object as it was before, when it was there.
    pub before: Option<Object>,
}
