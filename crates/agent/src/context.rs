//! What every controller works with, and the steps that it is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skep_dns::DnsError;
use skep_mesh::LocalTask;
use skep_model::{
    EndpointKey, EndpointState, Health, HealthCheck, NetworkAttachment, NetworkSpec, PortConflict, PortOptions,
    Prefix6, Protocol, PublishedPort, ServiceEntry, Task, TaskId,
};
use skep_netdb::{Located, NetDb};
use skep_network::{Attachment, NetworkError, NodeNetwork, TaskAddress};
use skep_registry::RegistryError;
use skep_runtime::images::{Image, ImageError};
use skep_runtime::{Container, ContainerFile, ContainerId, Runtime, RuntimeError};
use skep_template::TemplateError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::images::TaskImages;
use crate::mesh::Mesh;
use crate::names::Names;
use crate::records::{keys, records};
use crate::report::Reporter;
use crate::task::{Endpoint, Step, close};
use crate::underlay::Underlay;
use crate::{Assignments, containers, task, templates};

/// How long flows of a task that is asked to stop may go on before it is told. New flows go elsewhere at once.
const DRAIN: Duration = Duration::from_secs(2);
/// How long whoever asks for tasks by name and goes to their own addresses (a load balancer) may go to one that is to stop: for the second that an
/// answer is good for, and until asking again every second has come to it.
const NAMES_KEPT: Duration = Duration::from_secs(2);
/// How long the data plane may take to learn that a task takes no new flows before it is told to stop all the same: longer than a new daemon takes to
/// know its tasks again.
const LEAVE: Duration = Duration::from_secs(10);
/// How long the data plane may take to learn that a task is gone before its device is removed all the same.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the data plane is asked whether a draining task still has flows, at most.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// And how many times as long as an answer takes there is a rest before the next.
const DRAIN_REST: u32 = 10;
/// `SIGTERM`, for a task whose image is gone.
const SIGTERM: i32 = 15;

/// Says what listens in the network namespace at a path.
pub type ListenersAt = fn(&Path) -> Result<BTreeSet<(Protocol, u16)>, NetworkError>;

/// What every controller works with.
pub(crate) struct Context {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: TaskImages,
    pub(crate) network: Arc<dyn NodeNetwork>,
    pub(crate) listeners: ListenersAt,
    pub(crate) netdb: NetDb,
    pub(crate) mesh: Mesh,
    pub(crate) names: Names,
    pub(crate) reporter: Reporter,
    pub(crate) assignments: watch::Receiver<Arc<Assignments>>,
    pub(crate) underlay: watch::Receiver<Underlay>,
    /// Statuses on disk.
    pub(crate) tasks_dir: PathBuf,
    /// Pinned namespaces.
    pub(crate) netns_dir: PathBuf,
    /// Host-mode ports that were given to tasks which are not in the mesh yet.
    pub(crate) host_ports: Mutex<BTreeMap<TaskId, Vec<PublishedPort>>>,
    /// What the health checks of tasks come to, for people.
    pub(crate) health: Mutex<BTreeMap<TaskId, watch::Receiver<Health>>>,
}

