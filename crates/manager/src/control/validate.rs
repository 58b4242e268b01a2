//! Specs that make no sense are refused before they are stored.

use std::collections::BTreeSet;

use skep_model::{
    BadConstraint, BadLabel, BadName, BadVolume, Constraint, ContainerSpec, Endpoint, EndpointMode, ImageRef,
    MountKind, Network, PublishMode, ServiceName, ServiceSpec, UpdateConfig, VolumeDriver, check_volume_name,
    publish_options,
};
use skep_store::Tables;
use skep_template::TemplateError;

/// The least memory that a container can live on, in bytes.
const LEAST_MEMORY: u64 = 4 << 20;

/// What is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is nothing to run.
    #[error("ContainerSpec: image reference must be provided")]
    NoImage,
    /// The image's name is none.
    #[error("ContainerSpec: {0:?} is not a valid repository/tag")]
    BadImage(String),
    /// Two mounts at the same place.
    #[error("ContainerSpec: duplicate mount point: {0}")]
    DuplicateMount(String),
    /// A mount that is not at an absolute path.
    #[error("ContainerSpec: invalid mount target {0:?}: it must be an absolute path")]
    MountTarget(String),
    /// A bind mount of a relative path.
    #[error("ContainerSpec: invalid bind mount source {0:?}: it must be an absolute path")]
    BindSource(String),
    /// A template that its tasks could not fill in.
    #[error("ContainerSpec.{0}")]
    Template(#[from] TemplateError),
    /// A volume that cannot be.
    #[error("ContainerSpec.Mounts: {0}")]
    Volume(#[from] BadVolume),
    /// A constraint cannot be read.
    #[error(transparent)]
    Constraint(#[from] BadConstraint),
    /// Less memory than a container can live on.
    #[error("invalid memory value {0}: Must be at least 4MiB")]
    LittleMemory(u64),
    /// More set aside than allowed to be used.
    #[error("invalid resources: the reservation of {what} is larger than its limit")]
    ReservationAboveLimit {
        /// `CPU` or `memory`.
        what: &'static str,
    },
    /// No share of all tasks.
    #[error("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")]
    FailureRatio,
    /// The mesh needs a virtual address.
    #[error("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")]
    IngressWithoutVip,
    /// Ports are published on it; nothing else is done there.
    #[error("Service cannot be explicitly attached to the ingress network {0:?}: publish a port instead")]
    Ingress(String),
    /// One network, twice.
    #[error("TaskTemplate.Networks: network {0} is listed twice: name it once, with all aliases")]
    NetworkTwice(String),
    /// A name that nobody could ask for.
    #[error(
        "TaskTemplate.Networks: the alias {0:?} is no name: write letters, digits, '-' and '_', with dots between parts"
    )]
    Alias(String),
    /// A network's name is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A label that begins with `skep.` is wrong.
    #[error(transparent)]
    Label(#[from] BadLabel),
    /// Nodes are lost sooner than they can report.
    #[error("invalid dispatcher heartbeat: it must be at least 1 second")]
    Heartbeat,
    /// Certificates that would be renewed all the time, or outlive every root.
    #[error("invalid certificate expiry: minimum certificate expiry time is 1h0m0s, and the longest is 20 years")]
    CertificateExpiry,
    /// The swarm's name is fixed.
    #[error("swarm spec must be named \"default\"")]
    ClusterName,
}

/// Checks what can be checked without knowing the swarm.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), SpecError> {
    container(&skep_template::check(spec)?)?;
    for constraint in &spec.task.placement.constraints {
        constraint.parse::<Constraint>()?;
    }
    resources(spec)?;
    spec.update.iter().chain(&spec.rollback).try_for_each(update)?;
    let dnsrr = spec.endpoint.as_ref().and_then(|e| e.mode) == Some(EndpointMode::Dnsrr);
    if dnsrr && spec.ports().iter().any(|port| port.mode == PublishMode::Ingress) {
        return Err(SpecError::IngressWithoutVip);
    }
    Ok(())
}

/// Checks the networks that a service is to be on. One that is not there is left to the allocator.
pub(super) fn networks(tables: &Tables, spec: &ServiceSpec) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    for (id, aliases) in &spec.task.networks {
        let network = tables.get::<Network>(id);
        let name = || network.map_or_else(|| id.to_string(), |network| network.spec.name.clone());
        if network.is_some_and(|network| network.spec.ingress) {
            return Err(SpecError::Ingress(name()));
        }
        if !seen.insert(id) {
            return Err(SpecError::NetworkTwice(name()));
        }
        if let Some(bad) = aliases.iter().find(|alias| !is_name(alias)) {
            return Err(SpecError::Alias(bad.clone()));
        }
    }
    Ok(())
}

/// Whether it can be asked for in DNS: labels with dots between them, 253 characters at most (RFC 1035, 2.3.4).
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| label.parse::<ServiceName>().is_ok())
}

/// Checks the labels that are options of the service's ports, once it is known which ports it has.
pub(super) fn labels(spec: &ServiceSpec, endpoint: &Endpoint) -> Result<(), SpecError> {
    publish_options(&spec.labels, &endpoint.ports)?;
    Ok(())
}

fn container(spec: &ContainerSpec) -> Result<(), SpecError> {
    if spec.image.is_empty() {
        return Err(SpecError::NoImage);
    }
    if spec.image.parse::<ImageRef>().is_err() {
        return Err(SpecError::BadImage(spec.image.clone()));
    }
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        if !mount.target.starts_with('/') {
            return Err(SpecError::MountTarget(mount.target.clone()));
        }
        if let MountKind::Bind { source, .. } = &mount.kind
            && !source.starts_with('/')
        {
            return Err(SpecError::BindSource(source.clone()));
        }
        if let MountKind::Volume { source, options } = &mount.kind {
            source.iter().try_for_each(|name| check_volume_name(name))?;
            options.driver.iter().try_for_each(VolumeDriver::check)?;
        }
        if !targets.insert(&mount.target) {
            return Err(SpecError::DuplicateMount(mount.target.clone()));
        }
    }
    Ok(())
}

fn resources(spec: &ServiceSpec) -> Result<(), SpecError> {
    let (limits, reserved) = (spec.task.resources.limits, &spec.task.resources.reservations);
    for memory in [limits.memory, reserved.memory] {
        if memory > 0 && memory < LEAST_MEMORY {
            return Err(SpecError::LittleMemory(memory));
        }
    }
    let above = |limit: u64, reserved: u64| limit > 0 && reserved > limit;
    if above(limits.memory, reserved.memory) {
        return Err(SpecError::ReservationAboveLimit { what: "memory" });
    }
    if above(limits.nano_cpus, reserved.nano_cpus) {
        return Err(SpecError::ReservationAboveLimit { what: "CPU" });
    }
    Ok(())
}

fn update(config: &UpdateConfig) -> Result<(), SpecError> {
    if (0.0..=1.0).contains(&config.max_failure_ratio) { Ok(()) } else { Err(SpecError::FailureRatio) }
}
