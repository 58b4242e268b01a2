//! Any sequence of changes, written in the order of [`ORDER`] onto a picture of the maps, comes to the same as building from scratch; and at no
//! moment on the way, wherever a daemon may be killed, does anything refer to what is not there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_model::{EndpointState, Protocol, TaskId};

use super::*;
use crate::bpf::PROBE_PORT;
use crate::bpf::layout::{BACKEND_GONE, BACKEND_PREFIX, FRONTEND_PREFIX, Table};
use crate::compile::compile;
use crate::world::{Change, TASKS, World, change, id};

const ROOM: u16 = 64;

/// What the kernel would hold.
#[derive(Default)]
struct Picture {
    found: Found,
    node: Option<Node>,
    ports: Option<[PortBits; 3]>,
    tables: BTreeMap<u32, Table>,
    /// Entries and ports whose counters were set back and that nobody has had since.
    reset: (BTreeSet<u16>, BTreeSet<u32>),
}

/// What is true of the changes that a picture is between: to check it while it is neither.
struct Between {
    /// The networks of each list.
    lists: BTreeMap<u32, BTreeSet<NetworkKey>>,
    /// Names of the tasks that each table may give out.
    groups: BTreeMap<u32, BTreeSet<u64>>,
}

impl Between {
    fn of(both: [&Tables; 2]) -> Self {
        let mut between = Self { lists: BTreeMap::new(), groups: BTreeMap::new() };
        for tables in both {
            for key in encode::networks(tables, &Lists::of(tables)).into_keys() {
                between.lists.entry(key.1.list).or_default().insert(key);
            }
            for (group, members) in &tables.groups {
                let names = members.ready.iter().map(|key| slots::name(&key.task));
                between.groups.entry(encode::table_number(group)).or_default().extend(names);
            }
        }
        between
    }
}

impl Picture {
    fn new() -> Self {
        let found = Found { backends_room: ROOM, frontends_room: 32, ..Found::default() };
        Self { found, ..Self::default() }
    }

    /// Carries out a step in writes that each are one for the kernel too; after each of them `seen` has a look.
    fn carry_out(&mut self, step: Step, update: &Update, seen: &mut dyn FnMut(&Self) -> bool) -> bool {
        match step {
            Step::Node => self.node = Some(update.node),
            Step::ResetCounters => {
                self.reset.0.extend(&update.backends.fresh);
                self.reset.1.extend(&update.fresh_frontends);
            }
            Step::WriteBackends => return self.write_backends(&update.backends.write, seen),
            Step::RetireBackends => return self.write_backends(&update.backends.retire, seen),
            Step::PutLocals => return put(self, |p| &mut p.found.locals, &update.locals.put, seen),
            Step::PutAddresses => return put(self, |p| &mut p.found.addresses, &update.addresses.put, seen),
            Step::PutNetworks => return put(self, |p| &mut p.found.networks, &update.networks.put, seen),
            Step::PutWays => return put(self, |p| &mut p.found.ways, &update.ways.put, seen),
            Step::PutPrefixes => return put(self, |p| &mut p.found.prefixes, &update.prefixes.put, seen),
            Step::DeletePrefixes => return delete(self, |p| &mut p.found.prefixes, &update.prefixes.delete, seen),
            Step::PutVips => return put(self, |p| &mut p.found.vips, &update.vips.put, seen),
            Step::DeleteVips => return delete(self, |p| &mut p.found.vips, &update.vips.delete, seen),
            Step::DeleteWays => return delete(self, |p| &mut p.found.ways, &update.ways.delete, seen),
            Step::WriteTables => {
                let changed = update.tables.iter().filter(|(key, table)| self.tables.get(*key) != Some(*table));
                let changed: Vec<_> = changed.map(|(key, table)| (*key, *table)).collect();
                return put(self, |p| &mut p.tables, &changed, seen);
            }
            Step::PutFrontends => return self.put_frontends(update, seen),
            Step::WritePorts => self.ports = Some(update.ports),
            Step::DeleteFrontends => return delete(self, |p| &mut p.found.frontends, &update.frontends.delete, seen),
            Step::PruneTables => {
                let gone: Vec<_> = self.tables.keys().filter(|key| !update.tables.contains_key(key)).copied().collect();
                return delete(self, |p| &mut p.tables, &gone, seen);
            }
            Step::DeleteNetworks => return delete(self, |p| &mut p.found.networks, &update.networks.delete, seen),
            Step::DeleteLocals => return delete(self, |p| &mut p.found.locals, &update.locals.delete, seen),
            Step::DeleteAddresses => return delete(self, |p| &mut p.found.addresses, &update.addresses.delete, seen),
        }
        seen(self)
    }

