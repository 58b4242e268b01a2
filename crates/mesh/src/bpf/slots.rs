//! Which number each backend has in the kernel. Flows name their backend by number and generation, so an entry keeps both as long as
//! the backend is the same one, over any number of daemons; the daemon knows its entries again by what is in them.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{self, Addr, BACKEND_DRAINING, BACKEND_GONE, BACKEND_READY};
use crate::maglev;
use crate::table::{Backend, BackendKey, BackendState, Place};

/// What has to be done to the entries.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The number of each backend.
    pub(super) slots: BTreeMap<BackendKey, u32>,
    /// Entries to write before anything refers to them.
    pub(super) write: Vec<(u32, layout::Backend)>,
    /// Entries that belonged to somebody else: their counters start anew.
    pub(super) fresh: Vec<u32>,
    /// Entries to write when nothing new refers to them any more: nobody's now.
    pub(super) retire: Vec<(u32, layout::Backend)>,
}

/// Who an entry belongs to: task, published port and protocol.
type Owner = (u64, [u8; 2], u8);

fn owner(entry: &layout::Backend) -> Owner {
    (entry.task, entry.published, entry.proto)
}

/// Compares entries with what should be there. `None` when `room` entries are not enough.
pub(super) fn plan(entries: &[layout::Backend], wanted: &BTreeMap<BackendKey, Backend>, room: u32) -> Option<Plan> {
    let known: BTreeMap<Owner, usize> =
        entries.iter().enumerate().filter(|(_, e)| e.generation > 0).map(|(slot, e)| (owner(e), slot)).collect();
    let mut plan = Plan::default();
    let mut newcomers = Vec::new();
    let mut used = BTreeSet::new();
    for (key, backend) in wanted {
        let entry = encode(key, backend);
        match known.get(&owner(&entry)) {
            Some(&slot) => {
                used.insert(slot);
                plan.keep(key, slot, &entries[slot], entry);
            }
            None => newcomers.push((key, entry)),
        }
    }
    let taken = |slot: usize| used.contains(&slot) || entries.get(slot).is_some_and(|e| e.state != BACKEND_GONE);
    // An entry whose owner left just now is free from the next time on: packets may still be on their way to it.
    let mut free = (0..room as usize).filter(|&slot| !taken(slot));
    for (key, entry) in newcomers {
        let slot = free.next()?;
        let before = entries.get(slot).map_or(0, |e| e.generation);
        plan.start(key, slot, layout::Backend { generation: before.wrapping_add(1).max(1), ..entry });
    }
    let left = entries.iter().enumerate().filter(|(slot, e)| e.state != BACKEND_GONE && !used.contains(slot));
    plan.retire = left.map(|(slot, e)| (number(slot), layout::Backend { state: BACKEND_GONE, ..*e })).collect();
    Some(plan)
}

impl Plan {
    fn keep(&mut self, key: &BackendKey, slot: usize, before: &layout::Backend, entry: layout::Backend) {
        let moved = (before.addr, before.node, before.ifindex, before.port)
            != (entry.addr, entry.node, entry.ifindex, entry.port);
        let generation = if moved { before.generation.wrapping_add(1).max(1) } else { before.generation };
        let entry = layout::Backend { generation, ..entry };
        if entry != *before {
            self.write.push((number(slot), entry));
        }
        self.slots.insert(key.clone(), number(slot));
    }

    fn start(&mut self, key: &BackendKey, slot: usize, entry: layout::Backend) {
        self.fresh.push(number(slot));
        self.write.push((number(slot), entry));
        self.slots.insert(key.clone(), number(slot));
    }
}

/// Positions come from a map whose indexes are 32 bits wide.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

