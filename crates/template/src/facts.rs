//! What templates may ask.

use std::collections::BTreeMap;

use gotmpl::Value;
use skep_model::{Node, Platform, Task};

/// What is true of a task and its node, as far as templates may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `.Service`
    pub service: ServiceFacts,
    /// `.Node`
    pub node: NodeFacts,
    /// `.Task`
    pub task: TaskFacts,
}

/// Of the task's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// `.Service.ID`
    pub id: String,
    /// `.Service.Name`
    pub name: String,
    /// `.Service.Labels`
    pub labels: BTreeMap<String, String>,
}

/// Of the node that runs the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// `.Node.ID`
    pub id: String,
    /// `.Node.Hostname`
    pub hostname: String,
    /// `.Node.Platform`
    pub platform: Platform,
}

/// Of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFacts {
    /// `.Task.ID`
    pub id: String,
    /// `.Task.Name`: `web.1.<id>`
    pub name: String,
    /// `.Task.Slot`: its number, or its node's id where the service is global.
    pub slot: String,
}

impl Facts {
    /// Of a task on the node that it was given to.
    #[must_use]
    pub fn of(task: &Task, node: Option<&Node>) -> Self {
        let id = task.node.as_ref().map(ToString::to_string).unwrap_or_default();
        let description = node.and_then(|node| node.description.clone());
        let (hostname, platform) = description.map(|d| (d.hostname, d.platform)).unwrap_or_default();
        Self {
            service: ServiceFacts {
                id: task.service.to_string(),
                name: task.service_name.to_string(),
                labels: task.service_labels.clone(),
            },
            task: TaskFacts {
                id: task.id.to_string(),
                name: format!("{}.{}", task.display_name(), task.id),
                slot: task.slot.map_or_else(|| id.clone(), |slot| slot.to_string()),
            },
            node: NodeFacts { id, hostname, platform },
        }
    }

    /// Of a made-up task of a service.
    pub(crate) fn sample(service: &str, labels: &BTreeMap<String, String>) -> Self {
        // Identifiers have 25 characters.
        let id = || "0".repeat(25);
        Self {
            service: ServiceFacts { id: id(), name: service.to_owned(), labels: labels.clone() },
            node: NodeFacts {
                id: id(),
                hostname: "node".to_owned(),
                platform: Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() },
            },
            task: TaskFacts { id: id(), name: format!("{service}.1.{}", id()), slot: "1".to_owned() },
        }
    }

    /// As templates see it.
    pub(crate) fn value(&self) -> Value {
        let Self { service, node, task } = self;
        map([
            (
                "Service",
                map([("ID", text(&service.id)), ("Name", text(&service.name)), ("Labels", labels(&service.labels))]),
            ),
            (
                "Node",
                map([
                    ("ID", text(&node.id)),
                    ("Hostname", text(&node.hostname)),
                    (
                        "Platform",
                        map([("OS", text(&node.platform.os)), ("Architecture", text(&node.platform.architecture))]),
                    ),
                ]),
            ),
            ("Task", map([("ID", text(&task.id)), ("Name", text(&task.name)), ("Slot", text(&task.slot))])),
        ])
    }
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    Value::from(labels.iter().map(|(k, v)| (k.clone(), text(v))).collect::<BTreeMap<String, Value>>())
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::from(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<String, Value>>())
}
