//! Tasks that cannot go on where they are.

use skep_model::{Availability, Constraint, Node, ServiceId, Task, TaskState};

use super::slot::Slots;
use crate::draft::{Draft, is_up};

/// Closes the books of tasks whose node is no member any more: nobody will ever report on them.
pub(super) fn orphan(draft: &mut Draft<'_>, service: &ServiceId) {
    for task in draft.tasks_of(service) {
        let gone = task.node.as_ref().is_some_and(|node| draft.node(node).is_none());
        if gone && !task.status.state.is_terminal() {
            let mut task = Task::clone(&task);
            task.status.state = TaskState::Orphaned;
            task.status.timestamp = draft.now();
            "the node was removed from the swarm".clone_into(&mut task.status.message);
            draft.put_task(task);
        }
    }
}

/// Tells tasks to stop that have ended, whose node is lost or being emptied, or that are where they must not be (any more).
pub(super) fn evict(draft: &mut Draft<'_>, slots: &mut Slots) {
    for slot in slots.0.values_mut() {
        let wanted: Vec<_> = slot.tasks.iter().filter(|task| task.desired <= TaskState::Running).cloned().collect();
        for task in wanted {
            if task.status.state.is_terminal() || !may_stay(draft, &task) {
                slot.desire(draft, &task, TaskState::Shutdown);
            }
        }
    }
}

fn may_stay(draft: &Draft<'_>, task: &Task) -> bool {
    let Some(id) = &task.node else { return true };
    let Some(node) = draft.node(id) else { return false };
    is_up(node) && node.spec.availability != Availability::Drain && meets_constraints(task, node)
}

fn meets_constraints(task: &Task, node: &Node) -> bool {
    // While an update is under way it is the task's own spec that counts, which the scheduler looked at too.
    let texts = &task.spec.placement.constraints;
    // A text that cannot be read moves nothing: the scheduler never placed such a task.
    texts.iter().filter_map(|text| text.parse::<Constraint>().ok()).all(|constraint| constraint.matches(node))
}
