//! Whether and when a slot whose task has ended gets another one.

use std::time::Duration;

use skep_model::{RestartCondition, RestartPolicy, Service, Task, TaskState, Timestamp};
use skep_store::Tables;

use super::slot::{Slot, SlotKey, Slots, is_outdated};
use crate::draft::{Draft, after, earlier};

/// Whether a slot without a live task gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// It does.
    Fill,
    /// Its work is done, or was tried often enough.
    Finished,
}

fn policy(service: &Service) -> RestartPolicy {
    service.spec.task.restart.unwrap_or_default()
}

/// Decides by the slot's history alone, so that every leader decides the same.
fn decide(tables: &Tables, service: &Service, slot: &Slot) -> Decision {
    let Some(latest) = slot.latest() else { return Decision::Fill };
    if is_outdated(tables, latest, service) {
        return Decision::Fill;
    }
    let policy = policy(service);
    let wanted = match (latest.status.state, policy.condition) {
        // Stopped because somebody wanted it elsewhere, or lost: that is no ending of its own.
        (state, _) if !ended_by_itself(state) => true,
        (_, RestartCondition::Any) => true,
        (TaskState::Complete, _) | (_, RestartCondition::None) => false,
        (_, RestartCondition::OnFailure) => true,
    };
    if wanted && attempts_left(service, &policy, slot, latest) { Decision::Fill } else { Decision::Finished }
}

fn ended_by_itself(state: TaskState) -> bool {
    matches!(state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

fn attempts_left(service: &Service, policy: &RestartPolicy, slot: &Slot, latest: &Task) -> bool {
    if policy.max_attempts == 0 || !ended_by_itself(latest.status.state) {
        return true;
    }
    // Counted back from the last ending, not from now: a decision does not change while nothing happens.
    let window = policy.window.filter(|window| *window > Duration::ZERO);
    let since = window.and_then(|window| latest.status.timestamp.checked_sub(window).ok());
    let ended = slot.tasks.iter().filter(|task| {
        task.service_version == service.task_version
            && ended_by_itself(task.status.state)
            && since.is_none_or(|since| task.status.timestamp >= since)
    });
    // The first try is no retry.
    ended.count() as u64 <= policy.max_attempts
}

/// How many ended tasks of a slot [`tend`] needs to see: the latest, the one that it waited for, and as many as are counted.
pub(super) fn history_needed(service: &Service) -> usize {
    let counted = usize::try_from(policy(service).max_attempts).unwrap_or(usize::MAX).saturating_add(1);
    counted.max(2)
}

/// Fills the slot if nothing in it lives and it is to be filled. Returns when to look again if it is too early for that.
pub(super) fn tend(draft: &mut Draft<'_>, service: &Service, key: &SlotKey, slot: &mut Slot) -> Option<Timestamp> {
    if slot.is_live() || decide(draft.tables(), service, slot) == Decision::Finished {
        return None;
    }
    let wait = too_early(draft, service, slot);
    if wait.is_none() {
        refill(draft, service, key, slot);
    }
    wait
}

/// A task that ends while it still waits to be let run (its image is missing, say) is not followed before it would have been: otherwise
/// one would follow the other without any delay at all.
fn too_early(draft: &Draft<'_>, service: &Service, slot: &Slot) -> Option<Timestamp> {
    let [.., before, latest] = slot.tasks.as_slice() else { return None };
    if delay(draft, service, Some(latest)).is_zero() {
        return None;
    }
    let due = after(latest.meta.created, delay(draft, service, Some(before)));
    (due > draft.now()).then_some(due)
}

/// Gives the slot a new task: one that runs at once if nothing stands in the way, or one that is made ready meanwhile.
pub(super) fn refill(draft: &mut Draft<'_>, service: &Service, key: &SlotKey, slot: &mut Slot) {
    let free = slot.tasks.iter().all(|old| makes_way(draft, old)) && delay(draft, service, slot.latest()).is_zero();
    let desired = if free { TaskState::Running } else { TaskState::Ready };
    slot.fill(draft, service, key, desired);
}

/// Whether a new task in the slot need not wait for `old`: it is over, or it stays until the new one runs.
fn makes_way(draft: &Draft<'_>, old: &Task) -> bool {
    old.is_live() || draft.is_over(old)
}

/// How long after `before` its successor waits.
fn delay(draft: &Draft<'_>, service: &Service, before: Option<&std::sync::Arc<Task>>) -> Duration {
    let Some(before) = before else { return Duration::ZERO };
    let node_lost = before.node.as_ref().is_some_and(|node| !draft.reaches(node));
    if !ended_by_itself(before.status.state) || node_lost || is_outdated(draft.tables(), before, service) {
        return Duration::ZERO;
    }
    policy(service).delay.unwrap_or(RestartPolicy::DEFAULT_DELAY)
}

/// Lets tasks run that were made ready and whose predecessors have ended and whose delay is over. Returns when the next delay ends.
pub(super) fn start_waiting(draft: &mut Draft<'_>, service: &Service, slots: &mut Slots) -> Option<Timestamp> {
    let mut wake = None;
    for slot in slots.0.values_mut() {
        let Some((task, before)) = slot.tasks.split_last() else { continue };
        if !task.is_live() || task.desired == TaskState::Running || !before.iter().all(|old| makes_way(draft, old)) {
            continue;
        }
        let delay = delay(draft, service, before.last());
        let due = after(task.meta.created, delay);
        if delay.is_zero() || due <= draft.now() {
            let task = task.clone();
            slot.desire(draft, &task, TaskState::Running);
        } else {
            wake = earlier(wake, Some(due));
        }
    }
    wake
}
