//! Rolling updates and rollbacks: replaces tasks of an older spec, a few at a time, and watches the new ones.

use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    FailureAction, Service, ServiceSpec, Task, TaskSpec, TaskState, Timestamp, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus, Version,
};

use super::slot::{Slot, SlotKey, Slots, is_outdated};
use crate::allocator::{self, EndpointError};
use crate::draft::{Draft, after, earlier};

/// Whether tasks must be replaced when a service goes from one spec to the other. What lets nodes in at a registry is no matter for those that run.
pub(crate) fn changes_tasks(before: &ServiceSpec, after: &ServiceSpec) -> bool {
    let runs = |spec: &ServiceSpec| TaskSpec { registry_auth: None, ..spec.task.clone() };
    runs(before) != runs(after) || !before.host_ports().eq(after.host_ports())
}

/// The service with its previous spec, and with tasks that are to be replaced from `version` on. Its endpoint is left to the caller.
/// `None` when it has no previous spec.
pub(crate) fn roll_back(service: &Service, version: Version, now: Timestamp, message: &str) -> Option<Service> {
    let previous = service.previous_spec.as_deref()?;
    let mut back = service.clone();
    if changes_tasks(&service.spec, previous) {
        back.task_version = version;
    }
    back.previous_spec = Some(Box::new(service.spec.clone()));
    back.spec = previous.clone();
    back.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started: now,
        completed: None,
        message: message.to_owned(),
    });
    Some(back)
}

/// One step of the update under way, if there is one. Returns when to look again, should nothing happen before.
pub(super) fn supervise(draft: &mut Draft<'_>, service: &Service, slots: &mut Slots) -> Option<Timestamp> {
    let direction = Direction::of(service)?;
    let config = direction.config(service);
    if let Some(task) = too_many_failures(service, slots, &config) {
        fail(draft, service, direction, config.failure_action, &task);
        if config.failure_action != FailureAction::Continue {
            return None;
        }
    }
    let mut progress = Progress::default();
    for (key, slot) in &mut slots.0 {
        progress.count(draft, service, &config, key, slot);
    }
    let room = match config.parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX).saturating_sub(progress.busy),
    };
    for key in progress.stale.iter().take(room) {
        if let Some(slot) = slots.0.get_mut(key) {
            replace(draft, service, &config, key, slot);
        }
    }
    if !progress.stale.is_empty() || progress.busy > 0 {
        return progress.wake;
    }
    let monitor = config.monitor.unwrap_or(UpdateConfig::DEFAULT_MONITOR);
    let watched_until = progress.last_change.map(|last| after(last, monitor));
    match watched_until.filter(|until| *until > draft.now()) {
        Some(until) => Some(until),
        None => {
            complete(draft, service, direction);
            None
        }
    }
}

/// Which way an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

impl Direction {
    fn of(service: &Service) -> Option<Self> {
        match service.update_status.as_ref()?.state {
            UpdateState::Updating => Some(Self::Forward),
            UpdateState::RollbackStarted => Some(Self::Back),
            _ => None,
        }
    }

    fn config(self, service: &Service) -> UpdateConfig {
        let config = match self {
            Self::Forward => &service.spec.update,
            Self::Back => &service.spec.rollback,
        };
        config.clone().unwrap_or_default()
    }
}

/// How far the slots are.
#[derive(Debug, Default)]
struct Progress {
    /// Slots that still have to be replaced.
    stale: Vec<SlotKey>,
    /// Slots that are being replaced, or were and keep others waiting.
    busy: usize,
    /// When the last task of the new spec began to run.
    last_change: Option<Timestamp>,
    wake: Option<Timestamp>,
}

impl Progress {
    fn count(
        &mut self,
        draft: &mut Draft<'_>,
        service: &Service,
        config: &UpdateConfig,
        key: &SlotKey,
        slot: &mut Slot,
    ) {
        let (stale, fresh): (Vec<_>, Vec<_>) =
            slot.live().cloned().partition(|task| is_outdated(draft.tables(), task, service));
        let Some(fresh) = fresh.last() else {
            if !stale.is_empty() {
                self.stale.push(key.clone());
            }
            return;
        };
        if fresh.status.state != TaskState::Running {
            self.busy += 1;
            return;
        }
        for old in &stale {
            // The new one runs, so the old one may go.
            slot.desire(draft, old, TaskState::Shutdown);
        }
        if fresh.service_version == service.task_version {
            // The store's time of the last change: the node's clock may be another.
            let since = fresh.meta.updated;
            self.last_change = self.last_change.max(Some(since));
            let until = after(since, config.delay);
            if config.delay > Duration::ZERO && until > draft.now() {
                self.busy += 1;
                self.wake = earlier(self.wake, Some(until));
            }
        }
    }
}

