//! Any sequence of changes, written in the order of [`ORDER`] onto a picture of the maps, comes to the same as building from scratch; and at no
//! moment on the way, wherever a daemon may be killed, does anything refer to what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use skep_model::{
    Balance, EndpointKey, EndpointRecord, EndpointState, ListenOn, Member, PortOptions, Protocol, PublishMode,
    PublishOptions, PublishedPort, ServiceEntry, TaskId, Version,
};

use super::*;
use crate::bpf::layout::{BACKEND_GONE, Table};
use crate::compile::compile;
use crate::desired::{Desired, Devices, LocalTask, LocatedEndpoint, OwnNode};

const TASKS: u8 = 10;
const SERVICES: u8 = 4;
const NODES: u8 = 4;
const PORTS: u16 = 6;
const ROOM: u16 = 16;

/// What a task of the world is like.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Task {
    service: u8,
    node: u8,
    state: EndpointState,
    weight: u32,
    host_port: bool,
}

/// A small world that changes come over. Node 0 is the one whose maps these are.
#[derive(Debug, Clone)]
struct World {
    tasks: BTreeMap<u8, Task>,
    ports: BTreeMap<(u8, u16), u8>,
    dead: BTreeSet<u8>,
    taken: BTreeSet<u16>,
    direct: bool,
    addresses: u8,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Start {
        task: u8,
        service: u8,
        node: u8,
    },
    Stop(u8),
    /// One goes and another comes, as in an update.
    Replace(u8, u8),
    State(u8, EndpointState),
    Weight(u8, u32),
    /// To another node than this one: only others' records may be about tasks that have moved.
    Move(u8, u8),
    HostPort(u8),
    /// Publishes it, with these options.
    Publish {
        service: u8,
        port: u16,
        options: u8,
    },
    Withdraw {
        service: u8,
        port: u16,
    },
    Die(u8),
    Rise(u8),
    Take(u16),
    Direct,
    Addresses(u8),
    Nothing,
}

fn change() -> impl Strategy<Value = Change> {
    let (task, service, port) = (0..TASKS, 0..SERVICES, 0..PORTS);
    let state = prop_oneof![Just(EndpointState::Starting), Just(EndpointState::Ready), Just(EndpointState::Draining)];
    prop_oneof![
        5 => (task.clone(), service.clone(), 0..NODES).prop_map(|(task, service, node)| Change::Start { task, service, node }),
        3 => task.clone().prop_map(Change::Stop),
        4 => (task.clone(), task.clone()).prop_map(|(old, new)| Change::Replace(old, new)),
        4 => (task.clone(), state).prop_map(|(task, state)| Change::State(task, state)),
        1 => (task.clone(), 0..4_u32).prop_map(|(task, weight)| Change::Weight(task, weight)),
        2 => (task.clone(), 1..NODES).prop_map(|(task, node)| Change::Move(task, node)),
        1 => task.prop_map(Change::HostPort),
        4 => (service.clone(), port.clone(), 0..8_u8)
            .prop_map(|(service, port, options)| Change::Publish { service, port, options }),
        2 => (service, port.clone()).prop_map(|(service, port)| Change::Withdraw { service, port }),
        1 => (1..NODES).prop_map(Change::Die),
        1 => (1..NODES).prop_map(Change::Rise),
        1 => port.prop_map(Change::Take),
        1 => Just(Change::Direct),
        1 => (0..4_u8).prop_map(Change::Addresses),
        1 => Just(Change::Nothing),
    ]
}

impl World {
    fn new() -> Self {
        let ports = (0..SERVICES).map(|service| ((service, u16::from(service)), 0)).collect();
        Self { tasks: [].into(), ports, dead: [].into(), taken: [].into(), direct: false, addresses: 0 }
    }