/// Why a task could not be made ready or started. Shown as the task's error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("No such image: {name}: {reason}")]
    NoImage { name: String, reason: Arc<RegistryError> },
    #[error(transparent)]
    Image(ImageError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Names(#[from] DnsError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("ContainerSpec.{0}")]
    Template(#[from] TemplateError),
    #[error("no address was given to the task; is the manager of the same version?")]
    NoAddress,
    #[error("no host port is left from 32768 on")]
    NoHostPort,
    #[error("{0} on this node: end it, publish another port, or keep the tasks away with a constraint")]
    HostPortTaken(PortConflict),
    #[error("the node has no overlay device yet; see the daemon's log")]
    NoOverlay,
}

impl Context {
    fn netns(&self, task: &TaskId) -> PathBuf {
        self.netns_dir.join(task.as_str())
    }

    /// The files that the task is given; `None` as long as managers have not handed all of them over.
    pub(crate) fn files(&self, task: &Task) -> Option<Result<Vec<ContainerFile>, StepError>> {
        let files = templates::files(&self.assignments.borrow(), task)?;
        Some(files.map_err(StepError::Template))
    }

    /// The task with its templates filled in.
    pub(crate) fn expanded(&self, task: &Task) -> Result<Task, StepError> {
        Ok(templates::expanded(task, self.assignments.borrow().node.as_ref())?)
    }

    /// Network and bundle. Returns the host-mode ports that the task gets.
    pub(crate) async fn prepare(
        &self,
        task: &Task,
        id: &ContainerId,
        image: &Image,
        files: Vec<ContainerFile>,
    ) -> Result<Vec<PublishedPort>, StepError> {
        let home = home(task)?;
        let host_ports = self.assign_host_ports(task)?;
        self.network.ensure_namespace(&self.netns(&task.id)).await?;
        self.attach(task, home).await?;
        let serves = self.serves_names(task);
        if !serves {
            self.names.open(task, &self.netns(&task.id))?;
        }
        let spec = task.spec.container.clone();
        self.runtime
            .prepare(Container {
                id: id.clone(),
                image: image.id,
                hostname: hostname(task),
                netns: self.netns(&task.id),
                addresses: named(task),
                resolver: Some(skep_dns::ADDRESS.into()),
                labels: labels(task),
                env: skep_model::generic::environment(&task.generic),
                resources: task.spec.resources.clone(),
                files,
                spec,
            })
            .await?;
        Ok(host_ports)
    }

    /// The veth pair, and the task's entry in the mesh. Repairs what is there.
    async fn attach(&self, task: &Task, home: &NetworkAttachment) -> Result<LocalTask, StepError> {
        let mtu = u32::from(self.overlay_mtu().await?);
        let addresses = self.addresses(task, mtu);
        let attachment = Attachment { task: task.id.clone(), netns: self.netns(&task.id), addresses, mtu };
        let link = self.network.attach(&attachment).await?;
        Ok(LocalTask {
            task: task.id.clone(),
            home: home.network.clone(),
            addr: home.addr.addr(),
            networks: task.attachments.iter().skip(1).map(|a| (a.network.clone(), a.addr.addr())).collect(),
            host_ifindex: link.host_ifindex,
            mac: link.task_mac.0,
            ipv6: link.ipv6,
            state: EndpointState::Starting,
            host_ports: Vec::new(),
            host_options: Vec::new(),
        })
    }

    /// The task's address on each of its networks, and how large a packet may be there where the network says less than `mtu`.
    fn addresses(&self, task: &Task, mtu: u32) -> Vec<TaskAddress> {
        let known = self.assignments.borrow();
        let on = |a: &NetworkAttachment| {
            let network = known.networks.get(&a.network).map(|network| &network.spec);
            let (ip, subnet) = (a.addr.addr(), a.addr.trunc());
            TaskAddress {
                ip,
                subnet,
                ipv6: network.map_or_else(|| Prefix6::MESH.net(a.addr), |network| network.ipv6_of(ip)),
                mtu: network.and_then(NetworkSpec::mtu).filter(|wanted| *wanted < mtu),
            }
        };
        task.attachments.iter().map(on).collect()
    }

    /// A node's first task may come before its overlay device.
    async fn overlay_mtu(&self) -> Result<u16, StepError> {
        let mut underlay = self.underlay.clone();
        let waiting = underlay.wait_for(|u| u.overlay.is_some());
        match timeout(Duration::from_secs(5), waiting).await {
            Ok(Ok(underlay)) => Ok(underlay.overlay_mtu),
            _ => Err(StepError::NoOverlay),
        }
    }

    fn assign_host_ports(&self, task: &Task) -> Result<Vec<PublishedPort>, StepError> {
        if task.host_ports.is_empty() {
            return Ok(Vec::new());
        }
        let mut given = self.host_ports.lock().unwrap_or_else(PoisonError::into_inner);
        let in_mesh = self.mesh.locals();
        let others = given.iter().filter(|(id, _)| **id != task.id).flat_map(|(_, ports)| ports);
        let running = in_mesh.values().filter(|l| l.task != task.id).flat_map(|l| &l.host_ports);
        let mut taken: BTreeSet<_> = others.chain(running).map(|p| (p.protocol, p.published.get())).collect();
        // What a process of the node listens on is not ours to give away, nor what the mesh answers on.
        taken.extend((self.listeners)(Path::new("/proc/thread-self/ns/net")).unwrap_or_default());
        let services = self.assignments.borrow().clone();
        taken.extend(services.services.values().flat_map(|s| &s.ports).map(|p| (p.protocol, p.published.get())));
        let ports = task::assign(&task.host_ports, &taken).ok_or(StepError::NoHostPort)?;
        self.refuse_taken(task, &ports)?;
        given.insert(task.id.clone(), ports.clone());
        Ok(ports)
    }

    /// Nobody could reach a task by a port that a process of the node has. Where the port is bound to some addresses only, the process may be on
    /// others: then it shows when the mesh gets it.
    fn refuse_taken(&self, task: &Task, ports: &[PublishedPort]) -> Result<(), StepError> {
        let options = self.host_options(task, ports);
        let bound = |port: &&PublishedPort| {
            let same = |o: &&PortOptions| (o.protocol, o.published) == (port.protocol, port.published);
            options.iter().find(same).is_some_and(|o| !o.options.listen.is_empty() || !o.answers)
        };
        let unbound = ports.iter().filter(|port| !bound(port)).map(|port| (port.protocol, port.published));
        match self.mesh.taken(unbound).into_iter().next() {
            Some(conflict) => Err(StepError::HostPortTaken(conflict)),
            None => Ok(()),
        }
    }

    fn host_options(&self, task: &Task, ports: &[PublishedPort]) -> Vec<PortOptions> {
        let assignments = self.assignments.borrow();
        assignments.services.get(&task.service).map(|service| service.options_of(ports)).unwrap_or_default()
    }

    /// Starts the container; it is in the mesh before its first instruction, and takes no flows yet.
    pub(crate) async fn start(&self, task: &Task, id: &ContainerId, ports: &[PublishedPort]) -> Result<(), StepError> {
        self.enter_mesh(task, ports, EndpointState::Starting).await?;
        self.runtime.start(id).await?;
        Ok(())
    }

    /// Into the mesh, in this state. Repairs what is there.
    pub(crate) async fn enter_mesh(
        &self,
        task: &Task,
        ports: &[PublishedPort],
        state: EndpointState,
    ) -> Result<(), StepError> {
        let local = self.attach(task, home(task)?).await?;
        // A task of the daemon before this one runs on without names rather than not at all.
        if !self.serves_names(task)
            && let Err(e) = self.names.open(task, &self.netns(&task.id))
        {
            warn!(task = %task.display_name(), "its questions for names are not answered: {e}");
        }
        let host_options = self.host_options(task, ports);
        self.mesh.put(LocalTask { state, host_ports: ports.to_vec(), host_options, ..local });
        self.publish(task, ports, state);
        Ok(())
    }

    /// As everybody was told of the task on each of its networks; `None` where that is not the same, as when a daemon was stopped in between.
    fn told(&self, task: &Task) -> Option<EndpointState> {
        let own = self.netdb.own();
        let own = own.borrow();
        let mut states = keys(task).map(|key| own.records.get(&key).map(|record| record.state));
        let first = states.next()??;
        states.all(|state| state == Some(first)).then_some(first)
    }

    /// What is true of the task's endpoint.
    pub(crate) fn endpoint(&self, task: &Task) -> Endpoint {
        Endpoint {
            here: self.mesh.local(&task.id).map(|local| local.state),
            told: self.told(task),
            settled: self.mesh.is_settled(&task.id),
            published: !self.target_ports(task).is_empty() || has_names(task),
        }
    }

    /// Whether somebody who has the task's own address by a name would find another task if they asked again.
    fn is_asked_for_elsewhere(&self, task: &Task) -> bool {
        let by_name = has_names(task) || self.mesh.local(&task.id).is_some_and(|local| !local.host_ports.is_empty());
        let is_other = |(key, located): (&EndpointKey, &Located)| {
            let record = &located.record;
            record.service == task.service && key.task != task.id && record.state == EndpointState::Ready
        };
        // The tasks of a service that is gone end all at once.
        let is_wanted = || self.assignments.borrow().services.contains_key(&task.service);
        by_name && is_wanted() && self.netdb.view().borrow().endpoints.iter().any(is_other)
    }

    /// Says whether the task takes new flows: to this node's data plane first, then to everybody. Nothing happens for a task that is not in the
    /// mesh any more.
    pub(crate) fn announce(&self, task: &Task, state: EndpointState) {
        self.mesh.set_state(&task.id, state);
        keys(task).for_each(|key| self.netdb.set_state(&key, state));
    }

    fn publish(&self, task: &Task, ports: &[PublishedPort], state: EndpointState) {
        let hostname = hostname(task);
        records(task, &hostname, ports, state).for_each(|(key, record)| self.netdb.publish(key, record));
    }

    /// Takes the task out of the mesh for new flows, and returns once it has none left or they have had their time. Returns at once for
    /// a task that is not in the mesh.
    pub(crate) async fn retire(&self, task: &Task) {
        loop {
            match close(self.endpoint(task)) {
                Step::Announce(state) => self.announce(task, state),
                Step::AwaitDataPlane => {
                    if timeout(LEAVE, self.mesh.settled(&task.id)).await.is_err() {
                        warn!(task = %task.display_name(), "is told to stop although the data plane may still send it new flows");
                        return self.drain(task).await;
                    }
                }
                Step::AwaitFlows => return self.drain(task).await,
                Step::Enter(_) | Step::AwaitListening | Step::Done => return,
            }
        }
    }

    /// Returns once the task has no flows left, and those who have learnt its address by a name have asked again, or they have had their time.
    async fn drain(&self, task: &Task) {
        let kept = if self.is_asked_for_elsewhere(task) { NAMES_KEPT } else { Duration::ZERO };
        let both = async { tokio::join!(sleep(kept), self.flows_end(task)) };
        // It is ended in time even when flows go on.
        let _ = timeout(self.drain_limit(task), both).await;
    }

    async fn flows_end(&self, task: &Task) {
        loop {
            let (mesh, id, asked) = (self.mesh.clone(), task.id.clone(), Instant::now());
            let open = tokio::task::spawn_blocking(move || mesh.open_flows(&id)).await;
            if open.is_ok_and(|open| open == 0) {
                return;
            }
            sleep(DRAIN_POLL.max(asked.elapsed() * DRAIN_REST)).await;
        }
    }

    /// How long flows of the task may go on once it is asked to stop: as long as the most patient of its ports says.
    fn drain_limit(&self, task: &Task) -> Duration {
        let host: Vec<_> = self.mesh.local(&task.id).map(|local| local.host_ports).unwrap_or_default();
        let assignments = self.assignments.borrow();
        let service = assignments.services.get(&task.service);
        service.map_or(DRAIN, |service| longest_drain(service, &host))
    }

    /// The ports that the task should listen on.
    pub(crate) fn target_ports(&self, task: &Task) -> BTreeSet<(Protocol, u16)> {
        let assignments = self.assignments.borrow();
        let ingress = assignments.services.get(&task.service).into_iter().flat_map(|s| &s.ports);
        let ingress = ingress.map(|p| (p.protocol, p.target.get()));
        ingress.chain(task.host_ports.iter().map(|p| (p.protocol, p.target.get()))).collect()
    }

    /// Whether the port of a resolver is the task's own: it answers questions for names itself, and could not listen on all its addresses otherwise.
    fn serves_names(&self, task: &Task) -> bool {
        let wanted = self.target_ports(task);
        [Protocol::Udp, Protocol::Tcp].iter().any(|protocol| wanted.contains(&(*protocol, 53)))
    }

    /// What the task listens on.
    pub(crate) async fn open_ports(&self, task: &Task) -> Result<BTreeSet<(Protocol, u16)>, NetworkError> {
        let (ask, netns) = (self.listeners, self.netns(&task.id));
        match tokio::task::spawn_blocking(move || ask(&netns)).await {
            Ok(open) => open,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// How the task's health is checked; `None` when it is not.
    pub(crate) async fn health_check(&self, task: &Task) -> Option<HealthCheck> {
        let config = self.images.find(task).await.map(|image| image.config).unwrap_or_default();
        HealthCheck::of(task.spec.container.health.as_ref(), config.health.as_ref())
    }

    pub(crate) fn show_health(&self, task: &TaskId, health: watch::Receiver<Health>) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).insert(task.clone(), health);
    }

    pub(crate) fn forget_health(&self, task: &TaskId) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).remove(task);
    }

    /// What asks the task's container to stop.
    pub(crate) async fn stop_signal(&self, task: &Task) -> i32 {
        let config = self.images.find(task).await.map(|image| image.config).unwrap_or_default();
        skep_runtime::stop_signal(&task.spec.container, &config).unwrap_or(SIGTERM)
    }

    /// Out of the mesh and off the network. Goes on after errors and returns them all.
    pub(crate) async fn release(&self, task: &Task) -> Vec<NetworkError> {
        keys(task).for_each(|key| self.netdb.withdraw(&key));
        self.mesh.remove(&task.id);
        // What is sent into a device that is gone is lost without a word.
        let _ = timeout(SETTLE, self.mesh.settled(&task.id)).await;
        self.host_ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&task.id);
        self.names.close(&task.id).await;
        let detached = self.network.detach(&task.id).await;
        let removed = self.network.remove_namespace(&self.netns(&task.id)).await;
        [detached, removed].into_iter().filter_map(Result::err).collect()
    }
}

