//! The maps, and how each is brought from what it holds to what it should hold.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, HashOfMaps, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod};
use skep_model::{Protocol, PublishMode};

use super::layout::{
    ADDRESS_MEMBER, ADDRESS_OWN, ADDRESS_TRUSTED, Addr, Backend, FRONTEND_HOST, Flow, FlowKey, Frontend, FrontendKey,
    LocalKey, Node, PORTS_TCP, PORTS_UDP, PortBits, Traffic,
};
use super::links::say;
use crate::datapath::{Applied, DatapathError};
use crate::maglev::SLOTS;
use crate::table::{self, AddressOwner, BackendKey, Place, Tables};

type FrontendTable = Array<MapData, Frontend>;

pub(super) struct Maps {
    pub(super) node: Array<MapData, Node>,
    pub(super) ports: Array<MapData, PortBits>,
    pub(super) addresses: HashMap<MapData, Addr, u32>,
    pub(super) frontends: HashOfMaps<MapData, FrontendKey, FrontendTable>,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) locals: HashMap<MapData, LocalKey, u32>,
    pub(super) flows: HashMap<MapData, FlowKey, Flow>,
    pub(super) counters: PerCpuArray<MapData, Traffic>,
    pub(super) drops: PerCpuArray<MapData, u64>,
}

/// Names the map in an error.
pub(super) fn in_map(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |error| DatapathError::Map { map, reason: say(&error) }
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            node: take(ebpf, "node")?,
            ports: take(ebpf, "ports")?,
            addresses: take(ebpf, "addresses")?,
            frontends: take(ebpf, "frontends")?,
            backends: take(ebpf, "backends")?,
            locals: take(ebpf, "locals")?,
            flows: take(ebpf, "flows")?,
            counters: take(ebpf, "counters")?,
            drops: take(ebpf, "drops")?,
        })
    }

    /// The entries of `backends` that have ever been used. They are given out from the front; the margin forgives an entry that was
    /// cleared by hand.
    pub(super) fn backends(&self) -> Result<Vec<Backend>, DatapathError> {
        const MARGIN: usize = 64;
        let mut entries = Vec::new();
        let mut unused = 0;
        for entry in self.backends.iter() {
            let entry = entry.map_err(in_map("backends"))?;
            unused = if entry.generation == 0 { unused + 1 } else { 0 };
            entries.push(entry);
            if unused > MARGIN {
                break;
            }
        }
        entries.truncate(entries.len() - unused);
        Ok(entries)
    }

    pub(super) fn write_backends(
        &mut self,
        entries: &[(u32, Backend)],
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for (slot, entry) in entries {
            self.backends.set(*slot, entry, 0).map_err(in_map("backends"))?;
            applied.written += 1;
        }
        Ok(())
    }

    pub(super) fn reset_counters(&mut self, slots: &[u32]) -> Result<(), DatapathError> {
        for &slot in slots {
            let cpus = self.counters.get(&slot, 0).map_err(in_map("counters"))?.len();
            let zero = PerCpuValues::try_from(vec![Traffic::default(); cpus]);
            let zero = zero.map_err(|e| DatapathError::Map { map: "counters", reason: e.to_string() })?;
            self.counters.set(slot, zero, 0).map_err(in_map("counters"))?;
        }
        Ok(())
    }

    pub(super) fn write_node(&mut self, node: &Node, applied: &mut Applied) -> Result<(), DatapathError> {
        if self.node.get(&0, 0).map_err(in_map("node"))? != *node {
            self.node.set(0, node, 0).map_err(in_map("node"))?;
            applied.written += 1;
        }
        Ok(())
    }

    pub(super) fn write_ports(&mut self, tables: &Tables, applied: &mut Applied) -> Result<(), DatapathError> {
        for (index, protocol) in [(PORTS_TCP, Protocol::Tcp), (PORTS_UDP, Protocol::Udp)] {
            let mut bits = PortBits([0; 1024]);
            for key in tables.frontends.keys().filter(|key| key.protocol == protocol) {
                bits.0[usize::from(key.port >> 6)] |= 1 << (key.port & 63);
            }
            if self.ports.get(&index, 0).map_err(in_map("ports"))? != bits {
                self.ports.set(index, bits, 0).map_err(in_map("ports"))?;
                applied.written += 1;
            }
        }
        Ok(())
    }

    /// Inserts and replaces; [`Self::prune_frontends`] removes.
    pub(super) fn write_frontends(
        &mut self,
        tables: &Tables,
        slots: &BTreeMap<BackendKey, u32>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        let failed = in_map("frontends");
        for (key, frontend) in &tables.frontends {
            let wanted = encode_frontend(*key, frontend, slots);
            let raw = encode_key(*key);
            let found = self.frontends.get(&raw, 0).and_then(|inner| inner.get(&0, 0));
            if found.is_ok_and(|found| found == wanted) {
                continue;
            }
            let mut inner = FrontendTable::create(1, 0).map_err(&failed)?;
            inner.set(0, wanted, 0).map_err(&failed)?;
            self.frontends.insert(raw, &inner, 0).map_err(&failed)?;
            applied.written += 1;
        }
        Ok(())
    }

    pub(super) fn prune_frontends(&mut self, tables: &Tables, applied: &mut Applied) -> Result<(), DatapathError> {
        let wanted: BTreeSet<FrontendKey> = tables.frontends.keys().map(|key| encode_key(*key)).collect();
        let found: Vec<FrontendKey> = self.frontends.keys().collect::<Result<_, _>>().map_err(in_map("frontends"))?;
        for key in found.iter().filter(|key| !wanted.contains(key)) {
            self.frontends.remove(key).map_err(in_map("frontends"))?;
            applied.removed += 1;
        }
        Ok(())
    }
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(DatapathError::Map { map: name, reason: "not in the object".to_owned() })?;
    T::try_from(map).map_err(in_map(name))
}

