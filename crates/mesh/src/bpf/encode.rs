//! From [`Tables`] to the bytes of the maps. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use skep_model::{EndpointKey, Prefix6, Protocol, PublishMode};

use super::PROBE_PORT;
use super::layout::{
    ADDRESS_DIRECT, ADDRESS_MEMBER, ADDRESS_OWN, ADDRESS_TRUSTED, Addr, Address, FRONTEND_AFFINITY, FRONTEND_HOST,
    FRONTEND_PREFIX, FRONTEND_SILENT, Frontend, FrontendKey, IDLE_AT_ONCE, LAYOUT, LIST_OVERLAYS, LocalKey, NO_PORT,
    NODE_REPLY_DIRECT, Network, Node, PortBits, Table, Vip, Way,
};
use super::maps::{NetworkKey, WayKey};
use crate::datapath::DatapathError;
use crate::maglev::{self, SLOTS};
use crate::table::{self, AddressOwner, Answering, GroupKey, Idle, NodeFacts, Place, Tables};

/// Routes that fit, as `bpf/maps.h` says.
const WAYS: usize = 16_384;

pub(super) fn node(facts: &NodeFacts) -> Node {
    Node {
        layout: LAYOUT,
        flags: if facts.reply_direct { NODE_REPLY_DIRECT } else { 0 },
        underlay: facts.underlay.into(),
        overlay: facts.overlay.octets(),
        loopback: facts.loopback,
        overlay_ifindex: facts.overlay_ifindex,
        mtu: u32::from(facts.overlay_mtu),
        uplink: facts.uplink,
        tunnel_port: facts.overlay_port.to_be_bytes(),
        pad: 0,
    }
}

/// For TCP, UDP and SCTP, in this order. Ports that a process of the node has are left to it; the one that probes come to is looked at
/// where nodes may answer for each other.
pub(super) fn ports(tables: &Tables) -> [PortBits; 3] {
    let mut ports = [PortBits([0; 1024]); 3];
    let here = tables.frontends.iter().filter(|(_, frontend)| frontend.answering != Answering::Taken);
    for (key, _) in here {
        let index = match key.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        };
        ports[index].0[usize::from(key.port >> 6)] |= 1 << (key.port & 63);
    }
    if tables.node.reply_direct {
        ports[1].0[usize::from(PROBE_PORT >> 6)] |= 1 << (PROBE_PORT & 63);
    }
    ports
}

pub(super) fn addresses(tables: &Tables) -> BTreeMap<Addr, Address> {
    let owners = tables.addresses.iter().map(|(&addr, owner)| match owner {
        AddressOwner::Own => (addr, ADDRESS_OWN),
        AddressOwner::Member => (addr, ADDRESS_MEMBER),
    });
    let members = tables.members.iter().map(|&addr| (addr, ADDRESS_TRUSTED));
    let direct = tables.direct.intersection(&tables.members).map(|&addr| (addr, ADDRESS_DIRECT));
    let mut entries: BTreeMap<_, Address> = BTreeMap::new();
    for (addr, flag) in owners.chain(members).chain(direct) {
        entries.entry(Addr::from(addr)).or_default().flags |= flag;
    }
    for (&addr, &device) in &tables.straight {
        entries.entry(Addr::from(addr)).or_default().ifindex = device;
    }
    entries
}

/// All tasks by their addresses, and what those of the node serve on.
pub(super) fn locals(tables: &Tables, slots: &BTreeMap<EndpointKey, u16>) -> BTreeMap<LocalKey, u32> {
    let here = |task: &EndpointKey| tables.backends.get(task).filter(|b| matches!(b.place, Place::Here { .. }));
    let tasks = slots.iter().filter_map(|(task, &slot)| {
        let addr = tables.backends.get(task)?.addr.octets();
        Some((LocalKey { addr, port: [0; 2], proto: 0, pad: 0 }, u32::from(slot)))
    });
    let with_tasks: BTreeSet<&GroupKey> = tables
        .groups
        .iter()
        .filter(|(_, group)| group.ready.iter().any(|task| here(task).is_some()))
        .map(|(key, _)| key)
        .collect();
    let served =
        tables.frontends.iter().filter(|(_, frontend)| with_tasks.contains(&frontend.group)).map(|(key, f)| {
            (LocalKey { addr: [0; 4], port: f.target.to_be_bytes(), proto: key.protocol.number(), pad: 0 }, 0)
        });
    tasks.chain(served).collect()
}

