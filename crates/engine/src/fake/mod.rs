//! A backend in memory, for tests of the API and of its clients: one node, whose tasks "run" as soon as they are asked for.

mod data;
mod exec;
pub mod mesh;
mod network;
mod node;
mod registry;
mod state;
mod volume;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skep_model::seen::{FlowFilter, FlowList, MeshReport, TraceQuestion, TraceReport};
use skep_model::usage::{ContainerProcess, ContainerUsage};
use skep_model::{
    ClusterSpec, ConfigId, DataSpec, ImageRef, Network, NetworkId, NewNetwork, NodeId, NodeSpec, PortConflict,
    RegistryAuth, SecretId, ServiceId, ServiceSpec, Timestamp, Version,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::backend::Backend;
use crate::backend::cluster::{ClusterView, NodeRemoval, Rotate, SwarmChange};
use crate::backend::container::ContainerInfo;
use crate::backend::exec::{ExecSession, ExecSpec};
use crate::backend::image::{
    Distribution, ImageInfo, Import, LoadEvent, Prune, Pruned, Pull, PullEvent, Removal, Removed,
};
use crate::backend::leader::{Leader, Tunnel};
use crate::backend::log::{LogLine, LogOptions, LogOrigin, LogSource, LogStream};
use crate::backend::node::{NodeInfo, ProcessInfo, SwarmState};
use crate::backend::swarm::{InitOptions, JoinOptions, Leave};
use crate::backend::volume::{NewVolume, Sizes, VolumeInfo};
use crate::error::{Error, ErrorKind};
use state::State;

/// The backend. Images of any name can be run; only [`FakeBackend::with_image`] and loading make one show.
#[derive(Debug)]
pub struct FakeBackend {
    state: Mutex<State>,
    changes: broadcast::Sender<SwarmChange>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(1024);
        Self { state: Mutex::default(), changes }
    }
}

impl FakeBackend {
    /// A node in no swarm.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Puts an image on the node.
    pub fn with_image(&self, reference: &ImageRef) {
        self.state().images.push(node::image(Some(reference.clone())));
    }

    /// Another manager leads when it is asked next.
    pub fn led_by(&self, tunnel: Tunnel) {
        self.state().leader = Some(tunnel);
    }

    /// Makes the node a worker of somebody else's swarm.
    pub fn make_worker(&self) {
        self.state().joined = true;
    }

