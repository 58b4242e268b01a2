//! The daemon as the Engine API asks it.

mod containers;
mod events;
mod exec;
mod images;
mod mesh;
mod registry;
mod swarm;
mod volumes;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skep_engine::backend::Backend;
use skep_engine::backend::cluster::{ClusterView, NodeRemoval, Rotate, SwarmChange};
use skep_engine::backend::container::ContainerInfo;
use skep_engine::backend::exec::{ExecSession, ExecSpec};
use skep_engine::backend::image::{
    Distribution, ImageInfo, Import, LoadEvent, Prune, Pruned, Pull, PullEvent, Removal, Removed,
};
use skep_engine::backend::leader::Leader;
use skep_engine::backend::log::{LogLine, LogOptions, LogSource};
use skep_engine::backend::node::{NodeInfo, ProcessInfo, SwarmInfo, SwarmState};
use skep_engine::backend::swarm::{InitOptions, JoinOptions, Leave};
use skep_engine::backend::volume::{NewVolume, Sizes, VolumeInfo};
use skep_engine::{Error, ErrorKind};
use skep_manager::Control;
use skep_model::seen::{FlowFilter, FlowList, MeshReport, TraceQuestion, TraceReport};
use skep_model::usage::{ContainerProcess, ContainerUsage};
use skep_model::{
    ClusterSpec, ConfigId, DataSpec, ImageRef, Network, NetworkId, NewNetwork, NodeId, NodeSpec, RegistryAuth,
    SecretId, ServiceId, ServiceSpec, Timestamp, Version,
};

pub(crate) use self::swarm::refusal;
use super::host::{self, Host};
use super::node::LocalNode;

/// The daemon as the Engine API asks it.
pub(crate) struct NodeBackend(Arc<LocalNode>);

impl NodeBackend {
    pub(crate) fn new(node: Arc<LocalNode>) -> Self {
        Self(node)
    }

    /// The manager's API, where this node is one.
    async fn control(&self) -> Result<Control, Error> {
        match self.0.state() {
            SwarmState::Worker => return Err(Error::not_a_manager()),
            SwarmState::Locked => return Err(Error::locked()),
            SwarmState::Pending => return Err(Error::manager_not_ready()),
            _ => {}
        }
        let member = self.0.member().await;
        let seat = member.as_ref().ok_or_else(Error::no_swarm)?.seat.as_ref();
        Ok(seat.ok_or_else(Error::not_a_manager)?.control().clone())
    }

    async fn swarm_info(&self) -> SwarmInfo {
        let member = self.0.member().await;
        let Some(member) = member.as_ref() else { return SwarmInfo::default() };
        let state = member.agent.state();
        let known = member.agent.assignments();
        SwarmInfo {
            node: Some(member.membership.node.clone()),
            addr: Some(member.membership.addr),
            managers: swarm::managers(&known, &member.membership, &state.managers),
            error: state.trouble.unwrap_or_default(),
        }
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn swarm_state(&self) -> SwarmState {
        self.0.state()
    }

    async fn info(&self) -> Result<NodeInfo, Error> {
        let machine = Host::read();
        Ok(NodeInfo {
            id: self.0.id.clone(),
            hostname: machine.hostname,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: String::new(),
            build_time: String::new(),
            kernel: machine.kernel,
            operating_system: machine.operating_system,
            os_version: machine.os_version,
            architecture: machine.architecture,
            cpus: machine.cpus,
            generic: self.0.generic.clone(),
            runtime: self.0.oci_runtime.as_ref().map_or_else(
                || ("skep".to_owned(), "skep shim".to_owned()),
                |oci| (oci.name(), oci.path().display().to_string()),
            ),
            memory: machine.memory,
            data_root: self.0.flags.data_root.display().to_string(),
            cgroup_version: machine.cgroup_version,
            labels: self.0.flags.label_map().unwrap_or_default(),
            open_files: host::open_files(),
            now: Timestamp::now(),
            insecure_registries: self.0.flags.insecure_registries.iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
            swarm: self.swarm_info().await,
        })
    }

    fn process(&self) -> ProcessInfo {
        host::process(self.0.started)
    }

    async fn mesh(&self) -> Result<MeshReport, Error> {
        mesh::report(&self.0).await
    }

    async fn mesh_flows(&self, filter: FlowFilter) -> Result<FlowList, Error> {
        mesh::flows(&self.0, filter).await
    }

    async fn mesh_trace(&self, question: TraceQuestion) -> Result<TraceReport, Error> {
        mesh::trace(&self.0, question).await
    }

    async fn swarm_init(&self, options: InitOptions) -> Result<NodeId, Error> {
        let node = self.0.clone();
        detached(async move { node.init(options).await }).await
    }

    async fn swarm_join(&self, options: JoinOptions) -> Result<(), Error> {
        let node = self.0.clone();
        detached(async move { node.join(options).await }).await
    }

    async fn swarm_leave(&self, leave: Leave) -> Result<(), Error> {
        let node = self.0.clone();
        detached(async move { node.leave(leave).await }).await
    }

    async fn swarm_unlock(&self, key: &str) -> Result<(), Error> {
        let (node, key) = (self.0.clone(), key.to_owned());
        detached(async move { node.unlock(&key).await }).await
    }

    async fn image_load(
        &self,
        archive: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<BoxStream<'static, Result<LoadEvent, Error>>, Error> {
        Ok(images::load(&self.0.images, archive))
    }

    async fn image_import(
        &self,
        archive: BoxStream<'static, io::Result<Bytes>>,
        import: Import,
    ) -> Result<String, Error> {
        images::import(&self.0.images, archive, import).await
    }

    async fn image_save(&self, names: Vec<String>) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        images::save(&self.0.images, names).await
    }

