//! What the daemon offers to the API.

pub mod cluster;
pub mod container;
pub mod exec;
pub mod image;
pub mod leader;
pub mod log;
pub mod node;
pub mod swarm;
pub mod volume;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use skep_model::seen::{FlowFilter, FlowList, MeshReport, TraceQuestion, TraceReport};
use skep_model::usage::{ContainerProcess, ContainerUsage};
use skep_model::{
    ClusterSpec, ConfigId, DataSpec, ImageRef, Network, NetworkId, NewNetwork, NodeId, NodeSpec, RegistryAuth,
    SecretId, ServiceId, ServiceSpec, Version,
};

use crate::error::Error;
use cluster::{ClusterView, Rotate, SwarmChange};
use container::ContainerInfo;
use exec::{ExecSession, ExecSpec};
use image::{Distribution, ImageInfo, Import, LoadEvent, Prune, Pruned, Pull, PullEvent, Removed};
use leader::Leader;
use log::{LogLine, LogOptions, LogSource};
use node::{NodeInfo, ProcessInfo, SwarmState};
use swarm::{InitOptions, JoinOptions};
use volume::{NewVolume, Sizes, VolumeInfo};

/// Everything that the API can be asked. Node-level calls work on every node; cluster-level calls answer
/// [`Error::no_swarm`], [`Error::not_a_manager`], [`Error::manager_not_ready`] or [`Error::no_leader`] where they cannot.
///
/// Messages carry no `rpc error:` prefix; the API adds it. All calls are cancel-safe: a client that hangs up drops the
/// future, and what was asked may or may not have been done.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    // ---- this node ----

    /// What the node is to a swarm right now. Called for every `/_ping`: answers from memory.
    fn swarm_state(&self) -> SwarmState;

    /// What the node is and has.
    async fn info(&self) -> Result<NodeInfo, Error>;

    /// What the daemon's process uses.
    fn process(&self) -> ProcessInfo;

    /// What the mesh of this node is and has counted. In no swarm, or before the mesh is up: [`ErrorKind::Unavailable`].
    ///
    /// [`ErrorKind::Unavailable`]: crate::ErrorKind::Unavailable
    async fn mesh(&self) -> Result<MeshReport, Error>;

    /// Flows that the mesh of this node remembers.
    async fn mesh_flows(&self, filter: FlowFilter) -> Result<FlowList, Error>;

    /// What would become of a connection to this node.
    async fn mesh_trace(&self, question: TraceQuestion) -> Result<TraceReport, Error>;

    /// Starts a swarm with this node as its manager; returns once the manager answers.
    async fn swarm_init(&self, options: InitOptions) -> Result<NodeId, Error>;

    /// Joins a swarm; returns once the node is a member. A wrong token is [`ErrorKind::InvalidArgument`] with
    /// "A valid join token is necessary to join this cluster".
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::ErrorKind::InvalidArgument
    async fn swarm_join(&self, options: JoinOptions) -> Result<(), Error>;

    /// Leaves the swarm. Without [`swarm::Leave::Force`] a manager refuses ("You are attempting to leave the swarm on a node that
    /// is participating as a manager. …").
    async fn swarm_leave(&self, leave: swarm::Leave) -> Result<(), Error>;

    /// Opens what autolock keeps closed when a manager's daemon starts. A wrong key is [`ErrorKind::Unauthenticated`].
    ///
    /// [`ErrorKind::Unauthenticated`]: crate::ErrorKind::Unauthenticated
    async fn swarm_unlock(&self, key: &str) -> Result<(), Error>;

    /// Loads an archive. The stream reports progress; an error in it is the end of it.
    async fn image_load(
        &self,
        archive: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<BoxStream<'static, Result<LoadEvent, Error>>, Error>;

    /// Makes an image of a root file system in a tar; returns its id.
    async fn image_import(
        &self,
        archive: BoxStream<'static, io::Result<Bytes>>,
        import: Import,
    ) -> Result<String, Error>;

    /// Images as an archive. One that is not there is an error at once; what goes wrong later breaks the stream off.
    async fn image_save(&self, names: Vec<String>) -> Result<BoxStream<'static, io::Result<Bytes>>, Error>;

    /// Pulls an image from its registry. The stream reports progress; an error in it is the end of it. A client that hangs up ends the pull,
    /// unless somebody else wants the same.
    async fn image_pull(&self, pull: Pull) -> Result<BoxStream<'static, Result<PullEvent, Error>>, Error>;

    /// Removes images that are of no use.
    async fn image_prune(&self, prune: Prune) -> Result<Pruned, Error>;

    /// What a reference means to its registry now.
    async fn distribution(&self, reference: &ImageRef, auth: Option<RegistryAuth>) -> Result<Distribution, Error>;

    /// Tries credentials at a registry. Wrong ones are [`ErrorKind::Unauthenticated`].
    ///
    /// [`ErrorKind::Unauthenticated`]: crate::ErrorKind::Unauthenticated
    async fn registry_login(&self, registry: &str, auth: RegistryAuth) -> Result<(), Error>;

    /// The images of this node.
    async fn images(&self) -> Result<Vec<ImageInfo>, Error>;

    /// One image, by reference, id or unique id prefix (with or without `sha256:`).
    /// Not there: "No such image: …".
    async fn image(&self, name: &str) -> Result<ImageInfo, Error>;

    /// Removes a reference, and the image when it was the last one.
    async fn image_remove(&self, name: &str, removal: image::Removal) -> Result<Vec<Removed>, Error>;

    /// Gives an image another reference.
    async fn image_tag(&self, name: &str, target: ImageRef) -> Result<(), Error>;

    /// The volumes of this node, by name.
    async fn volumes(&self, sizes: Sizes) -> Result<Vec<VolumeInfo>, Error>;

    /// One volume. Not there: [`ErrorKind::NotFound`].
    ///
    /// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
    async fn volume(&self, name: &str) -> Result<VolumeInfo, Error>;

    /// Makes a volume. One that is there already is returned as it is; with other options it is [`ErrorKind::Conflict`].
    ///
    /// [`ErrorKind::Conflict`]: crate::ErrorKind::Conflict
    async fn volume_create(&self, new: NewVolume) -> Result<VolumeInfo, Error>;

    /// Removes a volume. One that a container has, an ended one too, is [`ErrorKind::Conflict`].
    ///
    /// [`ErrorKind::Conflict`]: crate::ErrorKind::Conflict
    async fn volume_remove(&self, name: &str) -> Result<(), Error>;

    /// The containers of this node's tasks, running or not.
    async fn containers(&self) -> Result<Vec<ContainerInfo>, Error>;

    /// Removes a container of this node by its whole id; one that runs is killed. Its task has failed then, and is replaced.
    async fn container_remove(&self, id: &str) -> Result<(), Error>;

    /// The output of one container of this node.
    async fn container_logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error>;

    /// The swarm's networks as this node has been told of them, also on workers. None in no swarm.
    async fn known_networks(&self) -> Vec<Arc<Network>>;

    /// Sends a signal, by name or number, to the first process of a container of this node, by the container's whole id.
    async fn container_signal(&self, id: &str, signal: &str) -> Result<(), Error>;

    /// Stops a container of this node as its task would be: no new connections, its signal, its grace period or `grace`, and then it is
    /// killed. Returns when it has ended.
    async fn container_stop(&self, id: &str, grace: Option<Duration>) -> Result<(), Error>;

    /// Waits for the end of a container of this node: its exit code, `None` when nobody saw it.
    async fn container_wait(&self, id: &str) -> Result<Option<i32>, Error>;

    /// What a container of this node uses now; `None` when it does not run. Not there: [`ErrorKind::NotFound`].
    ///
    /// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
    async fn container_usage(&self, id: &str) -> Result<Option<ContainerUsage>, Error>;

    /// The processes of a container of this node that runs.
    async fn container_processes(&self, id: &str) -> Result<Vec<ContainerProcess>, Error>;

    /// Runs a further program in a container of this node, by the container's whole id. A program that cannot be executed is
    /// [`ErrorKind::InvalidArgument`] with the reason.
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::ErrorKind::InvalidArgument
    async fn exec(&self, container: &str, spec: ExecSpec) -> Result<ExecSession, Error>;

    /// What changes in the swarm, as this manager hears of it, for as long as the daemon runs: nothing while the node is no
    /// manager. And what happens to containers and volumes of this node. Called once, by the server.
    fn changes(&self) -> BoxStream<'static, SwarmChange>;

    // ---- the swarm: managers only ----

    /// Whether this node is the manager that leads, as far as it knows itself.
    fn leads(&self) -> bool;

    /// Where requests that concern the swarm are answered. Waits for a moment when nobody leads; then [`Error::no_leader`]. Here it is when
    /// this manager is sure that it leads still.
    async fn leader(&self) -> Result<Leader, Error>;

    /// The swarm as this manager knows it, consistent in itself, at least as new as the last write made through this
    /// backend.
    async fn cluster(&self) -> Result<Arc<ClusterView>, Error>;

    /// Changes the swarm's spec, its join tokens, or both; begins to replace its root certificate. A root that is given and cannot be used:
    /// [`ErrorKind::InvalidArgument`].
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::ErrorKind::InvalidArgument
    async fn update_cluster(&self, version: Version, spec: ClusterSpec, rotate: Rotate) -> Result<(), Error>;

    /// Creates a service. The spec is well-formed; conflicts with other services are the backend's to find.
    async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, Error>;

    /// Replaces a service's spec. A version that is not the current one: [`Error::out_of_sequence`].
    async fn update_service(&self, id: &ServiceId, version: Version, spec: ServiceSpec) -> Result<(), Error>;

    /// Goes back to the spec before. None there: [`ErrorKind::FailedPrecondition`].
    ///
    /// [`ErrorKind::FailedPrecondition`]: crate::ErrorKind::FailedPrecondition
    async fn rollback_service(&self, id: &ServiceId, version: Version) -> Result<(), Error>;

    /// Removes a service and its tasks.
    async fn remove_service(&self, id: &ServiceId) -> Result<(), Error>;

    /// Creates a network. The request is well-formed; whether its name and its addresses can be had is the backend's to find.
    async fn create_network(&self, new: NewNetwork) -> Result<NetworkId, Error>;

    /// Removes a network that nobody needs. In use: [`ErrorKind::FailedPrecondition`] with "in use by".
    ///
    /// [`ErrorKind::FailedPrecondition`]: crate::ErrorKind::FailedPrecondition
    async fn remove_network(&self, id: &NetworkId) -> Result<(), Error>;

    /// Keeps a secret. What is wrong with its name or size is the backend's to find.
    async fn create_secret(&self, spec: DataSpec) -> Result<SecretId, Error>;

    /// Replaces a secret's labels; nothing else of it changes.
    async fn update_secret(&self, id: &SecretId, version: Version, spec: DataSpec) -> Result<(), Error>;

    /// Removes a secret that no service uses.
    async fn remove_secret(&self, id: &SecretId) -> Result<(), Error>;

    /// Keeps a config.
    async fn create_config(&self, spec: DataSpec) -> Result<ConfigId, Error>;

    /// Replaces a config's labels; nothing else of it changes.
    async fn update_config(&self, id: &ConfigId, version: Version, spec: DataSpec) -> Result<(), Error>;

    /// Removes a config that no service uses.
    async fn remove_config(&self, id: &ConfigId) -> Result<(), Error>;

    /// Replaces a node's spec; another role promotes or demotes it. The last manager is not demoted ("attempting to demote the last manager of
    /// the swarm").
    async fn update_node(&self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), Error>;

    /// Removes a node. One that is not down needs [`cluster::NodeRemoval::Force`]; a manager is never removed.
    async fn remove_node(&self, id: &NodeId, removal: cluster::NodeRemoval) -> Result<(), Error>;

    /// The output of tasks, wherever they run, in the order in which it arrives.
    async fn task_logs(
        &self,
        source: LogSource,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error>;
}
