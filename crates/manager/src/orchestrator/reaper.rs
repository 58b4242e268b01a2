//! Forgetting tasks.

use skep_model::{Service, ServiceId, TaskState};

use super::restart::history_needed;
use super::slot::{Slot, Slots};
use crate::draft::Draft;

/// Removes the tasks of a service that is gone.
pub(super) fn remove_all(draft: &mut Draft<'_>, service: &ServiceId) {
    for task in draft.tasks_of(service) {
        draft.desire(&task, TaskState::Remove);
    }
    delete_removed(draft, service);
}

/// Deletes tasks that are to be removed and over, and the history of slots beyond what is kept.
pub(super) fn reap(draft: &mut Draft<'_>, service: &Service, slots: &Slots) {
    delete_removed(draft, &service.id);
    let limit = draft.tables().cluster().map_or(5, |cluster| cluster.spec.task_history_limit);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let needed = history_needed(service);
    for slot in slots.0.values() {
        forget(draft, slot, limit, needed);
    }
}

fn forget(draft: &mut Draft<'_>, slot: &Slot, limit: usize, needed: usize) {
    // What waits for its predecessor, or was made because of it, must be able to see it.
    let needed = needed + slot.live().count();
    let mut surplus = slot.tasks.len().saturating_sub(limit.max(needed));
    for task in &slot.tasks {
        if surplus == 0 {
            return;
        }
        if !task.is_live() && draft.is_over(task) {
            draft.delete_task(&task.id);
            surplus -= 1;
        }
    }
}

fn delete_removed(draft: &mut Draft<'_>, service: &ServiceId) {
    for task in draft.tasks_of(service) {
        if task.desired == TaskState::Remove && draft.is_over(&task) {
            draft.delete_task(&task.id);
        }
    }
}