    fn write_backends(&mut self, entries: &[(u16, Backend)], seen: &mut dyn FnMut(&Self) -> bool) -> bool {
        entries.iter().all(|&(slot, entry)| {
            let at = usize::from(slot);
            let backends = &mut self.found.backends;
            backends.resize(backends.len().max(at + 1), Backend::default());
            let before = std::mem::replace(&mut backends[at], entry);
            assert!(entry.generation >= before.generation, "generations only grow: {before:?} {entry:?}");
            if (entry.task, entry.network) != (before.task, before.network) {
                assert!(before.state == BACKEND_GONE, "taken from somebody: {before:?} {entry:?}");
                assert!(
                    entry.generation > before.generation,
                    "old flows would be the new owner's: {before:?} {entry:?}"
                );
                assert!(self.reset.0.remove(&slot), "a new owner with old counters: {entry:?}");
            }
            seen(self)
        })
    }

    fn put_frontends(&mut self, update: &Update, seen: &mut dyn FnMut(&Self) -> bool) -> bool {
        for (key, frontend) in &update.frontends.put {
            match self.found.frontends.get(key) {
                Some(before) => assert_eq!(before.number, frontend.number, "whoever stays keeps its number"),
                None => assert!(self.reset.1.remove(&frontend.number), "a new port with old counters: {frontend:?}"),
            }
        }
        put(self, |p| &mut p.found.frontends, &update.frontends.put, seen)
    }

    /// Nothing refers to what is not there.
    fn check(&self, between: &Between) {
        let backend = |slot: u32| self.found.backends.get(slot as usize).filter(|entry| entry.state != BACKEND_GONE);
        for (key, frontend) in &self.found.frontends {
            assert!(self.tables.contains_key(&frontend.table), "{key:?} has no table");
            for list in [frontend.sources, frontend.listen] {
                let nets = between.lists.get(&list).into_iter().flatten();
                nets.for_each(|net| {
                    assert!(self.found.networks.contains_key(net), "{key:?} lacks {net:?} of its list");
                });
            }
        }
        for (key, vip) in &self.found.vips {
            assert!(self.tables.contains_key(&vip.table), "{key:?} has no table");
            let prefixed = vip.flags & FRONTEND_PREFIX != 0;
            assert!(!prefixed || self.found.prefixes.contains_key(&vip.network), "{key:?} has no prefix");
        }
        for entry in self.found.backends.iter().filter(|entry| entry.state != BACKEND_GONE) {
            let prefixed = entry.flags & BACKEND_PREFIX != 0;
            assert!(!prefixed || self.found.prefixes.contains_key(&entry.network), "{entry:?} has no prefix");
        }
        for (number, table) in &self.tables {
            let slots: BTreeSet<u16> = table.slots.iter().take(table.count as usize).copied().collect();
            for slot in slots {
                let entry = backend(slot.into()).unwrap_or_else(|| panic!("table {number} refers to nobody's {slot}"));
                assert!(
                    between.groups[number].contains(&entry.task),
                    "table {number} refers to another service's task"
                );
            }
        }
        for (key, slot) in self.found.locals.iter().filter(|(key, _)| key.addr != [0; 4]) {
            let entry = backend(*slot).unwrap_or_else(|| panic!("{key:?} refers to nobody's {slot}"));
            assert_eq!(entry.addr, key.addr, "{key:?} refers to another task");
        }
        for key in self.ports.iter().flat_map(published) {
            let probes = key.proto == Protocol::Udp.number() && key.port == PROBE_PORT.to_be_bytes();
            assert!(probes || self.found.frontends.contains_key(&key), "{key:?} is published and has no frontend");
        }
        let owners = self
            .found
            .backends
            .iter()
            .filter(|entry| entry.state != BACKEND_GONE)
            .map(|entry| (entry.task, entry.network));
        assert!(only_once(owners), "two entries of one task");
        assert!(only_once(self.found.frontends.values().map(|frontend| frontend.number)), "two ports with one number");
    }

