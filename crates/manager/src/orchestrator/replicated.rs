//! Services with a number of tasks.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use skep_model::{NodeId, Service, TaskState, Timestamp};

use super::restart::{refill, tend};
use super::slot::{Slot, SlotKey, Slots};
use crate::draft::{Draft, earlier};

/// Fills empty slots, adds missing ones and takes surplus ones away. Returns when to look again, should nothing happen before.
pub(super) fn reconcile(
    draft: &mut Draft<'_>,
    service: &Service,
    slots: &mut Slots,
    replicas: u64,
) -> Option<Timestamp> {
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    for key in surplus(slots, wanted) {
        if let Some(slot) = slots.0.remove(&key) {
            for task in &slot.tasks {
                draft.desire(task, TaskState::Remove);
            }
        }
    }
    let mut wake = None;
    for (key, slot) in &mut slots.0 {
        wake = earlier(wake, tend(draft, service, key, slot));
    }
    let mut number = 0;
    while slots.0.len() < wanted {
        number += 1;
        let key = SlotKey::Number(number);
        slots.0.entry(key.clone()).or_insert_with(|| {
            let mut slot = Slot::default();
            refill(draft, service, &key, &mut slot);
            slot
        });
    }
    wake
}

/// The slots to give up: those that do not run first, then those on nodes with many tasks of the service, then the highest numbers.
fn surplus(slots: &Slots, wanted: usize) -> Vec<SlotKey> {
    let mut left: BTreeMap<&SlotKey, &Slot> = slots.0.iter().collect();
    let mut crowd: BTreeMap<&NodeId, u64> = BTreeMap::new();
    for node in left.values().filter_map(|slot| node_of(slot)) {
        *crowd.entry(node).or_default() += 1;
    }
    let mut surplus = Vec::new();
    while left.len() > wanted {
        let crowded = |slot: &Slot| node_of(slot).and_then(|node| crowd.get(node)).copied().unwrap_or_default();
        let key = |(key, slot): &(&&SlotKey, &&Slot)| {
            (Reverse(slot.is_live()), Reverse(slot.is_running()), crowded(slot), (**key).clone())
        };
        let Some((given_up, slot)) = left.iter().max_by_key(key).map(|(key, slot)| (*key, *slot)) else { break };
        if let Some(count) = node_of(slot).and_then(|node| crowd.get_mut(node)) {
            *count -= 1;
        }
        left.remove(given_up);
        surplus.push(given_up.clone());
    }
    surplus
}

fn node_of(slot: &Slot) -> Option<&NodeId> {
    slot.live().last()?.node.as_ref()
}