    /// The node leaves these ports to processes of its own from now on.
    ///
    /// # Panics
    /// When it is no manager.
    pub fn set_port_conflicts(&self, conflicts: &[PortConflict]) {
        self.change(|state| state.set_port_conflicts(conflicts)).expect("a manager");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_a_swarm(&self) -> Result<(), Error> {
        if self.state().swarm_state() == SwarmState::Inactive { Err(Error::no_mesh()) } else { Ok(()) }
    }

    /// Changes the swarm and tells who listens.
    fn change<T>(&self, f: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state();
        state.managed()?;
        let before = state.view.clone();
        let result = f(&mut state)?;
        for change in state::differences(before.as_ref(), state.view.as_ref()) {
            // Nobody listening is no error.
            let _ = self.changes.send(change);
        }
        Ok(result)
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn swarm_state(&self) -> SwarmState {
        self.state().swarm_state()
    }

    async fn info(&self) -> Result<NodeInfo, Error> {
        Ok(node::info(&self.state()))
    }

    fn process(&self) -> ProcessInfo {
        let cpu = std::time::Duration::from_millis(2500);
        ProcessInfo { resident_bytes: 20 << 20, cpu, open_files: 10, started: Timestamp::UNIX_EPOCH }
    }

    async fn mesh(&self) -> Result<MeshReport, Error> {
        self.in_a_swarm().map(|()| mesh::report())
    }

    async fn mesh_flows(&self, filter: FlowFilter) -> Result<FlowList, Error> {
        self.in_a_swarm().map(|()| mesh::flows(&filter))
    }

    async fn mesh_trace(&self, question: TraceQuestion) -> Result<TraceReport, Error> {
        self.in_a_swarm().map(|()| mesh::trace(&question))
    }

    async fn swarm_init(&self, options: InitOptions) -> Result<NodeId, Error> {
        let mut state = self.state();
        if state.swarm_state() != SwarmState::Inactive {
            return Err(Error::already_in_swarm());
        }
        Ok(state.start_swarm(&options))
    }

    async fn swarm_join(&self, options: JoinOptions) -> Result<(), Error> {
        if !options.token.starts_with("SWMTKN-1-") {
            return Err(Error::invalid("invalid join token"));
        }
        if !options.token.ends_with("-good") {
            return Err(Error::invalid("A valid join token is necessary to join this cluster"));
        }
        self.make_worker();
        Ok(())
    }

    async fn swarm_leave(&self, leave: Leave) -> Result<(), Error> {
        let mut state = self.state();
        match (state.swarm_state(), leave) {
            (SwarmState::Inactive, _) => Err(Error::not_in_swarm()),
            (SwarmState::Manager, Leave::Gently) => Err(Error::new(
                ErrorKind::Unavailable,
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.",
            )),
            _ => {
                state.view = None;
                state.joined = false;
                Ok(())
            }
        }
    }

    async fn image_load(
        &self,
        mut archive: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<BoxStream<'static, Result<LoadEvent, Error>>, Error> {
        let mut size = 0;
        let mut name = Vec::new();
        while let Some(part) = archive.next().await {
            let part = part.map_err(|e| Error::invalid(e.to_string()))?;
            size += part.len() as u64;
            name.extend_from_slice(&part);
        }
        // The "archive" is the reference of the image that it holds.
        let reference: ImageRef = std::str::from_utf8(&name)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| Error::invalid("the archive is no image: neither manifest.json nor index.json is in it"))?;
        let image = node::image(Some(reference.clone()));
        let id = image.id.clone();
        self.state().images.push(image);
        let layer = LoadEvent::Layer { id: "layer".to_owned(), current: size, total: Some(size) };
        Ok(stream::iter([Ok(layer), Ok(LoadEvent::Loaded { id, reference: Some(reference) })]).boxed())
    }

    async fn image_import(&self, _: BoxStream<'static, io::Result<Bytes>>, import: Import) -> Result<String, Error> {
        let image = node::image(import.reference);
        let id = image.id.clone();
        self.state().images.push(image);
        Ok(id)
    }

    async fn image_save(&self, names: Vec<String>) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        for name in &names {
            self.image(name).await?;
        }
        Ok(stream::iter([Ok(Bytes::from(names.join(",")))]).boxed())
    }

