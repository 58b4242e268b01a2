//! The state itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_model::{
    Cluster, Config, ConfigId, Meta, Network, NetworkId, Node, NodeId, Secret, SecretId, Service, ServiceId, Task,
    TaskId, Timestamp, Version,
};

use crate::{Change, Event, EventKind, Key, Object, Proposal};

/// All objects of the cluster, and the indexes that questions need.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    version: Version,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) secrets: BTreeMap<SecretId, Arc<Secret>>,
    pub(crate) configs: BTreeMap<ConfigId, Arc<Config>>,
    tasks_by_service: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    tasks_by_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
}

/// The proposal was planned on another version of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's state has changed while this was being decided; try again")]
pub struct Outdated;

/// A kind of object that has a table of its own.
pub trait Entity: Sized + Clone + 'static {
    /// Its identifier.
    type Id: Ord + 'static;
    /// Its table.
    fn table(tables: &Tables) -> &BTreeMap<Self::Id, Arc<Self>>;
}

macro_rules! entity {
    ($type:ident, $id:ident, $table:ident) => {
        impl Entity for $type {
            type Id = $id;
            fn table(tables: &Tables) -> &BTreeMap<$id, Arc<$type>> {
                &tables.$table
            }
        }
    };
}

entity!(Node, NodeId, nodes);
entity!(Network, NetworkId, networks);
entity!(Service, ServiceId, services);
entity!(Task, TaskId, tasks);
entity!(Secret, SecretId, secrets);
entity!(Config, ConfigId, configs);

impl Tables {
    /// The version of the last change.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The swarm's own object; `None` before `swarm init`.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// One object by its id.
    #[must_use]
    pub fn get<E: Entity>(&self, id: &E::Id) -> Option<&Arc<E>> {
        E::table(self).get(id)
    }

    /// All objects of a kind, in the order of their ids.
    pub fn all<E: Entity>(&self) -> impl ExactSizeIterator<Item = &Arc<E>> + Clone {
        E::table(self).values()
    }

