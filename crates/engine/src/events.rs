//! The last events, and those to come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use skep_model::{LOCAL_DRIVER, Service};
use tokio::sync::broadcast;

use crate::backend::cluster::{Changed, ContainerEvent, Pair, SwarmChange};
use crate::translate::node::words;
use crate::types::event::{Actor, Event};

/// How many events are kept for `--since`, as many as Docker keeps.
const KEPT: usize = 256;

/// The last events, and a way to hear the next ones.
#[derive(Debug, Clone)]
pub(crate) struct EventLog {
    kept: Arc<Mutex<VecDeque<Arc<Event>>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for EventLog {
    fn default() -> Self {
        let (live, _) = broadcast::channel(KEPT);
        Self { kept: Arc::default(), live }
    }
}

impl EventLog {
    /// Takes in what the backend reports, for as long as it does.
    pub(crate) async fn pump(self, mut changes: BoxStream<'static, SwarmChange>) {
        while let Some(change) = changes.next().await {
            if let Some(event) = describe(&change) {
                self.push(Arc::new(event));
            }
        }
    }

    fn push(&self, event: Arc<Event>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Sent under the lock, so that nobody misses one between reading what is kept and listening. No listener is no error.
        let _ = self.live.send(event);
    }

    /// What is kept, and everything after it.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

type Attributes = BTreeMap<String, String>;

/// An event in the words of the Engine API; `None` for changes that nobody would want to hear of.
fn describe(change: &SwarmChange) -> Option<Event> {
    let (kind, action, id, attributes) = match &change.object {
        Changed::Node(pair) => {
            let node = pair.any()?;
            ("node", pair.action(), node.id.to_string(), node_attributes(pair, node.hostname()))
        }
        Changed::Service(pair) => {
            let service = pair.any()?;
            ("service", pair.action(), service.id.to_string(), service_attributes(pair, service))
        }
        Changed::Network(pair) => {
            let network = pair.any()?;
            // Networks are not changed: it has given somebody an address.
            if pair.old.is_some() && pair.new.is_some() {
                return None;
            }
            ("network", pair.action(), network.id.to_string(), named(&network.spec.name))
        }
        Changed::Task(pair) => {
            let task = pair.any()?;
            let same = |old: &skep_model::Task| old.status.state == task.status.state && old.desired == task.desired;
            if pair.new.is_some() && pair.old.as_deref().is_some_and(same) {
                return None;
            }
            ("task", pair.action(), task.id.to_string(), task_attributes(task))
        }
        Changed::Container(event) => ("container", event.action, event.id.clone(), container_attributes(event)),
        Changed::Volume { name, action } => {
            let driver = Attributes::from([("driver".to_owned(), LOCAL_DRIVER.to_owned())]);
            ("volume", *action, name.clone(), driver)
        }
        Changed::Secret(pair) => {
            let secret = pair.any()?;
            ("secret", pair.action(), secret.id.to_string(), named(&secret.spec.name))
        }
        Changed::Config(pair) => {
            let config = pair.any()?;
            ("config", pair.action(), config.id.to_string(), named(&config.spec.name))
        }
    };
    let scope = if matches!(kind, "container" | "volume") { "local" } else { "swarm" };
    let nanos = change.at.as_nanosecond();
    Some(Event {
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: Actor { id, attributes },
        scope: scope.to_owned(),
        time: change.at.as_second(),
        time_nano: i64::try_from(nanos).unwrap_or(i64::MAX),
    })
}

impl<T> Pair<T> {
    fn any(&self) -> Option<&Arc<T>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    fn action(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "create",
            (Some(_), Some(_)) => "update",
            (Some(_), None) => "remove",
        }
    }
}

fn named(name: &impl ToString) -> Attributes {
    Attributes::from([("name".to_owned(), name.to_string())])
}

fn container_attributes(event: &ContainerEvent) -> Attributes {
    let mut attributes = event.labels.clone();
    attributes.insert("name".to_owned(), event.name.clone());
    attributes.insert("image".to_owned(), event.image.clone());
    if let Some(code) = event.exit_code {
        attributes.insert("exitCode".to_owned(), code.to_string());
    }
    attributes
}

/// `<what>.old` and `<what>.new`, when they differ.
fn changed(attributes: &mut Attributes, what: &str, old: Option<&str>, new: Option<&str>) {
    if old == new {
        return;
    }
    for (suffix, value) in [("old", old), ("new", new)] {
        if let Some(value) = value {
            attributes.insert(format!("{what}.{suffix}"), value.to_owned());
        }
    }
}

fn node_attributes(pair: &Pair<skep_model::Node>, name: &str) -> Attributes {
    let mut attributes = Attributes::from([("name".to_owned(), name.to_owned())]);
    let (Some(old), Some(new)) = (&pair.old, &pair.new) else { return attributes };
    let of = |n: &skep_model::Node| {
        (words::availability(n.spec.availability), words::role(n.spec.role), words::state(n.status.state))
    };
    let (was, is) = (of(old), of(new));
    changed(&mut attributes, "availability", Some(was.0), Some(is.0));
    changed(&mut attributes, "role", Some(was.1), Some(is.1));
    changed(&mut attributes, "state", Some(was.2), Some(is.2));
    let taken = |n: &skep_model::Node| {
        let ports = n.status.port_conflicts.iter().map(|c| format!("{}/{}", c.port, c.protocol));
        ports.collect::<Vec<_>>().join(",")
    };
    changed(&mut attributes, "taken", Some(&taken(old)), Some(&taken(new)));
    attributes
}

fn service_attributes(pair: &Pair<Service>, service: &Service) -> Attributes {
    let mut attributes = Attributes::from([("name".to_owned(), service.spec.name.to_string())]);
    let (Some(old), Some(new)) = (&pair.old, &pair.new) else { return attributes };
    let state = |s: &Service| s.update_status.as_ref().map(|u| crate::translate::update::state_word(u.state));
    changed(&mut attributes, "updatestate", state(old), state(new));
    let image = |s: &Service| s.spec.task.container.image.clone();
    changed(&mut attributes, "image", Some(&image(old)), Some(&image(new)));
    let replicas = |s: &Service| match s.spec.mode {
        skep_model::ServiceMode::Replicated { replicas } => Some(replicas.to_string()),
        skep_model::ServiceMode::Global => None,
    };
    changed(&mut attributes, "replicas", replicas(old).as_deref(), replicas(new).as_deref());
    attributes
}

fn task_attributes(task: &skep_model::Task) -> Attributes {
    let mut attributes = Attributes::from([
        ("name".to_owned(), task.display_name()),
        ("service".to_owned(), task.service.to_string()),
        ("state".to_owned(), task.status.state.as_str().to_owned()),
        ("desired".to_owned(), task.desired.as_str().to_owned()),
    ]);
    if let Some(node) = &task.node {
        attributes.insert("node".to_owned(), node.to_string());
    }
    attributes
}
