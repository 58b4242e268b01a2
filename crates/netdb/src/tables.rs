//! The rule by which tables are kept: the newest of each owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use skep_model::{EndpointKey, EndpointRecord, EndpointState, Member, NodeId, OwnerTable, ServiceId};

use crate::{Located, View};

/// How many nodes that have left are remembered with their tables. A list of members may come from a manager that lags
/// behind: a member that is missing in it and back in the next must not lose its endpoints.
const DEPARTED_KEPT: usize = 64;

/// What became of a table that was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// It was newer than what was known: it is kept, and worth telling others.
    Newer,
    /// It was known already, or older.
    Stale,
}

/// The tables of all owners as one node knows them.
#[derive(Debug, Clone)]
pub struct Tables {
    own: NodeId,
    owners: BTreeMap<NodeId, Arc<OwnerTable>>,
    members: BTreeMap<NodeId, Member>,
    departed: VecDeque<NodeId>,
    silent: BTreeSet<NodeId>,
}

impl Tables {
    /// Empty tables of the node `own`, whose version starts from the clock: `now_ms` is in milliseconds since 1970. Thus
    /// the version is higher than any of before a restart, unless the clock was set back; [`Self::merge`] mends that.
    #[must_use]
    pub fn new(own: NodeId, now_ms: u64) -> Self {
        let table = Arc::new(OwnerTable { version: now_ms, ..OwnerTable::default() });
        Self {
            owners: BTreeMap::from([(own.clone(), table)]),
            own,
            members: BTreeMap::new(),
            departed: VecDeque::new(),
            silent: BTreeSet::new(),
        }
    }

    /// The node that these are the tables of.
    #[must_use]
    pub fn own_node(&self) -> &NodeId {
        &self.own
    }

    /// The node's own table.
    #[must_use]
    pub fn own(&self) -> &Arc<OwnerTable> {
        &self.owners[&self.own]
    }

    /// The newest known table of a node.
    #[must_use]
    pub fn table(&self, owner: &NodeId) -> Option<&Arc<OwnerTable>> {
        self.owners.get(owner)
    }

    /// All tables, also of nodes that are hidden.
    pub fn all(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Arc<OwnerTable>)> {
        self.owners.iter()
    }

    /// Adds or replaces endpoints of the own node. Whether anything changed; if so, with one new version for all.
    pub fn publish(&mut self, records: impl IntoIterator<Item = (EndpointKey, EndpointRecord)>, now_ms: u64) -> bool {
        let mut fresh =
            records.into_iter().filter(|(key, record)| self.own().records.get(key) != Some(record)).peekable();
        if fresh.peek().is_none() {
            return false;
        }
        let fresh: Vec<_> = fresh.collect();
        self.change_own(now_ms).records.extend(fresh);
        true
    }

    /// Says whether an endpoint of the own node takes new flows. Whether that is news; nothing happens for one that is not there.
    pub fn set_state(&mut self, key: &EndpointKey, state: EndpointState, now_ms: u64) -> bool {
        let record = self.own().records.get(key).map(|record| EndpointRecord { state, ..record.clone() });
        self.publish(record.map(|record| (key.clone(), record)), now_ms)
    }

    /// Goes on where the node was before a restart: `told` is what it had told others last, as far as is known, of which that holds still which
    /// `holds` says does. Whatever the clock says, it is newer than `told`.
    pub fn take_over(&mut self, told: OwnerTable, holds: impl Fn(&EndpointKey) -> bool, now_ms: u64) {
        let records = told.records.into_iter().filter(|(key, _)| holds(key));
        let own = self.change_own(now_ms.max(told.version.saturating_add(1)));
        own.records.extend(records);
        own.addresses = told.addresses;
    }

    /// Removes an endpoint of the own node. Whether it was there.
    pub fn withdraw(&mut self, key: &EndpointKey, now_ms: u64) -> bool {
        let there = self.own().records.contains_key(key);
        if there {
            self.change_own(now_ms).records.remove(key);
        }
        there
    }