fn longest_drain(service: &ServiceEntry, host_ports: &[PublishedPort]) -> Duration {
    let drains: BTreeMap<_, _> =
        service.options.iter().filter_map(|o| Some(((o.protocol, o.published), o.options.drain?))).collect();
    let ports = service.ports.iter().chain(host_ports).map(|port| (port.protocol, port.published));
    ports.map(|port| drains.get(&port).copied().unwrap_or(DRAIN)).max().unwrap_or(DRAIN)
}

/// Whether others may know the task's own addresses by name.
fn has_names(task: &Task) -> bool {
    task.attachments.len() > 1
}

/// The task's place on the network that every task is on: the routing mesh's, or what was so when the task began.
fn home(task: &Task) -> Result<&NetworkAttachment, StepError> {
    task.attachments.first().ok_or(StepError::NoAddress)
}

/// What the task's own name stands for: first its addresses where other tasks can reach it, then that by which it serves published ports. Not the IPv6 addresses too: a program that binds to what its own name resolves to would then miss IPv4 clients.
fn named(task: &Task) -> Vec<IpAddr> {
    let own: Vec<_> = task.attachments.iter().map(|a| a.addr.addr().into()).collect();
    let (ingress, others) = own.split_at(own.len().min(1));
    others.iter().chain(ingress).copied().collect()
}