/// Services' own addresses.
pub(super) fn vips(tables: &Tables) -> BTreeMap<Vip, Frontend> {
    let encode = |vip: &table::Vip| Frontend {
        table: table_number(&vip.group),
        number: NO_PORT,
        sources: 0,
        listen: 0,
        network: vip.network,
        target: [0; 2],
        flags: if vip.prefix6 == Prefix6::MESH { 0 } else { FRONTEND_PREFIX },
        idle: 0,
        pad: 0,
    };
    tables.vips.iter().map(|(addr, vip)| (Vip(addr.octets()), encode(vip))).collect()
}

/// How IPv6 addresses begin on networks where that is not as on all others, by their numbers.
pub(super) fn prefixes(tables: &Tables) -> BTreeMap<u32, Addr> {
    let backends = tables.backends.values().map(|backend| (backend.network, backend.prefix6));
    let all = backends.chain(tables.vips.values().map(|vip| (vip.network, vip.prefix6)));
    let own = all.filter(|(_, prefix)| *prefix != Prefix6::MESH);
    own.map(|(network, prefix)| (network, IpAddr::from(prefix.with(Ipv4Addr::UNSPECIFIED)).into())).collect()
}

/// The node's routes; the most general ones when they do not all fit.
pub(super) fn ways(tables: &Tables) -> BTreeMap<WayKey, Way> {
    let mut ways: Vec<_> = tables.ways.iter().collect();
    ways.sort_by_key(|(net, _)| net.prefix_len());
    let encode = |(net, way): (&IpNet, &table::Way)| {
        let (bits, addr) = prefix(net);
        ((bits, addr), Way { source: way.source.into(), ifindex: way.device, mtu: u32::from(way.mtu) })
    };
    ways.into_iter().take(WAYS).map(encode).collect()
}

/// The swarm's own networks as a list of its own, and all lists of `lists`.
pub(super) fn networks(tables: &Tables, lists: &Lists) -> BTreeMap<NetworkKey, u32> {
    let own = tables.subnets.iter().map(|(net, number)| (network(LIST_OVERLAYS, net), *number));
    lists.networks().into_iter().chain(own).collect()
}

/// Lists of networks by number: equal lists share one.
#[derive(Default)]
pub(super) struct Lists {
    numbers: BTreeMap<BTreeSet<IpNet>, u32>,
}

impl Lists {
    pub(super) fn of(tables: &Tables) -> Self {
        let frontends = tables.frontends.values();
        let lists: BTreeSet<_> = frontends.flat_map(|f| f.listen.iter().chain(&f.sources)).collect();
        let mut taken = BTreeSet::from([LIST_OVERLAYS]);
        let mut numbers = BTreeMap::new();
        for list in lists {
            let number = (0..).map(|salt| digest(list, salt)).find(|number| taken.insert(*number));
            numbers.insert(list.clone(), number.unwrap_or_default());
        }
        Self { numbers }
    }

    /// 0 stands for no list.
    fn number(&self, list: Option<&BTreeSet<IpNet>>) -> u32 {
        list.and_then(|list| self.numbers.get(list)).copied().unwrap_or(0)
    }

    pub(super) fn networks(&self) -> BTreeMap<NetworkKey, u32> {
        let keys = self.numbers.iter().flat_map(|(list, &number)| list.iter().map(move |net| network(number, net)));
        keys.map(|key| (key, 1)).collect()
    }
}

fn network(list: u32, net: &IpNet) -> NetworkKey {
    let (bits, addr) = prefix(net);
    (32 + bits, Network { list, addr })
}

