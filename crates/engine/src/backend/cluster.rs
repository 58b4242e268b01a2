//! The swarm, as a manager shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{
    Cluster, Config, ConfigId, Network, NetworkId, Node, NodeId, PrivateKey, Secret, SecretId, Service, ServiceId,
    Task, TaskId, Timestamp,
};

/// Everything in the swarm at one moment.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// The swarm itself.
    pub cluster: Arc<Cluster>,
    /// What lets a node in.
    pub tokens: JoinTokens,
    /// The names of the root certificates that nodes have certificates under, or are to have, by their PEM.
    pub issuers: BTreeMap<String, Issuer>,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// All networks, also what was the routing mesh's and is kept for tasks that are on it.
    pub networks: BTreeMap<NetworkId, Arc<Network>>,
    /// All services.
    pub services: BTreeMap<ServiceId, Arc<Service>>,
    /// All tasks, ended ones of the history too.
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    /// All secrets.
    pub secrets: BTreeMap<SecretId, Arc<Secret>>,
    /// All configs.
    pub configs: BTreeMap<ConfigId, Arc<Config>>,
}

impl ClusterView {
    /// The networks that people know of.
    pub fn shown_networks(&self) -> impl Iterator<Item = &Arc<Network>> + Clone {
        self.networks.values().filter(|network| !network.retired)
    }

    /// The tasks of one service.
    pub fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Arc<Task>> {
        self.tasks.values().filter(move |t| t.service == *service)
    }

    /// The nodes that have no certificate under the new root yet, while the root is replaced; `None` while it is not.
    #[must_use]
    pub fn awaited(&self) -> Option<Vec<&Arc<Node>>> {
        let rotation = self.cluster.authority.rotation.as_ref()?;
        Some(self.nodes.values().filter(|node| !rotation.has_reached(node)).collect())
    }
}

/// A root certificate, as the API names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its subject: DER in base64.
    pub subject: String,
    /// Its public key: DER in base64.
    pub public_key: String,
}

/// The texts that `docker swarm join --token` takes.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

/// What to replace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotate {
    /// The one for workers.
    pub worker: bool,
    /// The one for managers.
    pub manager: bool,
    /// The unlock key too, when the swarm is locked.
    pub unlock_key: bool,
    /// The root certificate, by this one. The spec asks for a new one of the swarm's own ([`skep_model::CertificateSpec::force_rotate`]).
    pub root: Option<GivenRoot>,
}

/// A root certificate that somebody brings, and its private key, both in PEM and not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRoot {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: PrivateKey,
}

/// Whether a node that still answers may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRemoval {
    /// Only one that is down.
    IfDown,
    /// Any worker.
    Force,
}

/// An object before and after: created when there is no `old`, removed when there is no `new`.
#[derive(Debug, Clone)]
pub struct Pair<T> {
    /// Before.
    pub old: Option<Arc<T>>,
    /// After.
    pub new: Option<Arc<T>>,
}

/// One change of one object of the swarm.
#[derive(Debug, Clone)]
pub struct SwarmChange {
    /// When this manager heard of it.
    pub at: Timestamp,
    /// What changed.
    pub object: Changed,
}

/// What has happened to a container.
#[derive(Debug, Clone)]
pub struct ContainerEvent {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `create`, `start`, `die` or `destroy`.
    pub action: &'static str,
    /// Its name, as in [`ContainerInfo`](super::container::ContainerInfo).
    pub name: String,
    /// The image as its service names it; empty when its task is forgotten.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The exit code of one that has died, if anybody saw it.
    pub exit_code: Option<i32>,
}

/// The object that changed.
#[derive(Debug, Clone)]
pub enum Changed {
    /// A node.
    Node(Pair<Node>),
    /// A service.
    Service(Pair<Service>),
    /// A network.
    Network(Pair<Network>),
    /// A task.
    Task(Pair<Task>),
    /// A secret.
    Secret(Pair<Secret>),
    /// A config.
    Config(Pair<Config>),
    /// A container of this node.
    Container(ContainerEvent),
    /// A volume of this node.
    Volume {
        /// Its name.
        name: String,
        /// `create`, `mount`, `unmount` or `destroy`.
        action: &'static str,
    },
}
