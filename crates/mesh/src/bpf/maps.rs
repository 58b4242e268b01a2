//! The maps, and how each is brought from what it holds to what it should hold.

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};

use super::layout::{
    Addr, Address, Backend, Frontend, FrontendKey, LocalKey, Network, Node, Peer, PortBits, Table, Traffic, Vip, Way,
};
use super::links::say;
use super::pins::Pins;
use super::update::{Found, Step, Update};
use crate::datapath::{Applied, DatapathError};

pub(super) struct Maps {
    pub(super) node: Array<MapData, Node>,
    pub(super) ports: Array<MapData, PortBits>,
    pub(super) addresses: HashMap<MapData, Addr, Address>,
    pub(super) networks: LpmTrie<MapData, Network, u32>,
    pub(super) frontends: HashMap<MapData, FrontendKey, Frontend>,
    pub(super) vips: HashMap<MapData, Vip, Frontend>,
    pub(super) prefixes: HashMap<MapData, u32, Addr>,
    pub(super) ways: LpmTrie<MapData, Addr, Way>,
    pub(super) tables: HashMap<MapData, u32, Table>,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) locals: HashMap<MapData, LocalKey, u32>,
    pub(super) suspects: Array<MapData, u32>,
    pub(super) peers: Array<MapData, Peer>,
    pub(super) proofs: HashMap<MapData, Addr, u32>,
    pub(super) counters: PerCpuArray<MapData, Traffic>,
    pub(super) port_counters: PerCpuArray<MapData, Traffic>,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) events: PerCpuArray<MapData, u64>,
}

/// Names the map in an error.
pub(super) fn in_map(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |error| DatapathError::Map { map, reason: say(&error) }
}

