//! Services.

use skep_model::{
    ContainerSpec, RestartPolicy, Service, ServiceMode, ServiceSpec, Task, TaskSpec, TaskState, UpdateConfig,
};

use super::attached::{self, Networks};
use super::{bound, endpoint, nanoseconds, task_spec, unsupported, update};
use crate::error::Error;
use crate::types::meta::ObjectVersion;
use crate::types::service as wire;

/// Whether an answer shows what was stored, or what it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// What was stored.
    Omit,
    /// Docker's defaults in the place of what nobody said.
    Insert,
}

/// Reads a service's spec. `networks` are those that there are.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for what makes no sense and
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for what skep cannot do, naming the field.
pub fn spec_from_wire(spec: &wire::ServiceSpec, networks: &Networks) -> Result<ServiceSpec, Error> {
    let name = spec.name.parse().map_err(|e: skep_model::BadName| Error::invalid(e.to_string()))?;
    // Where old clients put them counts when they are nowhere else.
    let template = &spec.task_template.networks;
    let attached = if template.is_empty() { &spec.networks } else { template };
    let task =
        TaskSpec { networks: attached::from_wire(attached, networks)?, ..task_spec::from_wire(&spec.task_template)? };
    let config = |direction, config: Option<&wire::UpdateConfig>| {
        config.map(|c| update::config_from_wire(direction, c)).transpose()
    };
    Ok(ServiceSpec {
        name,
        labels: bound::labels(spec)?,
        task,
        mode: mode_from_wire(&spec.mode)?,
        update: config(update::Direction::Update, spec.update_config.as_ref())?,
        rollback: config(update::Direction::Rollback, spec.rollback_config.as_ref())?,
        endpoint: spec.endpoint_spec.as_ref().map(endpoint::spec_from_wire).transpose()?,
    })
}

fn mode_from_wire(mode: &wire::ServiceMode) -> Result<ServiceMode, Error> {
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        return Err(unsupported("Mode", "this version of skep has no jobs yet; use Replicated or Global"));
    }
    match (&mode.replicated, &mode.global) {
        (Some(_), Some(_)) => Err(Error::invalid("Mode: must specify only one service mode")),
        (None, Some(_)) => Ok(ServiceMode::Global),
        (replicated, None) => {
            let replicas = replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
            Ok(ServiceMode::Replicated { replicas })
        }
    }
}

/// Refuses what an update cannot change.
///
/// # Errors
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for another name or another mode.
pub fn check_update(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Error> {
    if old.name != new.name {
        return Err(Error::unimplemented("renaming services is not supported"));
    }
    if std::mem::discriminant(&old.mode) != std::mem::discriminant(&new.mode) {
        return Err(Error::unimplemented("service mode change is not allowed"));
    }
    Ok(())
}

/// Writes a service's spec.
#[must_use]
pub fn spec_to_wire(spec: &ServiceSpec, defaults: Defaults) -> wire::ServiceSpec {
    let mut task_template = task_spec::to_wire(&spec.task);
    task_template.runtime = "container".to_owned();
    let mut wire = wire::ServiceSpec {
        name: spec.name.to_string(),
        labels: spec.labels.clone(),
        task_template,
        mode: mode_to_wire(spec.mode),
        update_config: spec.update.as_ref().map(update::config_to_wire),
        rollback_config: spec.rollback.as_ref().map(update::config_to_wire),
        networks: Vec::new(),
        endpoint_spec: spec.endpoint.as_ref().map(endpoint::spec_to_wire),
    };
    if defaults == Defaults::Insert {
        insert_defaults(&mut wire);
    }
    wire
}

fn insert_defaults(spec: &mut wire::ServiceSpec) {
    let rolling = || update::config_to_wire(&UpdateConfig::default());
    let config = |given: &mut Option<wire::UpdateConfig>| {
        let config = given.get_or_insert_with(rolling);
        if config.monitor == 0 {
            config.monitor = nanoseconds(UpdateConfig::DEFAULT_MONITOR);
        }
    };
    config(&mut spec.update_config);
    config(&mut spec.rollback_config);
    let restart =
        spec.task_template.restart_policy.get_or_insert_with(|| update::restart_to_wire(&RestartPolicy::default()));
    restart.delay.get_or_insert(nanoseconds(RestartPolicy::DEFAULT_DELAY));
    if let Some(container) = &mut spec.task_template.container_spec {
        container.stop_grace_period.get_or_insert(nanoseconds(ContainerSpec::DEFAULT_STOP_GRACE_PERIOD));
    }
}

fn mode_to_wire(mode: ServiceMode) -> wire::ServiceMode {
    match mode {
        ServiceMode::Replicated { replicas } => wire::ServiceMode {
            replicated: Some(wire::Replicated { replicas: Some(replicas) }),
            ..wire::ServiceMode::default()
        },
        ServiceMode::Global => wire::ServiceMode { global: Some(wire::Empty {}), ..wire::ServiceMode::default() },
    }
}

/// Writes a service.
#[must_use]
pub fn to_wire(service: &Service, defaults: Defaults) -> wire::Service {
    wire::Service {
        id: service.id.to_string(),
        version: ObjectVersion { index: service.meta.version.0 },
        created_at: service.meta.created.into(),
        updated_at: service.meta.updated.into(),
        spec: spec_to_wire(&service.spec, defaults),
        previous_spec: service.previous_spec.as_ref().map(|s| Box::new(spec_to_wire(s, defaults))),
        endpoint: endpoint::endpoint_to_wire(&service.endpoint),
        update_status: service.update_status.as_ref().map(update::status_to_wire),
        service_status: None,
        job_status: None,
    }
}

/// Counts a service's tasks, as `service ls` shows them. A task that is to stop, or whose node is lost, does not count although
/// its last report may say that it runs.
pub fn status<'a>(service: &Service, tasks: impl Iterator<Item = &'a Task>) -> wire::ServiceStatus {
    let (mut running, mut wanted) = (0, 0);
    for task in tasks {
        let to_run = task.desired <= TaskState::Running;
        running += u64::from(to_run && task.status.state == TaskState::Running);
        wanted += u64::from(to_run);
    }
    let desired_tasks = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => wanted,
    };
    wire::ServiceStatus { running_tasks: running, desired_tasks, completed_tasks: 0 }
}
