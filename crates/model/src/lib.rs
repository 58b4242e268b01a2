//! What exists in a swarm: identifiers, nodes, services, tasks, networks, and the rules that their values obey.
//!
//! Every other crate speaks in these types. They are plain data: no I/O, no clock, no runtime. A value that
//! reaches this crate from a person is checked where it is made ([`ImageRef`], [`ServiceName`], [`Constraint`]), so that
//! the rest of the house need not check again.
//!
//! Two rules of the domain live here as code rather than as advice:
//! * a task's observed state only moves forward ([`TaskState`] is ordered, [`Task::observe`] refuses to go back);
//! * a task's spec never changes: a changed service makes new tasks ([`Service::task_version`] says which are current).

#![forbid(unsafe_code)]

mod cluster;
mod constraint;
mod container;
mod data;
mod endpoint;
pub mod generic;
mod gossip;
mod health;
mod id;
mod image;
mod labels;
mod meta;
mod name;
mod network;
mod node;
mod port;
mod prefix;
mod publish;
mod registry;
pub mod seen;
mod service;
mod task;
pub mod usage;
mod volume;

pub use cluster::{
    Authority, CertificateSpec, Cluster, ClusterSpec, Dispatcher, JoinSecrets, PrivateKey, Rotation, RotationStage,
    Trust, UnlockSecret,
};
pub use constraint::{BadConstraint, Constraint, Operator};
pub use container::{
    ContainerSpec, Dns, Mount, MountKind, ResourceLimits, ResourceReservations, Resources, TmpfsOptions, Ulimit,
};
pub use data::{BadDataName, Config, Data, DataName, DataSpec, FileReference, Secret, Templating};
pub use endpoint::{EndpointKey, EndpointRecord, EndpointState, Member, OwnerTable, ServiceEntry};
pub use generic::{BadGenericResource, GenericResource, GenericResources};
pub use gossip::{GossipKey, GossipKeys};
pub use health::{Health, HealthCheck, HealthConfig, HealthResult, HealthState, HealthTest};
pub use id::{BadId, ClusterId, ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
pub use image::{BadImageRef, ImageRef};
pub use labels::{BadLabel, publish_options};
pub use meta::{Meta, Timestamp, Version};
pub use name::{BadName, ServiceName};
pub use network::{
    IpamConfig, Ipv6Subnet, Network, NetworkAttachment, NetworkSpec, NewNetwork, OptionError, ServiceNetwork,
    VirtualIp, mtu as network_mtu,
};
pub use node::{
    Availability, EngineDescription, ManagerStatus, Node, NodeDescription, NodeResources, NodeSpec, NodeState,
    NodeStatus, NodeTls, Platform, PortConflict, Reachability, Role,
};
pub use port::{PortConfig, Protocol, PublishMode, PublishedPort, UnknownProtocol};
pub use prefix::{Prefix6, mesh_ipv6};
pub use publish::{Balance, ListenOn, PortOptions, PublishOptions};
pub use registry::RegistryAuth;
pub use service::{
    Endpoint, EndpointMode, EndpointSpec, FailureAction, Service, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
    UpdateState, UpdateStatus,
};
pub use task::{
    ContainerStatus, Placement, RestartCondition, RestartPolicy, SpreadOver, StateWentBack, Task, TaskSpec, TaskState,
    TaskStatus,
};
pub use volume::{BadVolume, LOCAL_DRIVER, LocalVolume, VolumeDriver, VolumeOptions, check_volume_name};
