//! The rule by which tables are kept: the newest of each owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use skep_model::{EndpointKey, EndpointRecord, EndpointState, Member, NodeId, OwnerTable};

use crate::held::Held;
use crate::view::{Shown, Viewer};
use crate::{Delta, View};

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
    /// It says what has changed since a version that is not known here: ask for what is between.
    Gap,
}

/// The tables of all owners as one node knows them.
#[derive(Debug, Clone)]
pub struct Tables {
    own: NodeId,
    owners: BTreeMap<NodeId, Arc<Held>>,
    members: Arc<BTreeMap<NodeId, Member>>,
    departed: VecDeque<NodeId>,
    silent: BTreeSet<NodeId>,
    suspects: BTreeSet<NodeId>,
    /// Nodes of which something has changed since it was asked for last.
    changed: BTreeSet<NodeId>,
    /// How often others knew more of the own table than this life of the node.
    outdone: u64,
}

impl Tables {
    /// Empty tables of the node `own`, whose version starts from the clock: `now_ms` is in milliseconds since 1970. Thus
    /// the version is higher than any of before a restart, unless the clock was set back; [`Self::merge`] mends that.
    #[must_use]
    pub fn new(own: NodeId, now_ms: u64) -> Self {
        let table = Arc::new(Held::whole(OwnerTable { version: now_ms, ..OwnerTable::default() }));
        Self {
            owners: BTreeMap::from([(own.clone(), table)]),
            own,
            members: Arc::default(),
            departed: VecDeque::new(),
            silent: BTreeSet::new(),
            suspects: BTreeSet::new(),
            changed: BTreeSet::new(),
            outdone: 0,
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
        self.owners[&self.own].table()
    }

    /// The newest known table of a node.
    #[must_use]
    pub fn table(&self, owner: &NodeId) -> Option<&Arc<OwnerTable>> {
        self.owners.get(owner).map(|held| held.table())
    }

    /// All tables, also of nodes that are hidden.
    pub fn all(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Arc<OwnerTable>)> {
        self.owners.iter().map(|(owner, held)| (owner, held.table()))
    }

    /// Adds or replaces endpoints of the own node. Whether anything changed; if so, with one new version for all.
    pub fn publish(&mut self, records: impl IntoIterator<Item = (EndpointKey, EndpointRecord)>, now_ms: u64) -> bool {
        let is_news = |(key, record): &(EndpointKey, EndpointRecord)| {
            self.own().records.get(key).is_none_or(|known| **known != *record)
        };
        let fresh = records.into_iter().filter(is_news).map(|(key, record)| (key, Arc::new(record)));
        let fresh: Vec<_> = fresh.collect();
        if fresh.is_empty() {
            return false;
        }
        self.change_own(now_ms, |held, version| held.advance(version, fresh, [], None));
        true
    }

    /// Says whether an endpoint of the own node takes new flows. Whether that is news; nothing happens for one that is not there.
    pub fn set_state(&mut self, key: &EndpointKey, state: EndpointState, now_ms: u64) -> bool {
        let record =
            self.own().records.get(key).map(|record| EndpointRecord { state, ..EndpointRecord::clone(record) });
        self.publish(record.map(|record| (key.clone(), record)), now_ms)
    }

    /// Goes on where the node was before a restart: `told` is what it had told others last, as far as is known, of which that holds still which
    /// `holds` says does. Whatever the clock says, it is newer than `told`.
    pub fn take_over(&mut self, told: OwnerTable, holds: impl Fn(&EndpointKey) -> bool, now_ms: u64) {
        let version = now_ms.max(told.version.max(self.own().version).saturating_add(1));
        let mut records = self.own().records.clone();
        records.extend(told.records.into_iter().filter(|(key, _)| holds(key)));
        // What others believe need not be what was kept: they are told everything.
        let table = OwnerTable { version, records, addresses: told.addresses };
        self.owners.insert(self.own.clone(), Arc::new(Held::whole(table)));
        self.changed.insert(self.own.clone());
    }

    /// Removes an endpoint of the own node. Whether it was there.
    pub fn withdraw(&mut self, key: &EndpointKey, now_ms: u64) -> bool {
        let there = self.own().records.contains_key(key);
        if there {
            self.change_own(now_ms, |held, version| held.advance(version, [], [key.into()], None));
        }
        there
    }

    /// Replaces the addresses of the own node. Whether they differ from before.
    pub fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>, now_ms: u64) -> bool {
        let changed = self.own().addresses != addresses;
        if changed {
            self.change_own(now_ms, |held, version| held.advance(version, [], [], Some(addresses)));
        }
        changed
    }