/// A network of mapped addresses.
fn prefix(net: &IpNet) -> (u32, Addr) {
    let mapped = match net.network() {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    (mapped + u32::from(net.prefix_len()), net.network().into())
}

/// The same for equal values on every run of the daemon: numbers are found again in the maps.
fn digest(value: &impl Hash, salt: u64) -> u32 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ salt);
    value.hash(&mut hasher);
    (hasher.finish() >> 16) as u32
}

/// FNV-1a; the standard library's hashers make no promise over versions.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The number of a group's table: from its name, so that every daemon comes to the same.
pub(super) fn table_number(group: &GroupKey) -> u32 {
    let name = match group {
        GroupKey::Service(service, local_first) => format!("{service}/{local_first}"),
        GroupKey::Host(key) => format!("{}/{}", key.protocol, key.port),
        GroupKey::Vip(service, network) => format!("{service}/{network}"),
    };
    (maglev::hash(&name, 1) >> 32) as u32
}

pub(super) fn tables(tables: &Tables, slots: &BTreeMap<EndpointKey, u16>) -> BTreeMap<u32, Table> {
    let encode = |(key, group): (&GroupKey, &table::Group)| {
        let number = table_number(key);
        let ready: Vec<u16> = group.ready.iter().map(|task| slots.get(task).copied().unwrap_or_default()).collect();
        let mut table = Table { number, count: 0, slots: [0; SLOTS + 1] };
        for (place, index) in table.slots.iter_mut().zip(&group.slots) {
            *place = ready[*index as usize];
            table.count += 1;
        }
        (number, table)
    };
    tables.groups.iter().map(encode).collect()
}

/// The ports as they should be, and which of their numbers are new: each port keeps the number that it has.
pub(super) struct Frontends {
    pub(super) entries: BTreeMap<FrontendKey, Frontend>,
    pub(super) fresh: Vec<u32>,
}

impl Frontends {
    pub(super) fn plan(
        tables: &Tables,
        lists: &Lists,
        found: &BTreeMap<FrontendKey, Frontend>,
        room: u32,
    ) -> Result<Self, DatapathError> {
        let count = tables.frontends.len();
        let full = || DatapathError::Full { what: "published ports", count, room: room as usize };
        let keys: BTreeMap<FrontendKey, _> = tables.frontends.iter().map(|(key, f)| (encode_key(*key), f)).collect();
        // One that leaves keeps its number this time: packets may still be counted there.
        let mut used: BTreeSet<u32> = found.values().map(|f| f.number).collect();
        let mut next = 0;
        let mut fresh = Vec::new();
        let mut entries = BTreeMap::new();
        for (key, frontend) in keys {
            let number = match found.get(&key) {
                Some(found) => found.number,
                None => {
                    next = (next..room).find(|number| !used.contains(number)).ok_or_else(full)?;
                    used.insert(next);
                    fresh.push(next);
                    next
                }
            };
            entries.insert(key, encode(frontend, lists, number));
        }
        Ok(Self { entries, fresh })
    }
}

fn encode_key(key: table::FrontendKey) -> FrontendKey {
    FrontendKey { port: key.port.to_be_bytes(), proto: key.protocol.number(), pad: 0 }
}

pub(super) fn decode_key(key: FrontendKey) -> Option<table::FrontendKey> {
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == key.proto)?;
    Some(table::FrontendKey { protocol, port: u16::from_be_bytes(key.port) })
}

fn encode(frontend: &table::Frontend, lists: &Lists, number: u32) -> Frontend {
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    Frontend {
        table: table_number(&frontend.group),
        number,
        sources: lists.number(frontend.sources.as_ref()),
        listen: lists.number(frontend.listen.as_ref()),
        network: 0,
        target: frontend.target.to_be_bytes(),
        flags: flag(frontend.mode == PublishMode::Host, FRONTEND_HOST)
            | flag(frontend.answering != Answering::Yes, FRONTEND_SILENT)
            | flag(frontend.affinity, FRONTEND_AFFINITY),
        idle: match frontend.idle {
            Idle::Default => 0,
            Idle::After(time) => u16::try_from(time.as_secs()).unwrap_or(u16::MAX).clamp(1, IDLE_AT_ONCE - 1),
            Idle::AtOnce => IDLE_AT_ONCE,
        },
        pad: 0,
    }
}
