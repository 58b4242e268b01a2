//! The containers of this node's tasks, as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use skep_agent::{Assignments, container_id, expanded};
use skep_engine::backend::container::{
    ContainerInfo, ContainerNetwork, ContainerPort, ContainerState, ContainerVolume,
};
use skep_engine::backend::log::{LogLine, LogOptions, LogOrigin, LogStream};
use skep_engine::{Error, ErrorKind};
use skep_model::usage::{ContainerProcess, ContainerUsage};
use skep_model::{ContainerSpec, Health, HealthConfig, PublishedPort, ResourceLimits, Task, TaskId};
use skep_runtime::images::ImageConfig;
use skep_runtime::{self as runtime, ContainerId};
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::node::LocalNode;

/// All containers, running or not.
pub(super) async fn list(node: &Arc<LocalNode>) -> Result<Vec<ContainerInfo>, Error> {
    let (known, health) = match node.member().await.as_ref() {
        Some(member) => (member.agent.assignments(), member.agent.health()),
        None => Default::default(),
    };
    let tasks: BTreeMap<ContainerId, &Task> = known.tasks.values().map(|t| (container_id(&t.id), t)).collect();
    let containers = node.runtime.list().await.map_err(|e| failed(&e))?;
    let images = super::images::blocking(&node.images, |images| Ok(images.list())).await?;
    let configs: BTreeMap<_, _> = images.into_iter().map(|i| (i.id, i.config)).collect();
    Ok(containers
        .into_iter()
        .map(|mut container| {
            let task = tasks.get(&container.id).copied();
            let config = configs.get(&container.image);
            let used = std::mem::take(&mut container.volumes).into_iter();
            let volumes = used.map(|(target, name)| {
                let mountpoint = node.volumes.mountpoint(&name).display().to_string();
                ContainerVolume { target, name, mountpoint }
            });
            ContainerInfo { volumes: volumes.collect(), ..describe(container, task, config, &known, &health) }
        })
        .collect())
}

async fn assignments(node: &LocalNode) -> Arc<Assignments> {
    node.member().await.as_ref().map(|m| m.agent.assignments()).unwrap_or_default()
}

fn failed(error: &runtime::RuntimeError) -> Error {
    Error::new(ErrorKind::Unknown, error.to_string())
}

fn describe(
    container: runtime::ContainerInfo,
    task: Option<&Task>,
    image: Option<&ImageConfig>,
    known: &Assignments,
    health: &BTreeMap<TaskId, Health>,
) -> ContainerInfo {
    let started = task.map_or(container.created, |t| t.status.timestamp);
    let state = match container.state {
        runtime::ContainerState::Created => ContainerState::Created,
        runtime::ContainerState::Running { pid } => ContainerState::Running { pid, since: started },
        runtime::ContainerState::Exited(exit) => {
            ContainerState::Exited { code: exit.code, started: Some(container.created), at: exit.at }
        }
    };
    let named = task.map(|t| format!("{}.{}", t.display_name(), t.id));
    ContainerInfo {
        id: container.id.to_string(),
        name: named.unwrap_or_else(|| container.id.short().to_owned()),
        image: task.map(|t| t.spec.container.image.clone()).unwrap_or_default(),
        image_id: image.map(|_| container.image.hex()).unwrap_or_default(),
        command: container.command,
        created: container.created,
        state,
        labels: container.labels,
        ports: ports(task, image),
        networks: task.map(|t| networks(t, known)).unwrap_or_default(),
        volumes: Vec::new(),
        spec: task.map_or_else(ContainerSpec::default, |t| filled_in(t, known)),
        limits: task.map_or_else(ResourceLimits::default, |t| t.spec.resources.limits),
        health: task.and_then(|t| health.get(&t.id).cloned()),
        health_config: health_config(task, image),
        hostname: container.hostname,
        netns: container.netns.display().to_string(),
        size: None,
    }
}

/// The container of a task as it really is, and not as its service writes it for all of them.
fn filled_in(task: &Task, known: &Assignments) -> ContainerSpec {
    expanded(task, known.node.as_ref()).map_or_else(|_| task.spec.container.clone(), |task| task.spec.container)
}

/// The test of the service, or else of the image, with what either says about it.
fn health_config(task: Option<&Task>, image: Option<&ImageConfig>) -> Option<HealthConfig> {
    let of_task = task.and_then(|t| t.spec.container.health.clone());
    let Some(of_image) = image.and_then(|i| i.health.clone()) else { return of_task };
    let own = of_task.unwrap_or_default();
    Some(HealthConfig {
        test: own.test.or(of_image.test),
        interval: own.interval.or(of_image.interval),
        timeout: own.timeout.or(of_image.timeout),
        start_period: own.start_period.or(of_image.start_period),
        start_interval: own.start_interval.or(of_image.start_interval),
        retries: own.retries.or(of_image.retries),
    })
}

