//! What happens to containers and volumes of the node, for people who watch. Nothing of the house depends on it.

use std::collections::BTreeMap;

use skep_model::Timestamp;
use tokio::sync::broadcast;

use crate::container::ContainerId;

/// How many events wait for a slow listener, who misses what is beyond.
const WAITING: usize = 1024;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    /// When.
    pub at: Timestamp,
    /// To what, and what.
    pub what: Happened,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// To a container.
    Container {
        /// Which one.
        id: ContainerId,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// What.
        action: ContainerAction,
    },
    /// To a volume.
    Volume {
        /// Its name.
        name: String,
        /// What.
        action: VolumeAction,
    },
}

/// What happens to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerAction {
    /// It is prepared.
    Create,
    /// Its program runs.
    Start,
    /// It has ended, with this exit code; `None` when nobody saw it.
    Die(Option<i32>),
    /// It is gone.
    Destroy,
}

/// What happens to volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeAction {
    /// It is made.
    Create,
    /// Its file system is mounted.
    Mount,
    /// Its file system is not mounted any more.
    Unmount,
    /// It is gone.
    Destroy,
}

/// Where events are told and heard.
#[derive(Debug, Clone)]
pub struct NodeEvents(broadcast::Sender<NodeEvent>);

impl Default for NodeEvents {
    fn default() -> Self {
        Self(broadcast::channel(WAITING).0)
    }
}

impl NodeEvents {
    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<NodeEvent> {
        self.0.subscribe()
    }

    fn tell(&self, what: Happened) {
        // Nobody listening is no error.
        let _ = self.0.send(NodeEvent { at: Timestamp::now(), what });
    }

    pub(crate) fn container(&self, id: &ContainerId, labels: &BTreeMap<String, String>, action: ContainerAction) {
        self.tell(Happened::Container { id: id.clone(), labels: labels.clone(), action });
    }

    pub(crate) fn volume(&self, name: &str, action: VolumeAction) {
        self.tell(Happened::Volume { name: name.to_owned(), action });
    }
}