impl Maps {
    /// Those that are pinned.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            node: open(pins, "node")?,
            ports: open(pins, "ports")?,
            addresses: open(pins, "addresses")?,
            networks: open(pins, "networks")?,
            frontends: open(pins, "frontends")?,
            vips: open(pins, "vips")?,
            prefixes: open(pins, "prefixes")?,
            ways: open(pins, "ways")?,
            tables: open(pins, "tables")?,
            backends: open(pins, "backends")?,
            locals: open(pins, "locals")?,
            suspects: open(pins, "suspects")?,
            peers: open(pins, "peers")?,
            proofs: open(pins, "proofs")?,
            counters: open(pins, "counters")?,
            port_counters: open(pins, "port_counters")?,
            drops: open(pins, "drops")?,
            events: open(pins, "events")?,
        })
    }

    pub(super) fn found(&self) -> Result<Found, DatapathError> {
        Ok(Found {
            backends: self.backends()?,
            backends_room: u16::try_from(self.backends.len()).unwrap_or(u16::MAX),
            frontends: self.frontends.entries().map_err(in_map("frontends"))?,
            frontends_room: self.port_counters.len(),
            vips: self.vips.entries().map_err(in_map("vips"))?,
            prefixes: self.prefixes.entries().map_err(in_map("prefixes"))?,
            ways: self.ways.entries().map_err(in_map("ways"))?,
            addresses: self.addresses.entries().map_err(in_map("addresses"))?,
            locals: self.locals.entries().map_err(in_map("locals"))?,
            networks: self.networks.entries().map_err(in_map("networks"))?,
        })
    }

    pub(super) fn carry_out(
        &mut self,
        step: Step,
        update: &Update,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        match step {
            Step::Node => self.write_node(&update.node, applied),
            Step::ResetCounters => {
                let slots = update.backends.fresh.iter().map(|&slot| u32::from(slot));
                reset(&mut self.counters, "counters", slots.flat_map(|slot| [slot * 2, slot * 2 + 1]))?;
                reset(&mut self.port_counters, "port_counters", update.fresh_frontends.iter().copied())
            }
            Step::PutPrefixes => update.prefixes.put(&mut self.prefixes, applied),
            Step::WriteBackends => self.write_backends(&update.backends.write, applied),
            Step::PutLocals => update.locals.put(&mut self.locals, applied),
            Step::PutAddresses => update.addresses.put(&mut self.addresses, applied),
            Step::PutNetworks => update.networks.put(&mut self.networks, applied),
            Step::PutWays => update.ways.put(&mut self.ways, applied),
            Step::WriteTables => self.tables_to(update)?.put(&mut self.tables, applied),
            Step::PutFrontends => update.frontends.put(&mut self.frontends, applied),
            Step::PutVips => update.vips.put(&mut self.vips, applied),
            Step::WritePorts => self.write_ports(&update.ports, applied),
            Step::DeleteFrontends => update.frontends.delete(&mut self.frontends, applied),
            Step::DeleteVips => update.vips.delete(&mut self.vips, applied),
            Step::PruneTables => self.tables_to(update)?.delete(&mut self.tables, applied),
            Step::DeleteWays => update.ways.delete(&mut self.ways, applied),
            Step::DeleteNetworks => update.networks.delete(&mut self.networks, applied),
            Step::DeleteLocals => update.locals.delete(&mut self.locals, applied),
            Step::DeleteAddresses => update.addresses.delete(&mut self.addresses, applied),
            Step::RetireBackends => self.write_backends(&update.backends.retire, applied),
            Step::DeletePrefixes => update.prefixes.delete(&mut self.prefixes, applied),
        }
    }

    /// They are read when they are written: all together they are the biggest part.
    fn tables_to(&self, update: &Update) -> Result<Changes<u32, Table>, DatapathError> {
        let found = self.tables.entries().map_err(in_map("tables"))?;
        Ok(Changes::between("tables", &found, update.tables.clone()))
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
        entries: &[(u16, Backend)],
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for (slot, entry) in entries {
            self.backends.set(u32::from(*slot), entry, 0).map_err(in_map("backends"))?;
            applied.written += 1;
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

    pub(super) fn write_ports(&mut self, wanted: &[PortBits], applied: &mut Applied) -> Result<(), DatapathError> {
        for (index, bits) in (0..).zip(wanted) {
            if self.ports.get(&index, 0).map_err(in_map("ports"))? != *bits {
                self.ports.set(index, *bits, 0).map_err(in_map("ports"))?;
                applied.written += 1;
            }
        }
        Ok(())
    }
}

fn open<T>(pins: &Pins, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let data = MapData::from_pin(pins.dir().join(name)).map_err(in_map(name))?;
    T::try_from(Map::from_map_data(data).map_err(in_map(name))?).map_err(in_map(name))
}

/// Sets counters back to nothing.
fn reset(
    map: &mut PerCpuArray<MapData, Traffic>,
    name: &'static str,
    indexes: impl Iterator<Item = u32>,
) -> Result<(), DatapathError> {
    for index in indexes {
        let cpus = map.get(&index, 0).map_err(in_map(name))?.len();
        let zero = PerCpuValues::try_from(vec![Traffic::default(); cpus]);
        let zero = zero.map_err(|e| DatapathError::Map { map: name, reason: e.to_string() })?;
        map.set(index, zero, 0).map_err(in_map(name))?;
    }
    Ok(())
}

/// A map from keys to values that can be brought to what it should hold.
pub(super) trait Keyed<K, V> {
    fn entries(&self) -> Result<BTreeMap<K, V>, MapError>;
    fn put(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    fn delete(&mut self, key: &K) -> Result<(), MapError>;
}

impl<K: Pod + Ord, V: Pod> Keyed<K, V> for HashMap<MapData, K, V> {
    fn entries(&self) -> Result<BTreeMap<K, V>, MapError> {
        self.iter().collect()
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.insert(key, value, 0)
    }

    fn delete(&mut self, key: &K) -> Result<(), MapError> {
        self.remove(key)
    }
}

/// A network of a list: how many bits of the rest count, those of the list's number among them.
pub(super) type NetworkKey = (u32, Network);

/// A route of the node: how many bits of the address count.
pub(super) type WayKey = (u32, Addr);

impl<K: Pod + Ord, V: Pod> Keyed<(u32, K), V> for LpmTrie<MapData, K, V> {
    fn entries(&self) -> Result<BTreeMap<(u32, K), V>, MapError> {
        self.iter().map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value))).collect()
    }

    fn put(&mut self, key: &(u32, K), value: &V) -> Result<(), MapError> {
        self.insert(&Key::new(key.0, key.1), value, 0)
    }

    fn delete(&mut self, key: &(u32, K)) -> Result<(), MapError> {
        self.remove(&Key::new(key.0, key.1))
    }
}

/// The way from what a map holds to what it should hold, in two steps: additions before anything refers to them, removals after.
pub(super) struct Changes<K, V> {
    name: &'static str,
    pub(super) put: Vec<(K, V)>,
    pub(super) delete: Vec<K>,
}

impl<K: Copy + Ord, V: PartialEq> Changes<K, V> {
    pub(super) fn between(name: &'static str, found: &BTreeMap<K, V>, wanted: BTreeMap<K, V>) -> Self {
        let delete = found.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let put = wanted.into_iter().filter(|(key, value)| found.get(key) != Some(value)).collect();
        Self { name, put, delete }
    }

    pub(super) fn put(&self, map: &mut impl Keyed<K, V>, applied: &mut Applied) -> Result<(), DatapathError> {
        for (key, value) in &self.put {
            map.put(key, value).map_err(in_map(self.name))?;
            applied.written += 1;
        }
        Ok(())
    }

    pub(super) fn delete(&self, map: &mut impl Keyed<K, V>, applied: &mut Applied) -> Result<(), DatapathError> {
        for key in &self.delete {
            map.delete(key).map_err(in_map(self.name))?;
            applied.removed += 1;
        }
        Ok(())
    }
}
