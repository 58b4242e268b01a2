//! Services with one task on every node that suits.

use skep_model::{Availability, Constraint, Node, Service, TaskState, Timestamp};

use super::restart::tend;
use super::slot::{SlotKey, Slots};
use crate::draft::{Draft, earlier, is_up};

/// Gives every node that suits its task. Tasks on nodes that do not (any more) have been evicted already.
/// Returns when to look again, should nothing happen before.
pub(super) fn reconcile(draft: &mut Draft<'_>, service: &Service, slots: &mut Slots) -> Option<Timestamp> {
    let texts = &service.spec.task.placement.constraints;
    // Texts were checked when the service was created.
    let constraints: Vec<_> = texts.iter().filter_map(|text| text.parse::<Constraint>().ok()).collect();
    let suits = |node: &Node| constraints.iter().all(|constraint| constraint.matches(node));
    let nodes: Vec<_> = draft.all_nodes().filter(|node| takes_tasks(node) && suits(node)).cloned().collect();
    let mut wake = None;
    for node in nodes {
        let key = SlotKey::Node(node.id.clone());
        let slot = slots.0.entry(key.clone()).or_default();
        wake = earlier(wake, tend(draft, service, &key, slot));
    }
    for key in slots.keys() {
        forget_if_gone(draft, slots, &key);
    }
    wake
}

fn takes_tasks(node: &Node) -> bool {
    is_up(node) && node.spec.availability == Availability::Active
}

/// A node that was removed has no history.
fn forget_if_gone(draft: &mut Draft<'_>, slots: &mut Slots, key: &SlotKey) {
    let SlotKey::Node(node) = key else { return };
    if draft.node(node).is_none() {
        for task in slots.0.remove(key).into_iter().flat_map(|slot| slot.tasks) {
            draft.desire(&task, TaskState::Remove);
        }
    }
}