    async fn image_pull(&self, pull: Pull) -> Result<BoxStream<'static, Result<PullEvent, Error>>, Error> {
        registry::pull(&self.0.puller, pull)
    }

    async fn image_prune(&self, prune: Prune) -> Result<Pruned, Error> {
        let prune = images::prune(prune);
        let (removed, freed) = images::unused(&self.0, move |images, in_use| images.prune(prune, in_use)).await?;
        Ok(Pruned { removed: removed.into_iter().map(images::removed).collect(), freed })
    }

    async fn distribution(&self, reference: &ImageRef, auth: Option<RegistryAuth>) -> Result<Distribution, Error> {
        registry::distribution(&self.0.puller, reference, auth).await
    }

    async fn registry_login(&self, registry: &str, auth: RegistryAuth) -> Result<(), Error> {
        registry::login(&self.0.puller, registry, auth).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, Error> {
        images::blocking(&self.0.images, |images| Ok(images.list().into_iter().map(images::info).collect())).await
    }

    async fn image(&self, name: &str) -> Result<ImageInfo, Error> {
        let name = name.to_owned();
        images::blocking(&self.0.images, move |images| images.find(&name).map(images::info)).await
    }

    async fn image_remove(&self, name: &str, removal: Removal) -> Result<Vec<Removed>, Error> {
        let name = name.to_owned();
        let removal = images::removal(removal);
        let removed = images::unused(&self.0, move |images, in_use| images.remove(&name, removal, in_use)).await?;
        Ok(removed.into_iter().map(images::removed).collect())
    }

    async fn image_tag(&self, name: &str, target: ImageRef) -> Result<(), Error> {
        let name = name.to_owned();
        images::blocking(&self.0.images, move |images| images.tag(&images.find(&name)?.id, &target)).await
    }

    async fn volumes(&self, sizes: Sizes) -> Result<Vec<VolumeInfo>, Error> {
        volumes::list(&self.0.volumes, sizes).await
    }

    async fn volume(&self, name: &str) -> Result<VolumeInfo, Error> {
        volumes::find(&self.0.volumes, name).await
    }

    async fn volume_create(&self, new: NewVolume) -> Result<VolumeInfo, Error> {
        volumes::create(&self.0.volumes, new).await
    }

    async fn volume_remove(&self, name: &str) -> Result<(), Error> {
        volumes::remove(&self.0.volumes, name).await
    }

    async fn containers(&self) -> Result<Vec<ContainerInfo>, Error> {
        containers::list(&self.0).await
    }

    async fn container_remove(&self, id: &str) -> Result<(), Error> {
        let (node, id) = (self.0.clone(), id.to_owned());
        detached(async move { containers::remove(&node, &id).await }).await
    }

    async fn container_logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        containers::logs(&self.0, id, options).await
    }

    async fn container_signal(&self, id: &str, signal: &str) -> Result<(), Error> {
        containers::signal(&self.0, id, signal).await
    }

    async fn container_stop(&self, id: &str, grace: Option<Duration>) -> Result<(), Error> {
        containers::stop(&self.0, id, grace).await
    }

    async fn container_wait(&self, id: &str) -> Result<Option<i32>, Error> {
        containers::wait(&self.0, id).await
    }

    async fn container_usage(&self, id: &str) -> Result<Option<ContainerUsage>, Error> {
        containers::usage(&self.0, id).await
    }

    async fn container_processes(&self, id: &str) -> Result<Vec<ContainerProcess>, Error> {
        containers::processes(&self.0, id).await
    }

    async fn exec(&self, container: &str, spec: ExecSpec) -> Result<ExecSession, Error> {
        exec::run(&self.0, container, spec).await
    }

    fn changes(&self) -> BoxStream<'static, SwarmChange> {
        stream::select(swarm::changes(self.0.store()), events::of(&self.0)).boxed()
    }

    fn leads(&self) -> bool {
        self.0.finder().is_some_and(|finder| finder.leads())
    }

    async fn leader(&self) -> Result<Leader, Error> {
        match self.0.finder() {
            Some(finder) => finder.find().await,
            // Whoever answers here says that it is no manager.
            None => Ok(Leader::Here),
        }
    }

    async fn cluster(&self) -> Result<Arc<ClusterView>, Error> {
        swarm::view(&self.control().await?)
    }

    async fn update_cluster(&self, version: Version, spec: ClusterSpec, rotate: Rotate) -> Result<(), Error> {
        let root = rotate.root.map(|root| skep_manager::GivenRoot { certificate: root.certificate, key: root.key });
        let Rotate { worker, manager, unlock_key, .. } = rotate;
        let rotate = skep_manager::Rotate { worker, manager, unlock_key, root };
        self.control().await?.update_cluster(version, spec, rotate).await.map_err(|e| refusal(&e))
    }

    async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, Error> {
        self.control().await?.create_service(spec).await.map_err(|e| refusal(&e))
    }

    async fn update_service(&self, id: &ServiceId, version: Version, spec: ServiceSpec) -> Result<(), Error> {
        self.control().await?.update_service(id, version, spec).await.map_err(|e| refusal(&e))
    }

    async fn rollback_service(&self, id: &ServiceId, version: Version) -> Result<(), Error> {
        self.control().await?.rollback_service(id, version).await.map_err(|e| refusal(&e))
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), Error> {
        self.control().await?.remove_service(id).await.map_err(|e| refusal(&e))
    }

    async fn create_secret(&self, spec: DataSpec) -> Result<SecretId, Error> {
        self.control().await?.create_secret(spec).await.map_err(|e| refusal(&e))
    }

    async fn update_secret(&self, id: &SecretId, version: Version, spec: DataSpec) -> Result<(), Error> {
        self.control().await?.update_secret(id, version, spec).await.map_err(|e| refusal(&e))
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), Error> {
        self.control().await?.remove_secret(id).await.map_err(|e| refusal(&e))
    }

    async fn create_config(&self, spec: DataSpec) -> Result<ConfigId, Error> {
        self.control().await?.create_config(spec).await.map_err(|e| refusal(&e))
    }

    async fn update_config(&self, id: &ConfigId, version: Version, spec: DataSpec) -> Result<(), Error> {
        self.control().await?.update_config(id, version, spec).await.map_err(|e| refusal(&e))
    }

    async fn remove_config(&self, id: &ConfigId) -> Result<(), Error> {
        self.control().await?.remove_config(id).await.map_err(|e| refusal(&e))
    }

    async fn create_network(&self, new: NewNetwork) -> Result<NetworkId, Error> {
        self.control().await?.create_network(new).await.map_err(|e| refusal(&e))
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), Error> {
        self.control().await?.remove_network(id).await.map_err(|e| refusal(&e))
    }

    async fn known_networks(&self) -> Vec<Arc<Network>> {
        let member = self.0.member().await;
        let known = member.as_ref().map(|member| member.agent.assignments());
        known.iter().flat_map(|known| known.networks.values().cloned().map(Arc::new)).collect()
    }

    async fn update_node(&self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), Error> {
        self.control().await?.update_node(id, version, spec).await.map_err(|e| refusal(&e))
    }

    async fn remove_node(&self, id: &NodeId, removal: NodeRemoval) -> Result<(), Error> {
        let removal = match removal {
            NodeRemoval::IfDown => skep_manager::NodeRemoval::IfDown,
            NodeRemoval::Force => skep_manager::NodeRemoval::Force,
        };
        self.control().await?.remove_node(id, removal).await.map_err(|e| refusal(&e))
    }

    async fn task_logs(
        &self,
        source: LogSource,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        swarm::logs(&self.control().await?, source, &options)
    }
}

/// Runs to its end even when the client hangs up: a swarm half joined helps nobody.
async fn detached<R: Send + 'static>(
    work: impl Future<Output = Result<R, Error>> + Send + 'static,
) -> Result<R, Error> {
    tokio::spawn(work).await.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))?
}

/// A stream that ends with what could not be done.
fn boxed<T: Send + 'static>(
    items: impl stream::Stream<Item = T> + Send + 'static,
) -> BoxStream<'static, Result<T, Error>> {
    items.map(Ok).boxed()
}