fn ports(task: Option<&Task>, image: Option<&ImageConfig>) -> Vec<ContainerPort> {
    let published: Vec<PublishedPort> = task.map(|t| t.status.host_ports.clone()).unwrap_or_default();
    let exposed = image.into_iter().flat_map(|i| &i.exposed_ports);
    let exposed = exposed.filter(|e| !published.iter().any(|p| p.target == e.port && p.protocol == e.protocol));
    let exposed: Vec<_> = exposed.map(|e| ContainerPort::Exposed(format!("{}/{}", e.port, e.protocol))).collect();
    published.into_iter().map(ContainerPort::Published).chain(exposed).collect()
}

fn networks(task: &Task, known: &Assignments) -> Vec<ContainerNetwork> {
    task.attachments.iter().map(|a| ContainerNetwork::of(a, known.networks.get(&a.network))).collect()
}

/// Removes a container by its id.
pub(super) async fn remove(node: &Arc<LocalNode>, id: &str) -> Result<(), Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("No such container: {id}"));
    // It may take seconds: the member is not held still for so long.
    let removal = {
        let member = node.member().await;
        let agent = &member.as_ref().ok_or_else(missing)?.agent;
        let known = agent.assignments();
        let task = known.tasks.keys().find(|task| container_id(task).as_str() == id).ok_or_else(missing)?;
        agent.remove_container(task)
    };
    removal.await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("No such container: {id}"))
}

fn parsed(id: &str) -> Result<ContainerId, Error> {
    id.parse().map_err(|_| missing(id))
}

/// Sends a signal to a container's first process.
pub(super) async fn signal(node: &LocalNode, id: &str, signal: &str) -> Result<(), Error> {
    let number = runtime::parse_signal(signal).map_err(|e| Error::invalid(e.to_string()))?;
    node.runtime.signal(&parsed(id)?, number).await.map_err(|e| failed(&e))
}

/// Stops a container by its id.
pub(super) async fn stop(node: &LocalNode, id: &str, grace: Option<Duration>) -> Result<(), Error> {
    // It may take long: the member is not held still for so long.
    let stopping = {
        let member = node.member().await;
        let agent = &member.as_ref().ok_or_else(|| missing(id))?.agent;
        let known = agent.assignments();
        let task = known.tasks.keys().find(|task| container_id(task).as_str() == id).ok_or_else(|| missing(id))?;
        agent.stop_container(task, grace)
    };
    stopping.await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))
}

/// Waits for a container's end.
pub(super) async fn wait(node: &LocalNode, id: &str) -> Result<Option<i32>, Error> {
    Ok(node.runtime.wait(&parsed(id)?).await.map_err(|e| failed(&e))?.code)
}

/// What a container uses; `None` when it does not run.
pub(super) async fn usage(node: &LocalNode, id: &str) -> Result<Option<ContainerUsage>, Error> {
    match node.runtime.usage(&parsed(id)?).await {
        Ok(usage) => Ok(Some(usage)),
        Err(runtime::RuntimeError::NotRunning(_)) => Ok(None),
        Err(runtime::RuntimeError::NotFound(_)) => Err(missing(id)),
        Err(e) => Err(failed(&e)),
    }
}

/// The processes of a container.
pub(super) async fn processes(node: &LocalNode, id: &str) -> Result<Vec<ContainerProcess>, Error> {
    node.runtime.processes(&parsed(id)?).await.map_err(|e| match e {
        runtime::RuntimeError::NotFound(_) => missing(id),
        runtime::RuntimeError::NotRunning(_) => Error::new(ErrorKind::Conflict, e.to_string()),
        other => failed(&other),
    })
}

/// The output of one container, by its id or a prefix of it.
pub(super) async fn logs(
    node: &Arc<LocalNode>,
    id: &str,
    options: LogOptions,
) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
    let known = assignments(node).await;
    let task = known.tasks.values().find(|t| container_id(&t.id).as_str() == id);
    let task = task.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No such container: {id}")))?;
    let own = task.node.clone().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No such container: {id}")))?;
    let origin = LogOrigin { node: own, service: task.service.clone(), task: task.id.clone() };
    let wanted = runtime::LogOptions {
        tail: options.tail,
        since: options.since,
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let until = options.until;
    let lines = node.runtime.logs(&container_id(&task.id), wanted).await.map_err(|e| failed(&e))?;
    let lines = ReceiverStream::new(lines).take_while(move |line| {
        let wanted = until.is_none_or(|until| line.timestamp <= until);
        async move { wanted }
    });
    Ok(super::boxed(lines.map(move |line| to_api(line, &origin))))
}

fn to_api(line: runtime::LogLine, origin: &LogOrigin) -> LogLine {
    let stream = match line.stream {
        runtime::LogStream::Stdout => LogStream::Stdout,
        runtime::LogStream::Stderr => LogStream::Stderr,
    };
    LogLine { origin: origin.clone(), stream, at: line.timestamp, data: with_line_feed(line.line) }
}

/// Lines are kept without their ends, and clients print what they are given.
pub(super) fn with_line_feed(mut line: Vec<u8>) -> Bytes {
    line.push(b'\n');
    line.into()
}
