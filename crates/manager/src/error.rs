//! Why the managers refuse.

use ipnet::IpNet;
use skep_ca::CaError;
use skep_model::{NetworkId, NodeId, ServiceId, TaskId};
use skep_store::{ProposeError, UpdateError};
use skep_template::TemplateError;

use crate::allocator::{EndpointError, SubnetError};
use crate::control::SpecError;

/// Why an operation on the swarm was refused. The sentences are for people; [`ControlError::kind`] is for programs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ControlError {
    /// Nothing of that name or id.
    #[error("{what} {id} not found")]
    NotFound {
        /// `service`, `node`, `task`.
        what: &'static str,
        /// What was looked for.
        id: String,
    },
    /// The object has changed since it was read.
    #[error("update out of sequence")]
    OutOfSequence,
    /// There is a service of that name.
    #[error("name conflicts with an existing object: service {0} already exists")]
    NameTaken(String),
    /// There is a secret or config of that name.
    #[error("{what} {name} already exists")]
    DataNameTaken {
        /// `secret` or `config`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A secret or config is empty or too large.
    #[error("{what} data must be larger than 0 and less than {limit} bytes")]
    DataSize {
        /// `secret` or `config`.
        what: &'static str,
        /// What it must stay below.
        limit: usize,
    },
    /// Secrets and configs stay what they are.
    #[error("only updates to Labels are allowed: create another one, and give the service that instead")]
    OnlyLabels,
    /// A secret or config stays as long as a service uses it.
    #[error("{what} '{name}' is in use by the following {services}: {users}", services = if users.contains(',') { "services" } else { "service" })]
    DataInUse {
        /// `secret` or `config`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names of the services.
        users: String,
    },
    /// A service asks for a secret or config that is not there.
    #[error("{what} not found: {name}")]
    NoSuchData {
        /// `secret` or `config`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A service asks for two files at one place.
    #[error("{what} '{name}' has a conflicting target: something else is to be at {path} too")]
    DataTarget {
        /// `secret` or `config`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The file.
        path: String,
    },
    /// There is a network of that name.
    #[error("network with name {0} already exists")]
    NetworkNameTaken(String),
    /// There is one routing mesh, on one network.
    #[error("ingress network ({0}) is already present")]
    IngressPresent(NetworkId),
    /// Published ports are reached through it.
    #[error("ingress network cannot be removed because service {0} depends on it")]
    IngressInUse(ServiceId),
    /// A service is on it. The beginning of the sentence is Docker's.
    #[error(
        "network {network} is in use by service {service} ({name}): remove the service, or take it off the network with docker service update --network-rm"
    )]
    NetworkInUse {
        /// The network.
        network: NetworkId,
        /// The service.
        service: ServiceId,
        /// Its name.
        name: String,
    },
    /// A task is on it whose service is not any more. The beginning of the sentence is Docker's.
    #[error("network {network} is in use by task {task} ({name}): wait until the update of its service is through")]
    NetworkInUseByTask {
        /// The network.
        network: NetworkId,
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
    },
    /// A service keeps its name.
    #[error("renaming services is not supported")]
    Rename,
    /// A service keeps its mode.
    #[error("service mode change is not allowed")]
    ModeChange,
    /// The spec makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The content of a secret or config is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A port or an address cannot be had.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The service has never been updated.
    #[error("service {0} does not have a previous spec")]
    NoPreviousSpec(ServiceId),
    /// A manager cannot be removed.
    #[error(
        "node {0} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
    )]
    IsManager(NodeId),
    /// Only a node that is down is removed without force.
    #[error("node {0} is not down and can't be removed")]
    NotDown(NodeId),
    /// The last manager stays one.
    #[error("attempting to demote the last manager of the swarm")]
    LastManager,
    /// Without that manager too few would answer to agree on anything.
    #[error(
        "node {0} cannot be demoted now: without it fewer than half of the managers would answer, and nothing could be changed any more; bring back the managers that do not answer, or demote those first"
    )]
    LosesQuorum(NodeId),
    /// No addresses for the swarm's own network.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// A joining node's routes lead elsewhere.
    #[error(
        "the swarm's network {network} ({subnet}) collides with the route to {route} that this node has: {way_out}, or change the route"
    )]
    RouteCollision {
        /// The network's name.
        network: String,
        /// Its addresses.
        subnet: IpNet,
        /// The node's route.
        route: IpNet,
        /// What can be done about the network.
        way_out: &'static str,
    },
    /// What a joining node says of itself cannot be used.
    #[error("{0}")]
    BadJoin(&'static str),
    /// A signing request that is none, or a root certificate that cannot be used.
    #[error(transparent)]
    Certificates(#[from] CaError),
    /// `swarm init` has not happened, or was not read back yet.
    #[error("this manager has no swarm yet: it is being prepared, or has trouble connecting to the cluster")]
    NoCluster,
    /// The managers do not agree on anything at present.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// What kind of refusal: the names are those of gRPC's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense, whatever the state of the swarm.
    InvalidArgument,
    /// Nothing of that name or id.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Not in the present state of the swarm.
    FailedPrecondition,
    /// Never.
    Unimplemented,
    /// Read again and try again.
    OutOfSequence,
    /// The swarm has no leader.
    NoLeader,
    /// The manager has failed.
    Internal,
}

impl ControlError {
    /// What kind of refusal it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Endpoint(EndpointError::NoNetwork(_)) => ErrorKind::NotFound,
            Self::OutOfSequence | Self::Propose(ProposeError::Outdated(_)) => ErrorKind::OutOfSequence,
            Self::NameTaken(_) | Self::NetworkNameTaken(_) | Self::IngressPresent(_) | Self::DataNameTaken { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::DataSize { .. }
            | Self::OnlyLabels
            | Self::DataInUse { .. }
            | Self::NoSuchData { .. }
            | Self::DataTarget { .. } => ErrorKind::InvalidArgument,
            Self::Rename | Self::ModeChange => ErrorKind::Unimplemented,
            Self::Certificates(CaError::Request(_) | CaError::Root(_)) => ErrorKind::InvalidArgument,
            Self::Certificates(CaError::RootInUse) => ErrorKind::FailedPrecondition,
            Self::Certificates(_) => ErrorKind::Internal,
            Self::Spec(_)
            | Self::Template(_)
            | Self::Endpoint(EndpointError::Port(_))
            | Self::Subnet(_)
            | Self::BadJoin(_) => ErrorKind::InvalidArgument,
            Self::Endpoint(EndpointError::Address(_) | EndpointError::NoIngress)
            | Self::NoPreviousSpec(_)
            | Self::NetworkInUse { .. }
            | Self::NetworkInUseByTask { .. }
            | Self::IngressInUse(_)
            | Self::IsManager(_)
            | Self::NotDown(_)
            | Self::LastManager
            | Self::LosesQuorum(_)
            | Self::RouteCollision { .. }
            | Self::NoCluster => ErrorKind::FailedPrecondition,
            Self::Propose(ProposeError::NoLeader) => ErrorKind::NoLeader,
            Self::Propose(ProposeError::Unknown | ProposeError::Fatal(_)) => ErrorKind::Internal,
        }
    }
}

impl From<UpdateError<ControlError>> for ControlError {
    fn from(error: UpdateError<ControlError>) -> Self {
        match error {
            UpdateError::Refused(error) => error,
            UpdateError::Propose(error) => error.into(),
        }
    }
}