fn replace(draft: &mut Draft<'_>, service: &Service, config: &UpdateConfig, key: &SlotKey, slot: &mut Slot) {
    // An old task that does not run is not worth waiting for.
    if config.order == UpdateOrder::StopFirst || !slot.is_running() {
        for old in slot.live().cloned().collect::<Vec<_>>() {
            slot.desire(draft, &old, TaskState::Shutdown);
        }
    }
    super::restart::refill(draft, service, key, slot);
}

/// A failed task of the new spec, when there are more of them than are put up with.
fn too_many_failures(service: &Service, slots: &Slots, config: &UpdateConfig) -> Option<Arc<Task>> {
    let tasks = slots.0.values().flat_map(|slot| &slot.tasks);
    let failed: Vec<_> = tasks
        .filter(|task| task.service_version == service.task_version)
        .filter(|task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected))
        .collect();
    let latest = failed.iter().max_by_key(|task| task.status.timestamp)?;
    #[allow(clippy::cast_precision_loss, reason = "nobody runs 2^52 tasks")]
    let ratio = failed.len() as f64 / slots.0.len().max(1) as f64;
    (ratio > config.max_failure_ratio).then(|| (*latest).clone())
}

fn fail(draft: &mut Draft<'_>, service: &Service, direction: Direction, action: FailureAction, task: &Task) {
    let why = format!("due to failure or early termination of task {}", task.id);
    match (direction, action) {
        (_, FailureAction::Continue) => {}
        (Direction::Forward, FailureAction::Pause) => {
            stop(draft, service, UpdateState::Paused, format!("update paused {why}"));
        }
        (Direction::Forward, FailureAction::Rollback) => {
            let message = format!("update rolled back {why}");
            let version = draft.tables().version().next();
            let Some(back) = roll_back(service, version, draft.now(), &message) else {
                return stop(draft, service, UpdateState::Paused, format!("update paused {why}"));
            };
            match with_endpoint(draft, service, back) {
                Ok(back) => draft.put_service(back),
                Err(error) => {
                    stop(
                        draft,
                        service,
                        UpdateState::Paused,
                        format!("update paused {why}; it cannot be rolled back: {error}"),
                    );
                }
            }
        }
        // There is nothing to go back to from going back.
        (Direction::Back, FailureAction::Pause | FailureAction::Rollback) => {
            stop(draft, service, UpdateState::RollbackPaused, format!("rollback paused {why}"));
        }
    }
}

/// Lets the service answer where its previous spec says. If somebody else has taken a port meanwhile, it goes on answering where it does:
/// tasks that work are worth more than all of the old spec.
///
/// # Errors
/// When the old tasks were on a network that is gone.
fn with_endpoint(draft: &mut Draft<'_>, service: &Service, mut back: Service) -> Result<Service, EndpointError> {
    match allocator::endpoint(draft.tables(), draft.pools(), Some(service), &back.spec) {
        Ok(endpoint) => back.endpoint = endpoint,
        Err(gone @ EndpointError::NoNetwork(_)) => return Err(gone),
        Err(error) => {
            if let Some(status) = &mut back.update_status {
                status.message = format!("{}; its ports stay as they are: {error}", status.message);
            }
            back.spec.endpoint = service.spec.endpoint.clone();
        }
    }
    Ok(back)
}

fn stop(draft: &mut Draft<'_>, service: &Service, state: UpdateState, message: String) {
    set_status(draft, service, state, message, None);
}

fn complete(draft: &mut Draft<'_>, service: &Service, direction: Direction) {
    let (state, message) = match direction {
        Direction::Forward => (UpdateState::Completed, "update completed"),
        Direction::Back => (UpdateState::RollbackCompleted, "rollback completed"),
    };
    set_status(draft, service, state, message.to_owned(), Some(draft.now()));
}

fn set_status(
    draft: &mut Draft<'_>,
    service: &Service,
    state: UpdateState,
    message: String,
    completed: Option<Timestamp>,
) {
    let mut service = service.clone();
    let started = service.update_status.as_ref().map_or(draft.now(), |status| status.started);
    service.update_status = Some(UpdateStatus { state, started, completed, message });
    draft.put_service(service);
}