    /// The tasks of a service, also the ended ones.
    pub fn tasks_of_service<'a>(&'a self, service: &ServiceId) -> impl Iterator<Item = &'a Arc<Task>> + Clone {
        self.indexed(self.tasks_by_service.get(service))
    }

    /// The tasks of a node, also the ended ones.
    pub fn tasks_of_node<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = &'a Arc<Task>> + Clone {
        self.indexed(self.tasks_by_node.get(node))
    }

    /// The service of a name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.values().find(|s| s.spec.name.as_str() == name)
    }

    /// The routing mesh's network; none between the removal of one and the making of another.
    #[must_use]
    pub fn ingress(&self) -> Option<&Arc<Network>> {
        self.networks.values().find(|n| n.spec.ingress && !n.retired)
    }

    /// The network that every node has its address on, and every new task its first one: the routing mesh's, and while there is none, that
    /// which was it last.
    #[must_use]
    pub fn home(&self) -> Option<&Arc<Network>> {
        self.ingress().or_else(|| {
            // Only the last one still gives addresses, and so is written.
            self.networks.values().filter(|n| n.retired).max_by_key(|n| n.meta.version)
        })
    }

    fn indexed<'a>(&'a self, ids: Option<&'a BTreeSet<TaskId>>) -> impl Iterator<Item = &'a Arc<Task>> + Clone {
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// Applies a committed proposal. The same proposals in the same order give the same tables everywhere.
    ///
    /// # Errors
    /// [`Outdated`] when it was planned on another version of the tables; nothing has changed then.
    pub fn apply(&mut self, proposal: Proposal) -> Result<Vec<Event>, Outdated> {
        if proposal.base.is_some_and(|base| base != self.version) {
            return Err(Outdated);
        }
        self.version = self.version.next();
        let now = proposal.now;
        Ok(proposal.changes.into_iter().filter_map(|change| self.apply_one(change, now)).collect())
    }

    fn apply_one(&mut self, change: Change, now: Timestamp) -> Option<Event> {
        match change {
            Change::Put(mut object) => {
                let asked = self.asked(&object).unwrap_or(self.version);
                self.stamp(&mut object, asked, now);
                let before = self.insert(object.clone());
                let kind = if before.is_some() { EventKind::Updated } else { EventKind::Created };
                Some(Event { kind, object, before })
            }
            Change::Delete(key) => {
                let object = self.remove(&key)?;
                Some(Event { kind: EventKind::Deleted, before: Some(object.clone()), object })
            }
        }
    }

    /// Since which version people have asked for what `object` says that they ask for; `None` when that is new.
    fn asked(&self, object: &Object) -> Option<Version> {
        let (before, same) = match object {
            Object::Cluster(now) => {
                let before = self.cluster.as_ref()?;
                let tokens = before.join == now.join && before.unlock_key == now.unlock_key;
                (&before.meta, before.spec == now.spec && tokens)
            }
            Object::Node(now) => self.nodes.get(&now.id).map(|before| (&before.meta, before.spec == now.spec))?,
            Object::Network(now) => self.networks.get(&now.id).map(|before| (&before.meta, before.spec == now.spec))?,
            Object::Service(now) => self.services.get(&now.id).map(|before| (&before.meta, before.spec == now.spec))?,
            Object::Secret(now) => self.secrets.get(&now.id).map(|before| (&before.meta, before.spec == now.spec))?,
            Object::Config(now) => self.configs.get(&now.id).map(|before| (&before.meta, before.spec == now.spec))?,
            // Nobody asks anything of a task after it was made.
            Object::Task(now) => self.tasks.get(&now.id).map(|before| (&before.meta, true))?,
        };
        same.then_some(before.asked)
    }

    fn stamp(&self, object: &mut Object, asked: Version, now: Timestamp) {
        let stamp = |meta: &mut Meta| {
            meta.version = self.version;
            meta.asked = asked;
            meta.updated = now;
        };
        match object {
            Object::Cluster(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Node(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Network(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Service(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Task(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Secret(o) => stamp(&mut Arc::make_mut(o).meta),
            Object::Config(o) => stamp(&mut Arc::make_mut(o).meta),
        }
    }

    fn insert(&mut self, object: Object) -> Option<Object> {
        match object {
            Object::Cluster(o) => self.cluster.replace(o).map(Object::Cluster),
            Object::Node(o) => self.nodes.insert(o.id.clone(), o).map(Object::Node),
            Object::Network(o) => self.networks.insert(o.id.clone(), o).map(Object::Network),
            Object::Service(o) => self.services.insert(o.id.clone(), o).map(Object::Service),
            Object::Secret(o) => self.secrets.insert(o.id.clone(), o).map(Object::Secret),
            Object::Config(o) => self.configs.insert(o.id.clone(), o).map(Object::Config),
            Object::Task(o) => {
                let before = self.tasks.insert(o.id.clone(), o.clone());
                if let Some(before) = &before {
                    self.unindex(before);
                }
                self.index(&o);
                before.map(Object::Task)
            }
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Object> {
        match key {
            Key::Cluster => self.cluster.take().map(Object::Cluster),
            Key::Node(id) => self.nodes.remove(id).map(Object::Node),
            Key::Network(id) => self.networks.remove(id).map(Object::Network),
            Key::Service(id) => self.services.remove(id).map(Object::Service),
            Key::Secret(id) => self.secrets.remove(id).map(Object::Secret),
            Key::Config(id) => self.configs.remove(id).map(Object::Config),
            Key::Task(id) => {
                let task = self.tasks.remove(id)?;
                self.unindex(&task);
                Some(Object::Task(task))
            }
        }
    }

    fn index(&mut self, task: &Task) {
        self.tasks_by_service.entry(task.service.clone()).or_default().insert(task.id.clone());
        if let Some(node) = &task.node {
            self.tasks_by_node.entry(node.clone()).or_default().insert(task.id.clone());
        }
    }

    fn unindex(&mut self, task: &Task) {
        fn drop_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<TaskId>>, key: &K, task: &TaskId) {
            if let Some(ids) = index.get_mut(key) {
                ids.remove(task);
                if ids.is_empty() {
                    index.remove(key);
                }
            }
        }
        drop_from(&mut self.tasks_by_service, &task.service, &task.id);
        if let Some(node) = &task.node {
            drop_from(&mut self.tasks_by_node, node, &task.id);
        }
    }

    /// Every object, for a snapshot.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let networks = self.networks.values().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        let secrets = self.secrets.values().cloned().map(Object::Secret);
        let configs = self.configs.values().cloned().map(Object::Config);
        cluster.chain(nodes).chain(networks).chain(services).chain(tasks).chain(secrets).chain(configs)
    }

    /// The tables that `objects` make up, as they were at `version`.
    pub(crate) fn from_objects(version: Version, objects: Vec<Object>) -> Self {
        let mut tables = Self { version, ..Self::default() };
        for object in objects {
            tables.insert(object);
        }
        tables
    }
}

/// Serialises as its snapshot does; see [`Tables::encode`].
#[derive(Serialize, Deserialize)]
pub(crate) struct Portable {
    pub(crate) version: Version,
    pub(crate) objects: Vec<Object>,
}