/// What a hash map should hold, so that it can be brought there in two steps: additions before anything refers to them, removals after.
pub(super) struct Wanted<K, V> {
    pub(super) name: &'static str,
    pub(super) entries: BTreeMap<K, V>,
}

impl<K: Pod + Ord, V: Pod + PartialEq> Wanted<K, V> {
    pub(super) fn write(&self, map: &mut HashMap<MapData, K, V>, applied: &mut Applied) -> Result<(), DatapathError> {
        for (key, value) in &self.entries {
            if map.get(key, 0).is_ok_and(|found| found == *value) {
                continue;
            }
            map.insert(key, value, 0).map_err(in_map(self.name))?;
            applied.written += 1;
        }
        Ok(())
    }

    pub(super) fn prune(&self, map: &mut HashMap<MapData, K, V>, applied: &mut Applied) -> Result<(), DatapathError> {
        let found: Vec<K> = map.keys().collect::<Result<_, _>>().map_err(in_map(self.name))?;
        for key in found.iter().filter(|key| !self.entries.contains_key(key)) {
            map.remove(key).map_err(in_map(self.name))?;
            applied.removed += 1;
        }
        Ok(())
    }
}

pub(super) fn addresses(tables: &Tables) -> Wanted<Addr, u32> {
    let mut entries = BTreeMap::new();
    for (&addr, owner) in &tables.addresses {
        let flags = match owner {
            AddressOwner::Own => ADDRESS_OWN,
            AddressOwner::Member => ADDRESS_MEMBER,
        };
        *entries.entry(Addr::from(addr)).or_default() |= flags;
    }
    for &addr in &tables.members {
        *entries.entry(Addr::from(addr)).or_default() |= ADDRESS_TRUSTED;
    }
    Wanted { name: "addresses", entries }
}

/// The node's own tasks, and where they serve.
pub(super) fn locals(tables: &Tables, slots: &BTreeMap<BackendKey, u32>) -> Wanted<LocalKey, u32> {
    let mut entries = BTreeMap::new();
    for (key, backend) in tables.backends.iter().filter(|(_, b)| matches!(b.place, Place::Here { .. })) {
        let Some(&slot) = slots.get(key) else { continue };
        let proto = key.frontend.map_or(0, |f| f.protocol.number());
        let local = LocalKey { addr: backend.addr.into(), port: backend.port.to_be_bytes(), proto, pad: 0 };
        // Several published ports may lead to one port of the task: the first stands for all.
        entries.entry(local).or_insert(slot);
    }
    Wanted { name: "locals", entries }
}

fn encode_key(key: table::FrontendKey) -> FrontendKey {
    FrontendKey { port: key.port.to_be_bytes(), proto: key.protocol.number(), pad: 0 }
}

fn encode_frontend(key: table::FrontendKey, frontend: &table::Frontend, slots: &BTreeMap<BackendKey, u32>) -> Frontend {
    let slot_of =
        |task: &skep_model::TaskId| slots.get(&BackendKey { frontend: Some(key), task: task.clone() }).copied();
    let ready: Vec<Option<u32>> = frontend.ready.iter().map(slot_of).collect();
    let mut encoded = Frontend { flags: 0, count: 0, slots: [0; SLOTS] };
    if frontend.mode == PublishMode::Host {
        encoded.flags |= FRONTEND_HOST;
    }
    for (place, index) in encoded.slots.iter_mut().zip(&frontend.slots) {
        *place = ready[*index as usize].unwrap_or_default();
        encoded.count += 1;
    }
    encoded
}