fn encode(key: &BackendKey, backend: &Backend) -> layout::Backend {
    let (node, ifindex, mac) = match backend.place {
        Place::Here { ifindex, mac } => (Addr::default(), ifindex, mac),
        Place::There(node) => (node.into(), 0, [0; 6]),
    };
    layout::Backend {
        task: maglev::hash(key.task.as_str(), 0),
        addr: backend.addr.into(),
        node,
        ifindex,
        generation: 0,
        port: backend.port.to_be_bytes(),
        published: key.frontend.map_or(0, |f| f.port).to_be_bytes(),
        state: match backend.state {
            BackendState::Ready => BACKEND_READY,
            BackendState::Draining => BACKEND_DRAINING,
        },
        proto: key.frontend.map_or(0, |f| f.protocol.number()),
        mac,
        pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use skep_model::TaskId;

    use super::*;

    fn key(digit: char) -> BackendKey {
        let task: TaskId = digit.to_string().repeat(25).parse().unwrap();
        BackendKey { frontend: None, task }
    }

    fn backend(ifindex: u32, state: BackendState) -> Backend {
        Backend { addr: [10, 0, 0, 9].into(), port: 0, place: Place::Here { ifindex, mac: [2; 6] }, state }
    }

    fn wanted(list: &[(char, u32, BackendState)]) -> BTreeMap<BackendKey, Backend> {
        list.iter().map(|&(digit, ifindex, state)| (key(digit), backend(ifindex, state))).collect()
    }

    fn apply(entries: &mut Vec<layout::Backend>, wanted: &BTreeMap<BackendKey, Backend>, room: u32) {
        let plan = plan(entries, wanted, room).unwrap();
        for (slot, entry) in plan.write.iter().chain(&plan.retire) {
            let slot = *slot as usize;
            entries.resize(entries.len().max(slot + 1), layout::Backend::default());
            entries[slot] = *entry;
        }
    }

    #[test]
    fn planning_again_changes_nothing() {
        let wanted = wanted(&[('a', 1, BackendState::Ready), ('b', 2, BackendState::Draining)]);
        let mut entries = Vec::new();
        apply(&mut entries, &wanted, 8);
        let again = plan(&entries, &wanted, 8).unwrap();
        assert!(again.write.is_empty() && again.retire.is_empty() && again.fresh.is_empty());
        assert_eq!(again.slots.len(), 2);
    }

    #[test]
    fn draining_keeps_number_and_generation() {
        let mut entries = Vec::new();
        apply(&mut entries, &wanted(&[('a', 1, BackendState::Ready)]), 8);
        let before = entries[0];
        apply(&mut entries, &wanted(&[('a', 1, BackendState::Draining)]), 8);
        assert_eq!(entries[0], layout::Backend { state: BACKEND_DRAINING, ..before });
    }

    #[test]
    fn whoever_comes_back_finds_its_flows() {
        let mut entries = Vec::new();
        let all = wanted(&[('a', 1, BackendState::Ready), ('b', 2, BackendState::Ready)]);
        apply(&mut entries, &all, 8);
        let before = entries.clone();
        apply(&mut entries, &BTreeMap::new(), 8);
        assert!(entries.iter().all(|e| e.state == BACKEND_GONE));
        apply(&mut entries, &all, 8);
        assert_eq!(entries, before);
    }

    #[test]
    fn a_new_owner_is_a_new_generation() {
        let mut entries = Vec::new();
        apply(&mut entries, &wanted(&[('a', 1, BackendState::Ready)]), 1);
        apply(&mut entries, &BTreeMap::new(), 1);
        let next = plan(&entries, &wanted(&[('b', 2, BackendState::Ready)]), 1).unwrap();
        assert_eq!((next.write[0].1.generation, next.fresh.as_slice()), (2, [0].as_slice()));
    }

    #[test]
    fn a_task_behind_another_device_is_a_new_generation() {
        let mut entries = Vec::new();
        apply(&mut entries, &wanted(&[('a', 1, BackendState::Ready)]), 8);
        apply(&mut entries, &wanted(&[('a', 7, BackendState::Ready)]), 8);
        assert_eq!((entries.len(), entries[0].generation, entries[0].ifindex), (1, 2, 7));
    }

    #[test]
    fn too_many_are_refused() {
        let all = wanted(&[('a', 1, BackendState::Ready), ('b', 2, BackendState::Ready)]);
        assert!(plan(&[], &all, 1).is_none());
    }
}