    /// What lookups come to, without the numbers that stand between.
    fn lookups(&self, names: &BTreeMap<u64, TaskId>) -> Lookups {
        let entry = |slot: u16| self.found.backends.get(usize::from(slot));
        let task = |slot: u16| entry(slot).and_then(|entry| names.get(&entry.task)).cloned();
        let choices = |table: u32| -> Vec<_> {
            let table = &self.tables[&table];
            table.slots.iter().take(table.count as usize).map(|slot| task(*slot)).collect()
        };
        let list = |number: u32| -> Vec<_> {
            let own = self.found.networks.keys().filter(|(_, net)| net.list == number);
            own.map(|(bits, net)| (*bits, net.addr)).collect()
        };
        let frontends = self.found.frontends.iter().map(|(key, frontend)| {
            let choices = choices(frontend.table);
            let lists = [list(frontend.sources), list(frontend.listen)];
            (*key, (choices, lists, Frontend { number: 0, ..*frontend }))
        });
        let backends = self.found.backends.iter().filter(|entry| entry.state != BACKEND_GONE);
        Lookups {
            node: self.node,
            ports: self.ports.iter().flatten().map(|bits| bits.0.to_vec()).collect(),
            addresses: self.found.addresses.clone(),
            frontends: frontends.collect(),
            backends: backends.map(|e| ((e.task, e.network), Backend { generation: 0, ..*e })).collect(),
            vips: self.found.vips.iter().map(|(key, vip)| (*key, (choices(vip.table), *vip))).collect(),
            networks: self.found.networks.iter().filter(|((_, net), _)| net.list == 0).map(|(k, v)| (*k, *v)).collect(),
            prefixes: self.found.prefixes.clone(),
            ways: self.found.ways.clone(),
            locals: self
                .found
                .locals
                .iter()
                .map(|(key, slot)| (*key, task(u16::try_from(*slot).unwrap()).filter(|_| key.addr != [0; 4])))
                .collect(),
        }
    }
}

type Choices = (Vec<Option<TaskId>>, [Vec<(u32, Addr)>; 2], Frontend);

#[derive(Debug, PartialEq)]
struct Lookups {
    node: Option<Node>,
    ports: Vec<Vec<u64>>,
    addresses: BTreeMap<Addr, Address>,
    frontends: BTreeMap<FrontendKey, Choices>,
    backends: BTreeMap<(u64, u32), Backend>,
    vips: BTreeMap<Vip, (Vec<Option<TaskId>>, Frontend)>,
    networks: BTreeMap<NetworkKey, u32>,
    prefixes: BTreeMap<u32, Addr>,
    ways: BTreeMap<WayKey, Way>,
    locals: BTreeMap<LocalKey, Option<TaskId>>,
}

/// The ports that packets are looked at for.
fn published(ports: &[PortBits; 3]) -> impl Iterator<Item = FrontendKey> + '_ {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().zip(ports);
    protocols.flat_map(|(protocol, bits)| {
        let words = (0_u16..).zip(&bits.0).filter(|(_, word)| **word != 0);
        let ports =
            words.flat_map(|(n, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| n * 64 + bit));
        ports.map(move |port| FrontendKey { port: port.to_be_bytes(), proto: protocol.number(), pad: 0 })
    })
}

fn only_once<T: Ord>(all: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    all.into_iter().all(|one| seen.insert(one))
}

fn put<K: Copy + Ord, V: Copy>(
    picture: &mut Picture,
    map: impl Fn(&mut Picture) -> &mut BTreeMap<K, V>,
    entries: &[(K, V)],
    seen: &mut dyn FnMut(&Picture) -> bool,
) -> bool {
    entries.iter().all(|(key, value)| {
        map(picture).insert(*key, *value);
        seen(picture)
    })
}