    fn suffer(&mut self, change: Change) {
        match change {
            Change::Start { task, service, node } => {
                let new = Task { service, node, state: EndpointState::Starting, weight: 1, host_port: false };
                self.tasks.entry(task).or_insert(new);
            }
            Change::Stop(task) => drop(self.tasks.remove(&task)),
            Change::Replace(old, new) => {
                if let Some(task) = self.tasks.remove(&old) {
                    self.tasks.entry(new).or_insert(Task { state: EndpointState::Ready, ..task });
                }
            }
            Change::State(task, state) => self.of(task, |task| task.state = state),
            Change::Weight(task, weight) => self.of(task, |task| task.weight = weight),
            Change::Move(task, node) => self.of(task, |task| task.node = if task.node == 0 { 0 } else { node }),
            Change::HostPort(task) => self.of(task, |task| task.host_port ^= true),
            Change::Publish { service, port, options } => drop(self.ports.insert((service, port), options)),
            Change::Withdraw { service, port } => drop(self.ports.remove(&(service, port))),
            Change::Die(node) => drop(self.dead.insert(node)),
            Change::Rise(node) => drop(self.dead.remove(&node)),
            Change::Take(port) => {
                if !self.taken.remove(&port) {
                    self.taken.insert(port);
                }
            }
            Change::Direct => self.direct ^= true,
            Change::Addresses(count) => self.addresses = count,
            Change::Nothing => (),
        }
    }

    fn of(&mut self, task: u8, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.get_mut(&task) {
            change(task);
        }
    }

    fn desired(&self) -> Desired {
        Desired {
            node: OwnNode {
                id: id(0),
                underlay: underlay(0),
                overlay: [10, 0, 0, 1].into(),
                addresses: (0..self.addresses).map(|n| (IpAddr::from([198, 51, 100, n]), "eth1".to_owned())).collect(),
                taken: self.taken.iter().map(|port| (Protocol::Tcp, 8000 + port)).collect(),
                reply_direct: self.direct,
                direct: [underlay(1), underlay(2)].into(),
            },
            devices: Devices {
                loopback: 1,
                overlay: 5,
                overlay_mtu: 1450,
                underlay: Some(2),
                uplinks: [2].into(),
                tunnels: [].into(),
            },
            members: (0..NODES).map(|n| self.member(n)).collect(),
            member_addresses: (0..self.addresses).map(|n| IpAddr::from([203, 0, 113, n])).collect(),
            services: (0..SERVICES).map(|n| self.service(n)).collect(),
            endpoints: self.tasks.iter().map(|(n, task)| endpoint(*n, task)).collect(),
            local_tasks: self
                .tasks
                .iter()
                .filter(|(_, task)| task.node == 0)
                .map(|(n, task)| local(*n, task))
                .collect(),
        }
    }

    fn member(&self, n: u8) -> Member {
        let overlay = [10, 0, 0, n + 1].into();
        let alive = !self.dead.contains(&n);
        Member { node: id(n.into()), hostname: format!("n{n}"), underlay: underlay(n), overlay, alive }
    }

    fn service(&self, n: u8) -> ServiceEntry {
        let own = || self.ports.iter().filter(move |((service, _), _)| *service == n);
        ServiceEntry {
            id: id(n.into()),
            name: format!("s{n}"),
            version: Version::default(),
            ports: own().map(|((_, port), _)| published(8000 + port, PublishMode::Ingress)).collect(),
            options: own().filter_map(|((_, port), options)| option(8000 + port, *options)).collect(),
            virtual_ips: vec![],
        }
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: u32) -> T {
    format!("{n:0>25}").parse().unwrap()
}

/// One node is reached by IPv6.
fn underlay(n: u8) -> IpAddr {
    if n == 3 { "2001:db8::3".parse().unwrap() } else { [192, 0, 2, n + 1].into() }
}

fn published(port: u16, mode: PublishMode) -> PublishedPort {
    let number = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol: Protocol::Tcp, target: number(port - 7920), published: number(port), mode }
}

fn option(port: u16, which: u8) -> Option<PortOptions> {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let default = PublishOptions::default();
    let options = match which {
        0 => return None,
        1 => PublishOptions { sources: nets(&["10.0.0.0/8", "2001:db8::/32"]), ..default },
        2 => PublishOptions { sources: nets(&["10.0.0.0/8", "192.168.0.0/16"]), client_affinity: true, ..default },
        3 => PublishOptions { listen: vec![ListenOn::Interface("eth1".to_owned())], ..default },
        4 => PublishOptions { balance: Balance::LocalFirst, ..default },
        5 => PublishOptions { balance: Balance::Datagram, ..default },
        6 => PublishOptions { idle_timeout: Some(Duration::from_secs(30)), sources: nets(&["0.0.0.0/0"]), ..default },
        _ => default,
    };
    Some(PortOptions { protocol: Protocol::Tcp, published: port.try_into().unwrap(), options, answers: which != 7 })
}

