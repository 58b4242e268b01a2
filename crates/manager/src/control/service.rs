//! Services.

use std::sync::Arc;

use skep_model::{
    Endpoint, Meta, Service, ServiceId, ServiceMode, ServiceSpec, Timestamp, UpdateState, UpdateStatus, Version,
};
use skep_store::{Change, Key, Tables};

use super::{Control, cluster, data, in_sequence, validate};
use crate::allocator::{Pools, moves_to_ingress};
use crate::orchestrator::{changes_tasks, roll_back};
use crate::{ControlError, allocator};

impl Control {
    /// Creates a service. It answers on its ports from then on; its tasks follow.
    ///
    /// # Errors
    /// When the spec makes no sense, the name or a port is taken, or it cannot be written.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, ControlError> {
        self.write(|tables| create(tables, spec, Timestamp::now())).await
    }

    /// Replaces a service's spec. `version` is that of the service as the caller has seen it.
    ///
    /// # Errors
    /// When the service is not there or has changed since, the spec makes no sense, changes name or mode, or asks for a port that
    /// is taken; or when it cannot be written.
    pub async fn update_service(
        &self,
        id: &ServiceId,
        version: Version,
        spec: ServiceSpec,
    ) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), update(tables, id, version, spec, Timestamp::now())?))).await
    }

    /// Goes back to the spec before the last update. `version` is that of the service as the caller has seen it.
    ///
    /// # Errors
    /// When the service is not there, has changed since, or was never updated; when one of its old ports is taken by now, or one of its
    /// old networks gone; or when it cannot be written.
    pub async fn rollback_service(&self, id: &ServiceId, version: Version) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), rollback(tables, id, version, Timestamp::now())?))).await
    }

    /// Removes a service. Its tasks are told to stop and are forgotten once they have.
    ///
    /// # Errors
    /// When the service is not there, or when it cannot be written.
    pub async fn remove_service(&self, id: &ServiceId) -> Result<(), ControlError> {
        self.write(|tables| {
            find(tables, id)?;
            Ok(((), vec![Change::Delete(Key::Service(id.clone()))]))
        })
        .await
    }
}

fn find<'a>(tables: &'a Tables, id: &ServiceId) -> Result<&'a Arc<Service>, ControlError> {
    tables.get::<Service>(id).ok_or_else(|| ControlError::NotFound { what: "service", id: id.to_string() })
}

pub(crate) fn create(
    tables: &Tables,
    spec: ServiceSpec,
    now: Timestamp,
) -> Result<(ServiceId, Vec<Change>), ControlError> {
    cluster(tables)?;
    validate::service(&spec)?;
    data::check(tables, &spec)?;
    if tables.service_named(spec.name.as_str()).is_some() {
        return Err(ControlError::NameTaken(spec.name.to_string()));
    }
    validate::networks(tables, &spec)?;
    let mut pools = Pools::new(tables);
    let endpoint: Endpoint = allocator::endpoint(tables, &mut pools, None, &spec)?;
    validate::labels(&spec, &endpoint)?;
    let service = Service {
        id: ServiceId::random(),
        meta: Meta::new(now),
        spec,
        previous_spec: None,
        task_version: tables.version().next(),
        endpoint,
        update_status: None,
    };
    Ok((service.id.clone(), with_pools(service, pools)))
}

pub(crate) fn update(
    tables: &Tables,
    id: &ServiceId,
    version: Version,
    spec: ServiceSpec,
    now: Timestamp,
) -> Result<Vec<Change>, ControlError> {
    let before = find(tables, id)?;
    in_sequence(version, &before.meta)?;
    validate::service(&spec)?;
    data::check(tables, &spec)?;
    if spec.name != before.spec.name {
        return Err(ControlError::Rename);
    }
    if same_mode(before.spec.mode, spec.mode).is_none() {
        return Err(ControlError::ModeChange);
    }
    validate::networks(tables, &spec)?;
    let mut service = Service::clone(before);
    let mut pools = Pools::new(tables);
    service.endpoint = allocator::endpoint(tables, &mut pools, Some(before), &spec)?;
    validate::labels(&spec, &service.endpoint)?;
    let replaces = changes_tasks(&before.spec, &spec) || moves_to_ingress(tables, &service);
    if replaces {
        service.task_version = tables.version().next();
    }
    service.update_status = update_status(before, replaces, now);
    service.previous_spec = Some(Box::new(before.spec.clone()));
    service.spec = spec;
    Ok(with_pools(service, pools))
}

/// The service, and the networks that gave it addresses.
fn with_pools(service: Service, pools: Pools<'_>) -> Vec<Change> {
    std::iter::once(service.into()).chain(pools.into_changed().map(Change::from)).collect()
}

fn same_mode(before: ServiceMode, after: ServiceMode) -> Option<()> {
    match (before, after) {
        (ServiceMode::Replicated { .. }, ServiceMode::Replicated { .. })
        | (ServiceMode::Global, ServiceMode::Global) => Some(()),
        _ => None,
    }
}

/// An update that replaces tasks begins; one that does not leaves one under way alone, and a paused one goes on.
fn update_status(before: &Service, replaces: bool, now: Timestamp) -> Option<UpdateStatus> {
    let under_way = before.update_status.as_ref().map(|status| status.state);
    let goes_on = matches!(
        under_way,
        Some(UpdateState::Updating | UpdateState::Paused | UpdateState::RollbackStarted | UpdateState::RollbackPaused)
    );
    (replaces || goes_on).then(|| UpdateStatus {
        state: UpdateState::Updating,
        started: now,
        completed: None,
        message: "update in progress".to_owned(),
    })
}

pub(crate) fn rollback(
    tables: &Tables,
    id: &ServiceId,
    version: Version,
    now: Timestamp,
) -> Result<Vec<Change>, ControlError> {
    let before = find(tables, id)?;
    in_sequence(version, &before.meta)?;
    let back = roll_back(before, tables.version().next(), now, "manually requested rollback");
    let mut back = back.ok_or_else(|| ControlError::NoPreviousSpec(id.clone()))?;
    data::check(tables, &back.spec)?;
    let mut pools = Pools::new(tables);
    back.endpoint = allocator::endpoint(tables, &mut pools, Some(before), &back.spec)?;
    validate::labels(&back.spec, &back.endpoint)?;
    if moves_to_ingress(tables, &back) {
        back.task_version = tables.version().next();
    }
    Ok(with_pools(back, pools))
}
