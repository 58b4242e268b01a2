//! Which number each backend has in the kernel. Flows name their backend by number and generation, so an entry keeps both as long as
//! the backend is the same one, over any number of daemons; the daemon knows its entries again by what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_model::{EndpointKey, Prefix6, TaskId};

use super::layout::{
    self, Addr, BACKEND_DRAINING, BACKEND_EGRESS, BACKEND_GONE, BACKEND_NO_IPV6, BACKEND_PREFIX, BACKEND_READY,
    BACKEND_STARTING,
};
use crate::maglev;
use crate::table::{Backend, BackendState, Place};

/// What has to be done to the entries.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The number of each backend.
    pub(super) slots: BTreeMap<EndpointKey, u16>,
    /// Entries to write before anything refers to them.
    pub(super) write: Vec<(u16, layout::Backend)>,
    /// Entries that belonged to somebody else: their counters start anew.
    pub(super) fresh: Vec<u16>,
    /// Entries to write when nothing new refers to them any more: nobody's now.
    pub(super) retire: Vec<(u16, layout::Backend)>,
}

/// Compares entries with what should be there. `None` when `room` entries are not enough. `members` are the other nodes.
pub(super) fn plan(
    entries: &[layout::Backend],
    wanted: &BTreeMap<EndpointKey, Backend>,
    members: &BTreeSet<IpAddr>,
    room: u16,
) -> Option<Plan> {
    let known: BTreeMap<_, u16> =
        (0..).zip(entries).filter(|(_, e)| e.generation > 0).map(|(n, e)| ((e.task, e.network), n)).collect();
    let peers: BTreeMap<IpAddr, u32> = members.iter().copied().zip(1..).collect();
    let mut plan = Plan::default();
    let mut newcomers = Vec::new();
    let mut used = BTreeSet::new();
    for (key, backend) in wanted {
        let entry = encode(key, backend, &peers);
        match known.get(&(entry.task, entry.network)) {
            Some(&slot) => {
                used.insert(slot);
                plan.keep(key, slot, &entries[usize::from(slot)], entry);
            }
            None => newcomers.push((key, entry)),
        }
    }
    let taken =
        |slot: u16| used.contains(&slot) || entries.get(usize::from(slot)).is_some_and(|e| e.state != BACKEND_GONE);
    // An entry whose owner left just now is free from the next time on: packets may still be on their way to it.
    let mut free = (0..room).filter(|&slot| !taken(slot));
    for (key, entry) in newcomers {
        let slot = free.next()?;
        let before = entries.get(usize::from(slot)).map_or(0, |e| e.generation);
        plan.start(key, slot, layout::Backend { generation: next(before), ..entry });
    }
    let left = (0..).zip(entries).filter(|(slot, e)| e.state != BACKEND_GONE && !used.contains(slot));
    plan.retire = left.map(|(slot, e)| (slot, layout::Backend { state: BACKEND_GONE, ..*e })).collect();
    Some(plan)
}

/// Generations begin with 1: an entry with 0 was never used.
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

impl Plan {
    fn keep(&mut self, key: &EndpointKey, slot: u16, before: &layout::Backend, entry: layout::Backend) {
        let moved = (before.addr, before.node, before.ifindex) != (entry.addr, entry.node, entry.ifindex);
        let generation = if moved { next(before.generation) } else { before.generation };
        let entry = layout::Backend { generation, ..entry };
        if entry != *before {
            self.write.push((slot, entry));
        }
        self.slots.insert(key.clone(), slot);
    }

    fn start(&mut self, key: &EndpointKey, slot: u16, entry: layout::Backend) {
        self.fresh.push(slot);
        self.write.push((slot, entry));
        self.slots.insert(key.clone(), slot);
    }
}

/// How an entry names its task. It is that task on the network whose number it has.
pub(super) fn name(task: &TaskId) -> u64 {
    maglev::hash(task.as_str(), 0)
}