fn endpoint(n: u8, task: &Task) -> LocatedEndpoint {
    LocatedEndpoint {
        key: EndpointKey { network: id(0), task: id(n.into()) },
        owner: id(task.node.into()),
        record: EndpointRecord {
            service: id(task.service.into()),
            addr: [10, 0, 1, n].into(),
            state: task.state,
            weight: task.weight,
            aliases: vec![],
        },
    }
}

fn local(n: u8, task: &Task) -> LocalTask {
    LocalTask {
        task: id(n.into()),
        addr: [10, 0, 1, n].into(),
        host_ifindex: 100 + u32::from(n),
        mac: [2, 0, 0, 0, 0, n],
        ipv6: true,
        state: task.state,
        host_ports: if task.host_port {
            vec![published(8000 + PORTS + u16::from(n), PublishMode::Host)]
        } else {
            vec![]
        },
        host_options: vec![],
    }
}

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
            for key in Lists::of(tables).networks().into_keys() {
                between.lists.entry(key.1.list).or_default().insert(key);
            }
            for (group, members) in &tables.groups {
                let names = members.ready.iter().map(slots::name);
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
            if entry.task != before.task {
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
        for (port, bits) in (0..=u16::MAX).zip(self.ports.iter().flat_map(|ports| bits(&ports[0]))) {
            let key = FrontendKey { port: port.to_be_bytes(), proto: Protocol::Tcp.number(), pad: 0 };
            assert!(!bits || self.found.frontends.contains_key(&key), "port {port} is published and has no frontend");
        }
        let owners = self.found.backends.iter().filter(|entry| entry.state != BACKEND_GONE).map(|entry| entry.task);
        assert!(only_once(owners), "two entries of one task");
        assert!(only_once(self.found.frontends.values().map(|frontend| frontend.number)), "two ports with one number");
    }

    /// What lookups come to, without the numbers that stand between.
    fn lookups(&self, names: &BTreeMap<u64, TaskId>) -> Lookups {
        let entry = |slot: u16| self.found.backends.get(usize::from(slot));
        let task = |slot: u16| entry(slot).and_then(|entry| names.get(&entry.task)).cloned();
        let list = |number: u32| -> Vec<_> {
            let own = self.found.networks.keys().filter(|(_, net)| net.list == number);
            own.map(|(bits, net)| (*bits, net.addr)).collect()
        };
        let frontends = self.found.frontends.iter().map(|(key, frontend)| {
            let table = &self.tables[&frontend.table];
            let slots = table.slots.iter().take(table.count as usize);
            let choices: Vec<_> = slots.map(|slot| task(*slot)).collect();
            let lists = [list(frontend.sources), list(frontend.listen)];
            (*key, (choices, lists, Frontend { number: 0, ..*frontend }))
        });
        let backends = self.found.backends.iter().filter(|entry| entry.state != BACKEND_GONE);
        Lookups {
            node: self.node,
            ports: self.ports.iter().flatten().map(|bits| bits.0.to_vec()).collect(),
            addresses: self.found.addresses.clone(),
            frontends: frontends.collect(),
            backends: backends.map(|entry| (entry.task, Backend { generation: 0, ..*entry })).collect(),
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
    addresses: BTreeMap<Addr, u32>,
    frontends: BTreeMap<FrontendKey, Choices>,
    backends: BTreeMap<u64, Backend>,
    locals: BTreeMap<LocalKey, Option<TaskId>>,
}

fn bits(ports: &PortBits) -> impl Iterator<Item = bool> + '_ {
    ports.0.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1))
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
fn numbers(picture: &Picture) -> BTreeMap<u64, (usize, Backend)> {
    let entries = picture.found.backends.iter().copied().enumerate();
    entries.filter(|(_, entry)| entry.state != BACKEND_GONE).map(|(n, entry)| (entry.task, (n, entry))).collect()
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
    (0..TASKS).for_each(|task| world.suffer(Change::Start { task, service: 0, node: 0 }));
    let found = Found { backends_room: 3, frontends_room: 32, ..Found::default() };
    let refused = Update::plan(&found, &compile(&world.desired()));
    assert!(matches!(refused, Err(DatapathError::Full { what: "tasks", count: 10, room: 3 })));
    let found = Found { backends_room: 32, frontends_room: 2, ..Found::default() };
    let refused = Update::plan(&found, &compile(&world.desired()));
    assert!(matches!(refused, Err(DatapathError::Full { what: "published ports", count: 4, room: 2 })));
}
