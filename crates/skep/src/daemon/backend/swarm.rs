//! The swarm, as the API shows it to a manager's clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skep_agent::Assignments;
use skep_ca::RootCertificate;
use skep_engine::backend::cluster::{Changed, ClusterView, Issuer, JoinTokens, Pair, SwarmChange};
use skep_engine::backend::log::{LogLine, LogOptions, LogOrigin, LogSource, LogStream};
use skep_engine::{Error, ErrorKind};
use skep_manager::{Control, ControlError};
use skep_model::{Authority, Node, NodeId, ServiceId, Task, Timestamp};
use skep_store::{Event, EventKind, Events, Object, Store, Tables};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::node_file::Membership;

/// What kind of refusal an error of the manager is.
pub(crate) fn refusal(error: &ControlError) -> Error {
    let kind = match error.kind() {
        skep_manager::ErrorKind::NotFound => ErrorKind::NotFound,
        skep_manager::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        skep_manager::ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
        skep_manager::ErrorKind::FailedPrecondition => ErrorKind::FailedPrecondition,
        skep_manager::ErrorKind::Unimplemented => ErrorKind::Unimplemented,
        skep_manager::ErrorKind::OutOfSequence => return Error::out_of_sequence(),
        skep_manager::ErrorKind::NoLeader => return Error::no_leader(),
        skep_manager::ErrorKind::Internal => ErrorKind::Unknown,
    };
    Error::new(kind, error.to_string())
}

/// Managers that a node knows: with their identities where managers have told them.
pub(super) fn managers(known: &Assignments, own: &Membership, addrs: &[String]) -> Vec<(NodeId, String)> {
    let id_of = |addr: &String| {
        let ip = addr.parse::<SocketAddr>().ok()?.ip();
        known.members.values().find(|m| m.underlay == ip).map(|m| m.node.clone())
    };
    let mut managers: Vec<_> = addrs.iter().filter_map(|addr| Some((id_of(addr)?, addr.clone()))).collect();
    if let (Some(seat), true) = (&own.manager, managers.is_empty()) {
        managers.push((own.node.clone(), seat.advertise.to_string()));
    }
    managers
}

/// The root certificates that nodes have certificates under, or are to have. What is no certificate was not written by skep, and has no name.
fn issuers(tables: &Tables, authority: &Authority) -> BTreeMap<String, Issuer> {
    let of_nodes = tables.all::<Node>().filter_map(|node| Some(node.tls()?.issuer.as_str()));
    let all: BTreeSet<&str> = of_nodes.chain([authority.wanted()]).collect();
    let named = |pem: &str| {
        let root = RootCertificate::from_pem(pem).ok()?;
        let (subject, key) = (root.subject().ok()?, root.public_key().ok()?);
        Some((pem.to_owned(), Issuer { subject: BASE64.encode(subject), public_key: BASE64.encode(key) }))
    };
    all.into_iter().filter_map(named).collect()
}

/// Everything in the swarm at this moment.
pub(super) fn view(control: &Control) -> Result<Arc<ClusterView>, Error> {
    let tokens = control.join_tokens().map_err(|e| refusal(&e))?;
    control.store().view(|tables| {
        let cluster = tables.cluster().cloned().ok_or_else(Error::manager_not_ready)?;
        Ok(Arc::new(ClusterView {
            tokens: JoinTokens { worker: tokens.worker.clone(), manager: tokens.manager.clone() },
            issuers: issuers(tables, &cluster.authority),
            cluster,
            nodes: tables.all().map(|o: &Arc<Node>| (o.id.clone(), o.clone())).collect(),
            networks: tables.all().map(|o: &Arc<skep_model::Network>| (o.id.clone(), o.clone())).collect(),
            services: tables.all().map(|o: &Arc<skep_model::Service>| (o.id.clone(), o.clone())).collect(),
            tasks: tables.all().map(|o: &Arc<Task>| (o.id.clone(), o.clone())).collect(),
            secrets: tables.all().map(|o: &Arc<skep_model::Secret>| (o.id.clone(), o.clone())).collect(),
            configs: tables.all().map(|o: &Arc<skep_model::Config>| (o.id.clone(), o.clone())).collect(),
        }))
    })
}