/// The task's host name: what its service says, or the first digits of the container's identifier.
fn hostname(task: &Task) -> String {
    let given = task.spec.container.hostname.clone();
    given.unwrap_or_else(|| containers::container_id(&task.id).short().to_owned())
}

/// The service's container labels, and those by which people and tools tell which task a container is.
fn labels(task: &Task) -> BTreeMap<String, String> {
    let name = format!("{}.{}", task.display_name(), task.id);
    let mut labels = task.spec.container.labels.clone();
    let mut own = |key: &str, value: &str| labels.insert(format!("com.docker.swarm.{key}"), value.to_owned());
    own("node.id", task.node.as_ref().map_or("", |n| n.as_str()));
    own("service.id", task.service.as_str());
    own("service.name", task.service_name.as_str());
    own("task", "");
    own("task.id", task.id.as_str());
    own("task.name", &name);
    labels
}

#[cfg(test)]
mod tests {
    use skep_model::{PublishMode, PublishOptions, ServiceId, Version};

    use super::*;

    #[test]
    fn a_task_drains_as_long_as_its_most_patient_port() {
        let port = |n: u16, mode| PublishedPort {
            protocol: Protocol::Tcp,
            target: n.try_into().unwrap(),
            published: n.try_into().unwrap(),
            mode,
        };
        let drain = |n: u16, seconds| PortOptions {
            protocol: Protocol::Tcp,
            published: n.try_into().unwrap(),
            options: PublishOptions { drain: Some(Duration::from_secs(seconds)), ..Default::default() },
            answers: true,
        };
        let limit = |ports: &[u16], options: &[(u16, u64)], host: &[u16]| {
            let entry = ServiceEntry {
                id: ServiceId::random(),
                name: "web".to_owned(),
                version: Version(1),
                ports: ports.iter().map(|n| port(*n, PublishMode::Ingress)).collect(),
                options: options.iter().map(|(n, seconds)| drain(*n, *seconds)).collect(),
                virtual_ips: Vec::new(),
                networks: Vec::new(),
            };
            let host: Vec<_> = host.iter().map(|n| port(*n, PublishMode::Host)).collect();
            longest_drain(&entry, &host).as_secs()
        };
        assert_eq!(limit(&[80], &[], &[]), 2);
        assert_eq!(limit(&[80], &[(80, 0)], &[]), 0);
        assert_eq!(limit(&[80, 81], &[(80, 0)], &[]), 2);
        assert_eq!(limit(&[80, 81], &[(80, 9)], &[]), 9);
        assert_eq!(limit(&[80], &[(80, 1), (90, 30)], &[]), 1, "a host port that the task does not have");
        assert_eq!(limit(&[80], &[(80, 1), (90, 30)], &[90]), 30);
        assert_eq!(limit(&[], &[], &[]), 2);
    }
}