    /// Replaces the addresses of the own node. Whether they differ from before.
    pub fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>, now_ms: u64) -> bool {
        let changed = self.own().addresses != addresses;
        if changed {
            self.change_own(now_ms).addresses = addresses;
        }
        changed
    }

    /// The own table, at a version that nobody has seen yet. It keeps up with the clock, so that a restart within the same
    /// second as many changes does not fall behind them.
    fn change_own(&mut self, now_ms: u64) -> &mut OwnerTable {
        let table = self.owners.get_mut(&self.own).expect("the own table is there from the start");
        let table = Arc::make_mut(table);
        table.version = now_ms.max(table.version.saturating_add(1));
        table
    }

    /// Takes a table that was heard of, when it is newer.
    ///
    /// What others say of the own node is never taken. When they hold a version that is not older than the own one (the clock was set
    /// back between two runs), the own version is raised above it, so that the truth wins: compare [`Self::own`] before and
    /// after.
    pub fn merge(&mut self, owner: NodeId, table: OwnerTable) -> Merged {
        if owner == self.own {
            let ours = self.own();
            if table.version > ours.version || (table.version == ours.version && table != **ours) {
                self.change_own(table.version.saturating_add(1));
            }
            return Merged::Stale;
        }
        if self.owners.get(&owner).is_some_and(|known| known.version >= table.version) {
            return Merged::Stale;
        }
        self.owners.insert(owner, Arc::new(table));
        Merged::Newer
    }

    /// Replaces the list of members. Whether it differs from before.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Member>) -> bool {
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.node.clone(), member)).collect();
        if members == self.members {
            return false;
        }
        let before = std::mem::replace(&mut self.members, members);
        self.departed.retain(|node| !self.members.contains_key(node));
        self.departed.extend(before.into_keys().filter(|node| !self.members.contains_key(node) && *node != self.own));
        while self.departed.len() > DEPARTED_KEPT {
            if let Some(forgotten) = self.departed.pop_front() {
                self.owners.remove(&forgotten);
            }
        }
        true
    }

    /// Replaces the set of members that are not heard of at present. Whether it differs from before.
    pub fn set_silent(&mut self, silent: BTreeSet<NodeId>) -> bool {
        let changed = silent != self.silent;
        self.silent = silent;
        changed
    }

    /// What the mesh should see: the endpoints of this node, and of every member that is alive. Those on members that are not heard of
    /// weigh nothing, so that they keep their flows and get no new ones, as long as their service has another that takes some: such a
    /// member may be dead, or its daemon may just be starting again.
    #[must_use]
    pub fn view(&self) -> View {
        let mut shown: Vec<_> = self.owners.iter().filter(|(owner, _)| self.is_shown(owner)).collect();
        // A task is on one node. Should two claim it, everybody must believe the same one: who wrote last.
        shown.sort_by_key(|(owner, table)| (table.version, *owner));
        let endpoints = shown.into_iter().flat_map(|(owner, table)| {
            let locate = |record: &EndpointRecord| Located { owner: owner.clone(), record: record.clone() };
            table.records.iter().map(move |(key, record)| (key.clone(), locate(record)))
        });
        let mut endpoints: BTreeMap<EndpointKey, Located> = endpoints.collect();
        let takes_flows = |record: &EndpointRecord| record.state == EndpointState::Ready && record.weight > 0;
        let spared: BTreeSet<ServiceId> = endpoints
            .values()
            .filter(|located| !self.is_silent(&located.owner) && takes_flows(&located.record))
            .map(|located| located.record.service.clone())
            .collect();
        for located in endpoints.values_mut().filter(|located| self.is_silent(&located.owner)) {
            if spared.contains(&located.record.service) {
                located.record.weight = 0;
            }
        }
        let others = self.owners.iter().filter(|(owner, _)| **owner != self.own && self.is_shown(owner));
        let addresses = others.flat_map(|(_, table)| table.addresses.iter().copied()).collect();
        View { members: self.members.clone(), endpoints, addresses }
    }

    /// What others think of this node, it knows better itself.
    fn is_silent(&self, owner: &NodeId) -> bool {
        *owner != self.own && self.silent.contains(owner)
    }

    fn is_shown(&self, owner: &NodeId) -> bool {
        *owner == self.own || self.members.get(owner).is_some_and(|member| member.alive)
    }
}
