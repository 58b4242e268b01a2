//! One node's table as another one holds it: with what has changed since when, so that a change can be told without the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use skep_model::{EndpointKey, EndpointRecord, EndpointState, NetworkId, NodeId, OwnerTable, TaskId};

use crate::wire;

/// How many changes of a table are remembered. Who lags further behind is told the whole table.
const REMEMBERED: usize = 512;

/// The part of a table that has changed between two of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Whose table.
    pub owner: NodeId,
    /// Whoever knows this version, or a later one before `to`, may take the delta. 0 for a whole table: anybody may.
    pub from: u64,
    /// The version that it leads to.
    pub to: u64,
    /// Records that are new or different.
    pub changed: Vec<(EndpointKey, Arc<EndpointRecord>)>,
    /// Records of which nothing but the state is different: most changes are of this kind.
    pub states: Vec<(ShortKey, EndpointState)>,
    /// Records that are gone.
    pub removed: Vec<ShortKey>,
    /// The node's addresses, if they are others than before.
    pub addresses: Option<BTreeSet<IpAddr>>,
}

impl Delta {
    /// Whether it says everything, and not just what has changed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from == 0
    }
}

/// A record that the other side knows: as much of its key as tells it from the others of one table. Should that be too little, the digests
/// differ, and the table is told whole in the next exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortKey {
    /// A hash of the network.
    pub network: u32,
    /// The first 12 digits of the task, as a number: 62 random bits.
    pub task: u64,
}

impl From<&EndpointKey> for ShortKey {
    fn from(key: &EndpointKey) -> Self {
        Self { network: short(&key.network), task: wire::head(key.task.as_str()) }
    }
}

fn short(network: &NetworkId) -> u32 {
    let mut hash = Fnv::default();
    hash.eat(network.as_str().as_bytes());
    hash.done() as u32
}

/// The last of all tasks, in their order.
static LAST_TASK: LazyLock<TaskId> = LazyLock::new(|| "z".repeat(25).parse().expect("25 digits are an identifier"));

/// When a record changed last.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    /// In any way.
    any: u64,
    /// In more than its state.
    more: u64,
}

/// A table, and at which version its newest changes were made.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    table: Arc<OwnerTable>,
    /// What changed up to this version is not remembered.
    floor: u64,
    changed: BTreeMap<EndpointKey, Stamp>,
    /// Also records that were never known here, because they came and went between two versions: others may know them, and are told from here.
    removed: BTreeMap<ShortKey, u64>,
    addresses_at: u64,
    digest: u64,
}

impl Held {
    /// A table of which only the present is known.
    pub(crate) fn whole(table: OwnerTable) -> Self {
        let digest = digest(&table);
        Self {
            floor: table.version,
            table: Arc::new(table),
            changed: BTreeMap::new(),
            removed: BTreeMap::new(),
            addresses_at: 0,
            digest,
        }
    }

    pub(crate) fn table(&self) -> &Arc<OwnerTable> {
        &self.table
    }

    /// By version first, then by content: how two tables of one owner are compared.
    pub(crate) fn rank(&self) -> (u64, u64) {
        (self.table.version, self.digest)
    }

    /// Goes on to `version`, the next one, with these changes.
    pub(crate) fn advance(
        &mut self,
        version: u64,
        changed: impl IntoIterator<Item = (EndpointKey, Arc<EndpointRecord>)>,
        removed: impl IntoIterator<Item = ShortKey>,
        addresses: Option<BTreeSet<IpAddr>>,
    ) {
        for (key, record) in changed {
            let before = self.table.records.get(&key);
            let same = before.is_some_and(|before| differ_in_state_alone(before, &record));
            self.put(Stamp { any: version, more: if same { self.more(&key) } else { version } }, key, record);
        }
        removed.into_iter().for_each(|key| self.remove(version, key));
        self.finish(version, addresses);
    }

    /// Takes in a delta that fits.
    pub(crate) fn take(&mut self, delta: Delta) {
        let version = delta.to;
        for (short, state) in delta.states {
            let Some(key) = self.find(&short) else { continue };
            let Some(before) = self.table.records.get(&key) else { continue };
            let record = EndpointRecord { state, ..EndpointRecord::clone(before) };
            self.put(Stamp { any: version, more: self.more(&key) }, key, record.into());
        }
        for (key, record) in delta.changed {
            // Even if it looks the same here as before: at a version between, which others may know, it did not.
            self.put(Stamp { any: version, more: version }, key, record);
        }
        delta.removed.into_iter().for_each(|key| self.remove(version, key));
        self.finish(version, delta.addresses);
    }

    /// When more than its state changed last in a record, as far as is remembered.
    fn more(&self, key: &EndpointKey) -> u64 {
        self.changed.get(key).map_or(0, |stamp| stamp.more)
    }

    fn finish(&mut self, version: u64, addresses: Option<BTreeSet<IpAddr>>) {
        let table = Arc::make_mut(&mut self.table);
        table.version = version;
        if let Some(addresses) = addresses {
            self.digest = self.digest.wrapping_sub(addresses_digest(&table.addresses));
            self.digest = self.digest.wrapping_add(addresses_digest(&addresses));
            table.addresses = addresses;
            self.addresses_at = version;
        }
        self.forget();
    }

    fn find(&self, key: &ShortKey) -> Option<EndpointKey> {
        let records = &self.table.records;
        let mut after = Bound::Unbounded;
        // From network to network: there are few in one table.
        while let Some((first, _)) = records.range((after, Bound::Unbounded)).next() {
            let network = first.network.clone();
            if short(&network) == key.network {
                let least = EndpointKey { network: network.clone(), task: wire::least(key.task)? };
                let next = records.range(least..).next().map(|(found, _)| found);
                if let Some(found) = next.filter(|found| ShortKey::from(*found) == *key) {
                    return Some(found.clone());
                }
            }
            after = Bound::Excluded(EndpointKey { network, task: LAST_TASK.clone() });
        }
        None
    }