fn delete<K: Copy + Ord, V>(
    picture: &mut Picture,
    map: impl Fn(&mut Picture) -> &mut BTreeMap<K, V>,
    keys: &[K],
    seen: &mut dyn FnMut(&Picture) -> bool,
) -> bool {
    keys.iter().all(|key| {
        assert!(map(picture).remove(key).is_some(), "removes only what is there");
        seen(picture)
    })
}

/// Applies, and stops after so many writes as a daemon does that is killed. Whether it came to the end.
fn apply(picture: &mut Picture, tables: &Tables, between: &Between, mut writes: usize) -> bool {
    let update = Update::plan(&picture.found, tables).unwrap();
    let mut seen = |picture: &Picture| {
        picture.check(between);
        writes = writes.saturating_sub(1);
        writes > 0
    };
    ORDER.iter().all(|step| picture.carry_out(*step, &update, &mut seen))
}

/// The number of every task that is there.
fn numbers(picture: &Picture) -> BTreeMap<(u64, u32), (usize, Backend)> {
    let entries = picture.found.backends.iter().copied().enumerate();
    entries
        .filter(|(_, entry)| entry.state != BACKEND_GONE)
        .map(|(n, entry)| ((entry.task, entry.network), (n, entry)))
        .collect()
}

fn stays(before: &Backend, after: &Backend) -> bool {
    (before.addr, before.node, before.ifindex) == (after.addr, after.node, after.ifindex)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_comes_to_the_same_as_building_from_scratch(
        changes in prop::collection::vec((prop::collection::vec(change(), 1..8), prop::option::of(1_usize..60)), 1..16),
    ) {
        let names: BTreeMap<u64, TaskId> = (0..TASKS).map(|n| id::<TaskId>(n.into())).map(|t| (slots::name(&t), t)).collect();
        let (mut world, mut picture) = (World::new(), Picture::new());
        let mut last = compile(&world.desired());
        for (changes, killed) in changes {
            changes.into_iter().for_each(|change| world.suffer(change));
            let tables = compile(&world.desired());
            let between = Between::of([&last, &tables]);
            let before = numbers(&picture);
            if let Some(writes) = killed {
                apply(&mut picture, &tables, &between, writes);
            }
            apply(&mut picture, &tables, &between, usize::MAX);
            for (task, (slot, entry)) in numbers(&picture) {
                if let Some((was, before)) = before.get(&task) {
                    prop_assert_eq!(*was, slot, "whoever stays keeps its number");
                    prop_assert!(entry.generation == before.generation || !stays(before, &entry));
                    prop_assert!(entry.generation > before.generation || stays(before, &entry));
                }
            }
            let again = Update::plan(&picture.found, &tables).unwrap();
            prop_assert!(again.backends.write.is_empty() && again.backends.retire.is_empty(), "nothing is left to do");
            prop_assert!(again.frontends.put.is_empty() && again.locals.put.is_empty() && again.networks.put.is_empty());
            prop_assert!(again.vips.put.is_empty() && again.ways.put.is_empty() && again.prefixes.put.is_empty());
            let mut scratch = Picture::new();
            apply(&mut scratch, &tables, &Between::of([&tables, &tables]), usize::MAX);
            prop_assert_eq!(picture.lookups(&names), scratch.lookups(&names));
            last = tables;
        }
    }
}

#[test]
fn more_tasks_than_fit_are_refused_before_anything_is_written() {
    let mut world = World::new();
    (0..TASKS).for_each(|task| world.suffer(Change::Start { task, service: 0, node: 0, state: EndpointState::Ready }));
    let found = Found { backends_room: 3, frontends_room: 32, ..Found::default() };
    let refused = Update::plan(&found, &compile(&world.desired()));
    assert!(matches!(refused, Err(DatapathError::Full { what: "tasks", count: 20, room: 3 })));
    let found = Found { backends_room: 32, frontends_room: 2, ..Found::default() };
    let refused = Update::plan(&found, &compile(&world.desired()));
    assert!(matches!(refused, Err(DatapathError::Full { what: "published ports", count: 4, room: 2 })));
}