fn encode(key: &EndpointKey, backend: &Backend, peers: &BTreeMap<IpAddr, u32>) -> layout::Backend {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let (node, ifindex, mac, peer, flags) = match backend.place {
        Place::Here { ifindex, mac, ipv6 } => {
            let flags = flag(!ipv6, BACKEND_NO_IPV6) | flag(backend.egress, BACKEND_EGRESS);
            (Addr::default(), ifindex, mac, 0, flags)
        }
        Place::There(node) => (node.into(), 0, [0; 6], peers.get(&node).copied().unwrap_or(0), 0),
    };
    layout::Backend {
        task: name(&key.task),
        node,
        addr: backend.addr.octets(),
        ifindex,
        generation: 0,
        peer,
        network: backend.network,
        pad: 0,
        state: match backend.state {
            BackendState::Starting => BACKEND_STARTING,
            BackendState::Ready => BACKEND_READY,
            BackendState::Draining => BACKEND_DRAINING,
        },
        mac,
        flags: flags | flag(backend.prefix6 != Prefix6::MESH, BACKEND_PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: char) -> EndpointKey {
        on(digit, 'n')
    }

    fn on(task: char, network: char) -> EndpointKey {
        let text = |digit: char| digit.to_string().repeat(25);
        EndpointKey { network: text(network).parse().unwrap(), task: text(task).parse().unwrap() }
    }

    fn backend(ifindex: u32, state: BackendState) -> Backend {
        let place = Place::Here { ifindex, mac: [2; 6], ipv6: true };
        Backend { addr: [10, 0, 0, 9].into(), network: 0, prefix6: Prefix6::MESH, egress: true, place, state }
    }

    fn wanted(list: &[(char, u32, BackendState)]) -> BTreeMap<EndpointKey, Backend> {
        list.iter().map(|&(digit, ifindex, state)| (key(digit), backend(ifindex, state))).collect()
    }

    fn apply(entries: &mut Vec<layout::Backend>, wanted: &BTreeMap<EndpointKey, Backend>, room: u16) {
        let plan = plan(entries, wanted, &BTreeSet::new(), room).unwrap();
        for (slot, entry) in plan.write.iter().chain(&plan.retire) {
            let slot = usize::from(*slot);
            entries.resize(entries.len().max(slot + 1), layout::Backend::default());
            entries[slot] = *entry;
        }
    }

    #[test]
    fn planning_again_changes_nothing() {
        let wanted = wanted(&[('a', 1, BackendState::Ready), ('b', 2, BackendState::Draining)]);
        let mut entries = Vec::new();
        apply(&mut entries, &wanted, 8);
        let again = plan(&entries, &wanted, &BTreeSet::new(), 8).unwrap();
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
        let next = plan(&entries, &wanted(&[('b', 2, BackendState::Ready)]), &BTreeSet::new(), 1).unwrap();
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
    fn a_task_has_an_entry_on_each_of_its_networks() {
        let [here, there] = [0, 4097].map(|network| Backend { network, ..backend(1, BackendState::Ready) });
        let mut all = BTreeMap::from([(on('a', 'n'), here), (on('a', 'm'), there)]);
        let mut entries = Vec::new();
        apply(&mut entries, &all, 8);
        let numbers = |entries: &[layout::Backend]| -> BTreeMap<u32, u32> {
            entries.iter().map(|e| (e.network, e.generation)).collect()
        };
        assert_eq!(numbers(&entries), [(0, 1), (4097, 1)].into());
        let before = entries.clone();
        all.remove(&on('a', 'n'));
        apply(&mut entries, &all, 8);
        assert_eq!(entries.iter().filter(|e| e.state != BACKEND_GONE).count(), 1);
        assert_eq!(entries.iter().find(|e| e.network == 4097), before.iter().find(|e| e.network == 4097));
    }

    #[test]
    fn too_many_are_refused() {
        let all = wanted(&[('a', 1, BackendState::Ready), ('b', 2, BackendState::Ready)]);
        assert!(plan(&[], &all, &BTreeSet::new(), 1).is_none());
    }
}