    fn put(&mut self, stamp: Stamp, key: EndpointKey, record: Arc<EndpointRecord>) {
        self.removed.remove(&ShortKey::from(&key));
        self.digest = self.digest.wrapping_add(record_digest(&key, &record));
        if let Some(before) = Arc::make_mut(&mut self.table).records.insert(key.clone(), record) {
            self.digest = self.digest.wrapping_sub(record_digest(&key, &before));
        }
        self.changed.insert(key, stamp);
    }

    fn remove(&mut self, version: u64, short: ShortKey) {
        if let Some(key) = self.find(&short) {
            self.changed.remove(&key);
            if let Some(before) = Arc::make_mut(&mut self.table).records.remove(&key) {
                self.digest = self.digest.wrapping_sub(record_digest(&key, &before));
            }
        }
        self.removed.insert(short, version);
    }

    /// Raises the version above what others believe. What they believe may be anything, so nobody may add a change to it: from now on
    /// only the whole table is told.
    pub(crate) fn outdo(&mut self, version: u64) {
        Arc::make_mut(&mut self.table).version = version;
        self.floor = version;
        self.changed.clear();
        self.removed.clear();
    }

    /// What somebody who knows version `from` has to be told.
    pub(crate) fn delta(&self, owner: &NodeId, from: u64) -> Delta {
        let to = self.table.version;
        if from < self.floor || from == 0 || from >= to {
            return self.all(owner);
        }
        let mut delta = Delta {
            owner: owner.clone(),
            from,
            to,
            changed: Vec::new(),
            states: Vec::new(),
            removed: self.removed.iter().filter(|(_, at)| **at > from).map(|(key, _)| *key).collect(),
            addresses: (self.addresses_at > from).then(|| self.table.addresses.clone()),
        };
        for (key, stamp) in self.changed.iter().filter(|(_, stamp)| stamp.any > from) {
            let Some(record) = self.table.records.get(key) else { continue };
            if stamp.more > from {
                delta.changed.push((key.clone(), record.clone()));
            } else {
                delta.states.push((key.into(), record.state));
            }
        }
        delta
    }

    fn all(&self, owner: &NodeId) -> Delta {
        Delta {
            owner: owner.clone(),
            from: 0,
            to: self.table.version,
            changed: self.table.records.iter().map(|(key, record)| (key.clone(), record.clone())).collect(),
            states: Vec::new(),
            removed: Vec::new(),
            addresses: Some(self.table.addresses.clone()),
        }
    }

    fn forget(&mut self) {
        if self.changed.len() + self.removed.len() <= REMEMBERED {
            return;
        }
        let changed = self.changed.values().map(|stamp| stamp.any);
        let mut stamps: Vec<u64> = changed.chain(self.removed.values().copied()).collect();
        let (_, middle, _) = stamps.select_nth_unstable(REMEMBERED / 2);
        self.floor = *middle;
        self.changed.retain(|_, stamp| stamp.any > self.floor);
        self.removed.retain(|_, at| *at > self.floor);
    }
}

fn differ_in_state_alone(one: &EndpointRecord, other: &EndpointRecord) -> bool {
    let EndpointRecord { service, addr, state: _, weight, aliases, host_ports } = one;
    let rest = (&other.service, &other.addr, &other.weight, &other.aliases, &other.host_ports);
    (service, addr, weight, aliases, host_ports) == rest
}

impl From<Delta> for Held {
    /// The table that a whole delta tells.
    fn from(delta: Delta) -> Self {
        Self::whole(OwnerTable {
            version: delta.to,
            records: delta.changed.into_iter().collect(),
            addresses: delta.addresses.unwrap_or_default(),
        })
    }
}

/// A number for what a table says, without its version. The sum of what its parts give, so that a change costs no more than itself. Against
/// mistakes, not against forgers: tables come from members only.
fn digest(table: &OwnerTable) -> u64 {
    let records = table.records.iter().map(|(key, record)| record_digest(key, record));
    records.fold(addresses_digest(&table.addresses), u64::wrapping_add)
}

fn record_digest(key: &EndpointKey, record: &EndpointRecord) -> u64 {
    let mut hash = Fnv::default();
    [key.network.as_str(), key.task.as_str(), record.service.as_str()].iter().for_each(|id| hash.eat(id.as_bytes()));
    hash.eat(&record.addr.octets());
    hash.eat(&[match record.state {
        EndpointState::Starting => 0,
        EndpointState::Ready => 1,
        EndpointState::Draining => 2,
    }]);
    hash.eat(&record.weight.to_be_bytes());
    for alias in &record.aliases {
        hash.eat(&[u8::MAX]);
        hash.eat(alias.as_bytes());
    }
    for port in &record.host_ports {
        hash.eat(&[u8::MAX - 1, port.protocol.number()]);
        hash.eat(&port.target.get().to_be_bytes());
        hash.eat(&port.published.get().to_be_bytes());
    }
    hash.done()
}

fn addresses_digest(addresses: &BTreeSet<IpAddr>) -> u64 {
    let one = |address: &IpAddr| {
        let mut hash = Fnv::default();
        match address {
            IpAddr::V4(address) => hash.eat(&address.octets()),
            IpAddr::V6(address) => hash.eat(&address.octets()),
        }
        hash.done()
    };
    addresses.iter().map(one).fold(0, u64::wrapping_add)
}

/// FNV-1a, 64 bits, with the last step of SplitMix64 so that sums of it are well mixed. The same on every node, whatever it was built with.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn done(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