/// Output of tasks, wherever they run.
pub(super) fn logs(
    control: &Control,
    source: LogSource,
    options: &LogOptions,
) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
    let source = match source {
        LogSource::Service(id) => skep_manager::TaskLogSource::Service(id),
        LogSource::Task(id) => skep_manager::TaskLogSource::Task(id),
    };
    let until = options.until;
    let wanted = skep_manager::TaskLogOptions {
        tail: options.tail,
        since: options.since,
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let store = control.store().clone();
    let lines = ReceiverStream::new(control.task_logs(source, wanted).map_err(|e| refusal(&e))?);
    let lines = lines.take_while(move |line| {
        let wanted = until.is_none_or(|until| line.at <= until);
        async move { wanted }
    });
    // A task that was forgotten meanwhile has no service any more.
    let lines = lines.filter_map(move |line| {
        let service = store.view(|tables| tables.get(&line.task).map(|t: &Arc<Task>| t.service.clone()));
        async move { service.map(|service| to_api(line, service)) }
    });
    Ok(super::boxed(lines))
}

fn to_api(line: skep_manager::LogLine, service: ServiceId) -> LogLine {
    let stream = match line.stream {
        skep_manager::LogStream::Stdout => LogStream::Stdout,
        skep_manager::LogStream::Stderr => LogStream::Stderr,
    };
    LogLine {
        origin: LogOrigin { node: line.node, service, task: line.task },
        stream,
        at: line.at,
        data: super::containers::with_line_feed(line.data.into()),
    }
}

/// Where the stream of changes is: waiting for this node to become a manager, or listening.
struct Listening {
    store: watch::Receiver<Option<Store>>,
    events: Option<Events>,
}

/// What changes in the swarm, for as long as this node is a manager, and again when it becomes one again.
pub(super) fn changes(store: watch::Receiver<Option<Store>>) -> BoxStream<'static, SwarmChange> {
    let batches = stream::unfold(Listening { store, events: None }, |mut listening| async move {
        loop {
            let Some(events) = &mut listening.events else {
                let store = listening.store.wait_for(Option::is_some).await.ok()?.clone();
                listening.store.mark_unchanged();
                listening.events = store.map(|s| s.watch());
                continue;
            };
            tokio::select! {
                batch = events.next() => match batch {
                    Some(Ok(batch)) => return Some((stream::iter(told(&batch)), listening)),
                    // Missed: events are for people who watch, and state is read elsewhere.
                    Some(Err(_)) => {}
                    None => listening.events = None,
                },
                Ok(()) = listening.store.changed() => listening.events = None,
            }
        }
    });
    batches.flatten().boxed()
}

fn told(batch: &[Event]) -> Vec<SwarmChange> {
    let at = Timestamp::now();
    batch.iter().filter_map(changed).map(|object| SwarmChange { at, object }).collect()
}

fn changed(event: &Event) -> Option<Changed> {
    let gone = event.kind == EventKind::Deleted;
    macro_rules! pair {
        ($kind:ident, $now:expr) => {
            Changed::$kind(Pair {
                old: match &event.before {
                    Some(Object::$kind(before)) => Some(before.clone()),
                    _ => None,
                },
                new: (!gone).then(|| $now.clone()),
            })
        };
    }
    Some(match &event.object {
        Object::Node(now) => pair!(Node, now),
        Object::Service(now) => pair!(Service, now),
        Object::Network(now) => pair!(Network, now),
        Object::Task(now) => pair!(Task, now),
        Object::Secret(now) => pair!(Secret, now),
        Object::Config(now) => pair!(Config, now),
        Object::Cluster(_) => return None,
    })
}