    /// Changes the own table, at a version that nobody has seen yet. It keeps up with the clock, so that a restart within the same
    /// second as many changes does not fall behind them.
    fn change_own(&mut self, now_ms: u64, change: impl FnOnce(&mut Held, u64)) {
        let version = now_ms.max(self.own().version.saturating_add(1));
        let held = self.owners.get_mut(&self.own).expect("the own table is there from the start");
        change(Arc::make_mut(held), version);
        self.changed.insert(self.own.clone());
    }

    /// Takes a table that was heard of, when it is newer.
    ///
    /// What others say of the own node is never taken. When they hold a version that is not older than the own one (the clock was set
    /// back between two runs), the own version is raised above it, so that the truth wins: compare [`Self::own`] before and
    /// after.
    pub fn merge(&mut self, owner: NodeId, table: OwnerTable) -> Merged {
        if owner != self.own && self.table(&owner).is_some_and(|known| known.version >= table.version) {
            return Merged::Stale;
        }
        self.merge_held(owner, Held::whole(table))
    }

    /// Takes what has changed in a table, when it fits what is known. As [`Self::merge`] otherwise.
    pub fn apply(&mut self, delta: Delta) -> Merged {
        let owner = delta.owner.clone();
        if delta.is_whole() {
            return self.merge_held(owner, delta.into());
        }
        if owner == self.own {
            // Changes of a life that this one knows nothing of.
            if delta.to > self.own().version {
                self.outdo(delta.to);
            }
            return Merged::Stale;
        }
        let known = self.owners.get_mut(&owner);
        match known {
            Some(known) if known.table().version >= delta.to => Merged::Stale,
            Some(known) if known.table().version >= delta.from => {
                Arc::make_mut(known).take(delta);
                self.changed.insert(owner);
                Merged::Newer
            }
            _ => Merged::Gap,
        }
    }

    /// Takes what other tables of the same process know and this one does not. Both share the memory.
    pub fn learn_from(&mut self, other: &Self) {
        for (owner, held) in other.owners.iter().filter(|(owner, _)| **owner != self.own) {
            if self.owners.get(owner).is_none_or(|known| known.rank() < held.rank()) {
                self.owners.insert(owner.clone(), held.clone());
                self.changed.insert(owner.clone());
            }
        }
    }

    fn merge_held(&mut self, owner: NodeId, held: Held) -> Merged {
        if owner == self.own {
            if held.rank() != self.owners[&self.own].rank() {
                self.outdo(held.table().version);
            }
            return Merged::Stale;
        }
        // Two tables of one version are of two lives of a node. The node itself will outdo both; should it be gone, those who compare must
        // come to the same.
        if self.owners.get(&owner).is_some_and(|known| known.rank() >= held.rank()) {
            return Merged::Stale;
        }
        self.owners.insert(owner.clone(), Arc::new(held));
        self.changed.insert(owner);
        Merged::Newer
    }

