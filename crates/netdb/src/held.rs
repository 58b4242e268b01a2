//! One node's table as another one holds it: with what has changed since when, so that a change can be told without the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use skep_model::{EndpointKey, EndpointRecord, EndpointState, NodeId, OwnerTable};

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
    pub changed: Vec<(EndpointKey, EndpointRecord)>,
    /// Records that are gone.
    pub removed: Vec<EndpointKey>,
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

/// A table, and at which version its newest changes were made.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    table: Arc<OwnerTable>,
    /// What changed up to this version is not remembered.
    floor: u64,
    changed: BTreeMap<EndpointKey, u64>,
    removed: BTreeMap<EndpointKey, u64>,
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

    /// Goes on to `version` with these changes.
    pub(crate) fn advance(
        &mut self,
        version: u64,
        changed: impl IntoIterator<Item = (EndpointKey, EndpointRecord)>,
        removed: impl IntoIterator<Item = EndpointKey>,
        addresses: Option<BTreeSet<IpAddr>>,
    ) {
        let table = Arc::make_mut(&mut self.table);
        table.version = version;
        for (key, record) in changed {
            self.removed.remove(&key);
            self.digest = self.digest.wrapping_add(record_digest(&key, &record));
            if let Some(before) = table.records.insert(key.clone(), record) {
                self.digest = self.digest.wrapping_sub(record_digest(&key, &before));
            }
            self.changed.insert(key, version);
        }
        for key in removed {
            self.changed.remove(&key);
            if let Some(before) = table.records.remove(&key) {
                self.digest = self.digest.wrapping_sub(record_digest(&key, &before));
            }
            self.removed.insert(key, version);
        }
        if let Some(addresses) = addresses {
            self.digest = self.digest.wrapping_sub(addresses_digest(&table.addresses));
            self.digest = self.digest.wrapping_add(addresses_digest(&addresses));
            table.addresses = addresses;
            self.addresses_at = version;
        }
        self.forget();
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
        let (owner, to) = (owner.clone(), self.table.version);
        if from < self.floor || from == 0 || from >= to {
            let changed = self.table.records.iter().map(|(key, record)| (key.clone(), record.clone())).collect();
            let addresses = Some(self.table.addresses.clone());
            return Delta { owner, from: 0, to, changed, removed: Vec::new(), addresses };
        }
        let newer = |stamps: &BTreeMap<EndpointKey, u64>| {
            let newer = stamps.iter().filter(|(_, at)| **at > from).map(|(key, _)| key.clone());
            newer.collect::<Vec<_>>()
        };
        let changed = newer(&self.changed).into_iter().filter_map(|key| {
            let record = self.table.records.get(&key)?.clone();
            Some((key, record))
        });
        let addresses = (self.addresses_at > from).then(|| self.table.addresses.clone());
        Delta { owner, from, to, changed: changed.collect(), removed: newer(&self.removed), addresses }
    }

    fn forget(&mut self) {
        if self.changed.len() + self.removed.len() <= REMEMBERED {
            return;
        }
        let mut stamps: Vec<u64> = self.changed.values().chain(self.removed.values()).copied().collect();
        let (_, middle, _) = stamps.select_nth_unstable(REMEMBERED / 2);
        self.floor = *middle;
        self.changed.retain(|_, at| *at > self.floor);
        self.removed.retain(|_, at| *at > self.floor);
    }
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