    async fn image_pull(&self, pull: Pull) -> Result<BoxStream<'static, Result<PullEvent, Error>>, Error> {
        let events = registry::pull(&pull);
        if events.iter().all(Result::is_ok) {
            self.state().images.push(node::image(Some(pull.reference)));
        }
        Ok(stream::iter(events).boxed())
    }

    async fn image_prune(&self, prune: Prune) -> Result<Pruned, Error> {
        let mut state = self.state();
        let (useless, kept) = std::mem::take(&mut state.images)
            .into_iter()
            .partition::<Vec<_>, _>(|image| prune == Prune::Unused || image.refs.is_empty());
        state.images = kept;
        let freed = useless.iter().map(|image| image.size).sum();
        Ok(Pruned { removed: useless.into_iter().map(|image| Removed::Deleted(image.id)).collect(), freed })
    }

    async fn distribution(&self, reference: &ImageRef, auth: Option<RegistryAuth>) -> Result<Distribution, Error> {
        registry::distribution(reference, auth.as_ref())
    }

    async fn registry_login(&self, registry: &str, auth: RegistryAuth) -> Result<(), Error> {
        registry::login(registry, &auth)
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, Error> {
        Ok(self.state().images.clone())
    }

    async fn image(&self, name: &str) -> Result<ImageInfo, Error> {
        node::find(&self.state().images, name).cloned()
    }

    async fn image_remove(&self, name: &str, _: Removal) -> Result<Vec<Removed>, Error> {
        let mut state = self.state();
        let image = node::find(&state.images, name)?.clone();
        let reference: Option<ImageRef> = name.parse().ok();
        if let Some(reference) = reference.filter(|r| image.refs.contains(r) && image.refs.len() > 1) {
            for other in &mut state.images {
                other.refs.retain(|r| *r != reference);
            }
            return Ok(vec![Removed::Untagged(reference)]);
        }
        state.images.retain(|i| i.id != image.id);
        let untagged = image.refs.into_iter().map(Removed::Untagged);
        Ok(untagged.chain([Removed::Deleted(image.id)]).collect())
    }

    async fn image_tag(&self, name: &str, target: ImageRef) -> Result<(), Error> {
        let mut state = self.state();
        let id = node::find(&state.images, name)?.id.clone();
        for image in &mut state.images {
            image.refs.retain(|r| *r != target);
            if image.id == id {
                image.refs.push(target.clone());
            }
        }
        Ok(())
    }

    async fn volumes(&self, _: Sizes) -> Result<Vec<VolumeInfo>, Error> {
        Ok(self.state().volumes.values().cloned().collect())
    }

    async fn volume(&self, name: &str) -> Result<VolumeInfo, Error> {
        self.state().volume(name)
    }

    async fn volume_create(&self, new: NewVolume) -> Result<VolumeInfo, Error> {
        self.state().create_volume(new)
    }

    async fn volume_remove(&self, name: &str) -> Result<(), Error> {
        self.state().remove_volume(name)
    }

    async fn containers(&self) -> Result<Vec<ContainerInfo>, Error> {
        Ok(node::containers(&self.state()))
    }

    async fn container_remove(&self, id: &str) -> Result<(), Error> {
        let mut state = self.state();
        let mut tasks = state.view.iter_mut().flat_map(|view| view.tasks.values_mut());
        let owner = tasks.find(|t| t.status.container.as_ref().is_some_and(|c| c.id == id));
        Arc::make_mut(owner.ok_or_else(|| Error::not_found("container", id))?).status.container = None;
        Ok(())
    }

    async fn container_logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let view = self.cluster().await?;
        let owner = view.tasks.values().find(|t| t.status.container.as_ref().is_some_and(|c| c.id == id));
        let task = owner.ok_or_else(|| Error::not_found("container", id))?.id.clone();
        self.task_logs(LogSource::Task(task), options).await
    }

    async fn container_signal(&self, id: &str, signal: &str) -> Result<(), Error> {
        match signal {
            "SIGKILL" | "KILL" | "9" => self.container_remove(id).await,
            "SIGHUP" => Ok(()),
            _ => Err(Error::invalid(format!("{signal} is no signal"))),
        }
    }

    async fn container_stop(&self, id: &str, _: Option<std::time::Duration>) -> Result<(), Error> {
        self.container_remove(id).await
    }

    async fn container_wait(&self, _: &str) -> Result<Option<i32>, Error> {
        Ok(Some(3))
    }

    async fn container_usage(&self, _: &str) -> Result<Option<ContainerUsage>, Error> {
        Ok(Some(ContainerUsage::default()))
    }

    async fn container_processes(&self, _: &str) -> Result<Vec<ContainerProcess>, Error> {
        Ok(Vec::new())
    }

    async fn exec(&self, _: &str, spec: ExecSpec) -> Result<ExecSession, Error> {
        exec::run(&spec)
    }

    fn changes(&self) -> BoxStream<'static, SwarmChange> {
        BroadcastStream::new(self.changes.subscribe()).filter_map(async |change| change.ok()).boxed()
    }

    async fn swarm_unlock(&self, _: &str) -> Result<(), Error> {
        Err(Error::new(ErrorKind::FailedPrecondition, "swarm is not locked"))
    }

    fn leads(&self) -> bool {
        true
    }

    async fn leader(&self) -> Result<Leader, Error> {
        Ok(self.state().leader.take().map_or(Leader::Here, Leader::Elsewhere))
    }

    async fn cluster(&self) -> Result<Arc<ClusterView>, Error> {
        self.state().managed().map(Arc::new)
    }

    async fn update_cluster(&self, version: Version, spec: ClusterSpec, rotate: Rotate) -> Result<(), Error> {
        self.change(|state| state.update_cluster(version, spec, &rotate))
    }

    async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, Error> {
        self.change(|state| state.create_service(spec))
    }

    async fn update_service(&self, id: &ServiceId, version: Version, spec: ServiceSpec) -> Result<(), Error> {
        self.change(|state| state.update_service(id, version, spec))
    }

    async fn rollback_service(&self, id: &ServiceId, version: Version) -> Result<(), Error> {
        self.change(|state| state.rollback_service(id, version))
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), Error> {
        self.change(|state| state.remove_service(id))
    }

    async fn create_secret(&self, spec: DataSpec) -> Result<SecretId, Error> {
        self.change(|state| state.create_secret(spec))
    }

    async fn update_secret(&self, id: &SecretId, version: Version, spec: DataSpec) -> Result<(), Error> {
        self.change(|state| state.update_secret(id, version, spec))
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), Error> {
        self.change(|state| state.remove_secret(id))
    }

    async fn create_config(&self, spec: DataSpec) -> Result<ConfigId, Error> {
        self.change(|state| state.create_config(spec))
    }

    async fn update_config(&self, id: &ConfigId, version: Version, spec: DataSpec) -> Result<(), Error> {
        self.change(|state| state.update_config(id, version, spec))
    }

    async fn remove_config(&self, id: &ConfigId) -> Result<(), Error> {
        self.change(|state| state.remove_config(id))
    }

    async fn create_network(&self, new: NewNetwork) -> Result<NetworkId, Error> {
        self.change(|state| state.create_network(new))
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), Error> {
        self.change(|state| state.remove_network(id))
    }

    async fn known_networks(&self) -> Vec<Arc<Network>> {
        self.state().view.iter().flat_map(|view| view.networks.values().cloned()).collect()
    }

    async fn update_node(&self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), Error> {
        self.change(|state| state.update_node(id, version, spec))
    }

    async fn remove_node(&self, id: &NodeId, _: NodeRemoval) -> Result<(), Error> {
        Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
            ),
        ))
    }

    async fn task_logs(
        &self,
        source: LogSource,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let view = self.cluster().await?;
        let of = |task: &&Arc<skep_model::Task>| match &source {
            LogSource::Service(id) => task.service == *id,
            LogSource::Task(id) => task.id == *id,
        };
        let mut lines = Vec::new();
        for task in view.tasks.values().filter(of) {
            let Some(node) = task.node.clone() else { continue };
            let origin = LogOrigin { node, service: task.service.clone(), task: task.id.clone() };
            let line = |text: &str| LogLine {
                origin: origin.clone(),
                stream: LogStream::Stdout,
                at: Timestamp::UNIX_EPOCH,
                data: Bytes::from(format!("{text}\n")),
            };
            let written = ["started", "serving"].map(line);
            let skip =
                options.tail.map_or(0, |n| written.len().saturating_sub(usize::try_from(n).unwrap_or(usize::MAX)));
            lines.extend(written.into_iter().skip(skip).map(Ok));
        }
        let past = stream::iter(lines);
        Ok(if options.follow { past.chain(stream::pending()).boxed() } else { past.boxed() })
    }
}