    /// The nodes of which something has changed since this was asked for last: their table, or how they are seen.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn outdone(&self) -> u64 {
        self.outdone
    }

    /// Others hold the own table at `version`, which is not what the own node says.
    pub(crate) fn outdo(&mut self, version: u64) {
        if version >= self.own().version {
            self.change_own(version.saturating_add(1), Held::outdo);
            self.outdone += 1;
        }
    }

    /// What somebody has to be told who knows the table of `owner` at version `from` (0: not at all).
    #[must_use]
    pub fn delta(&self, owner: &NodeId, from: u64) -> Option<Delta> {
        self.owners.get(owner).map(|held| held.delta(owner, from))
    }

    /// Version and digest of each table: two nodes that have the same here know the same.
    pub fn ranks(&self) -> impl Iterator<Item = (&NodeId, (u64, u64))> {
        self.owners.iter().map(|(owner, held)| (owner, held.rank()))
    }

    /// Version and digest of one table.
    #[must_use]
    pub fn rank(&self, owner: &NodeId) -> Option<(u64, u64)> {
        self.owners.get(owner).map(|held| held.rank())
    }

    /// Replaces the list of members. Whether it differs from before.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Member>) -> bool {
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.node.clone(), member)).collect();
        if members == *self.members {
            return false;
        }
        let before = std::mem::replace(&mut self.members, Arc::new(members));
        let either: BTreeSet<_> = before.keys().chain(self.members.keys()).collect();
        let differ = either.into_iter().filter(|node| before.get(*node) != self.members.get(*node));
        self.changed.extend(differ.cloned());
        self.departed.retain(|node| !self.members.contains_key(node));
        let gone = before.keys().filter(|node| !self.members.contains_key(*node) && **node != self.own);
        self.departed.extend(gone.cloned());
        while self.departed.len() > DEPARTED_KEPT {
            if let Some(forgotten) = self.departed.pop_front() {
                self.owners.remove(&forgotten);
            }
        }
        true
    }

    /// Replaces the set of members that other nodes get no answer from. Whether it differs from before.
    pub fn set_suspects(&mut self, suspects: BTreeSet<NodeId>) -> bool {
        self.changed.extend(suspects.symmetric_difference(&self.suspects).cloned());
        let changed = suspects != self.suspects;
        self.suspects = suspects;
        changed
    }

    /// Replaces the set of members that the managers do not hear of at present. Whether it differs from before.
    pub fn set_silent(&mut self, silent: BTreeSet<NodeId>) -> bool {
        self.changed.extend(silent.symmetric_difference(&self.silent).cloned());
        let changed = silent != self.silent;
        self.silent = silent;
        changed
    }

    /// What the mesh should see: the endpoints of this node, and of every member that is alive. Those on members that are not heard of
    /// weigh nothing, so that they keep their flows and get no new ones, as long as their service has another that takes some: such a
    /// member may be dead, or its daemon may just be starting again.
    ///
    /// It is made from nothing here; [`NetDb`](crate::NetDb) changes the one that it has.
    #[must_use]
    pub fn view(&self) -> View {
        let mut viewer = Viewer::default();
        viewer.update(self, self.owners.keys().cloned());
        viewer.view().clone()
    }

    pub(crate) fn members(&self) -> &Arc<BTreeMap<NodeId, Member>> {
        &self.members
    }

    /// What is shown of a node; `None` when it is not alive, or says nothing.
    pub(crate) fn shown(&self, owner: &NodeId) -> Option<Shown> {
        let held = self.owners.get(owner).filter(|_| self.is_shown(owner))?;
        Some(Shown { table: held.table().clone(), silent: self.is_silent(owner) })
    }

    /// What others think of this node, it knows better itself.
    fn is_silent(&self, owner: &NodeId) -> bool {
        let away = || self.members.get(owner).is_some_and(|member| member.away);
        *owner != self.own && (self.silent.contains(owner) || self.suspects.contains(owner) || away())
    }

    fn is_shown(&self, owner: &NodeId) -> bool {
        *owner == self.own || self.members.get(owner).is_some_and(|member| member.alive)
    }
}
