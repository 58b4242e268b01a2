//! Keeps a view true, owner by owner: a change costs what the tables of those take whom it concerns, however many others there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::{EndpointKey, EndpointRecord, EndpointState, NodeId, OwnerTable, ServiceId};

use super::{Located, View};
use crate::Tables;

/// What an owner has to show.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) table: Arc<OwnerTable>,
    /// The node is not heard of: its endpoints weigh nothing where others take new flows.
    pub(crate) silent: bool,
}

/// A view, and what is needed to change it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Viewer {
    view: View,
    shown: BTreeMap<NodeId, Shown>,
    /// A task is on one node. Those that several claim, and who does: everybody must believe the same one, who wrote last.
    disputed: BTreeMap<EndpointKey, BTreeSet<NodeId>>,
    /// How many endpoints of nodes that are heard of take new flows, by service.
    takers: BTreeMap<ServiceId, usize>,
}

/// What an update has done so far.
#[derive(Default)]
struct Update {
    changed: bool,
    addresses: bool,
    /// Endpoints on nodes that are not heard of.
    silent: Vec<EndpointKey>,
    /// Services of which endpoints have changed, and whether any took flows before.
    served: BTreeMap<ServiceId, bool>,
}

impl Viewer {
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Looks at these owners again. Whether the view differs from before.
    pub(crate) fn update(&mut self, tables: &Tables, owners: impl IntoIterator<Item = NodeId>) -> bool {
        let mut update = Update::default();
        if *tables.members() != self.view.members {
            self.view.members = tables.members().clone();
            update.changed = true;
        }
        for owner in owners {
            self.replace(&owner, tables.shown(&owner), &mut update);
        }
        self.weigh(&mut update);
        if update.addresses {
            let others = self.shown.iter().filter(|(owner, _)| *owner != tables.own_node());
            let addresses = others.flat_map(|(_, shown)| shown.table.addresses.iter().copied()).collect();
            update.changed |= *self.view.addresses != addresses;
            self.view.addresses = Arc::new(addresses);
        }
        update.changed
    }

    fn replace(&mut self, owner: &NodeId, now: Option<Shown>, update: &mut Update) {
        let before = self.shown.remove(owner);
        let keys = self.touched(owner, before.as_ref(), now.as_ref());
        let addresses = |shown: &Option<Shown>| shown.as_ref().map(|shown| shown.table.addresses.clone());
        update.addresses |= addresses(&before) != addresses(&now);
        if let Some(before) = before {
            self.shown.insert(owner.clone(), before);
        }
        keys.iter().for_each(|key| self.uncount(key, update));
        match now {
            Some(now) => drop(self.shown.insert(owner.clone(), now)),
            None => drop(self.shown.remove(owner)),
        }
        for key in keys {
            self.settle(key, owner, update);
        }
    }

    /// The endpoints of which something else may be true when an owner says something else.
    fn touched(&self, owner: &NodeId, before: Option<&Shown>, now: Option<&Shown>) -> BTreeSet<EndpointKey> {
        let nothing = BTreeMap::new();
        let records = |shown: Option<&Shown>| shown.map(|shown| shown.table.clone());
        let (old, new) = (records(before), records(now));
        let old = old.as_ref().map_or(&nothing, |table| &table.records);
        let new = new.as_ref().map_or(&nothing, |table| &table.records);
        let toned = before.map(|shown| shown.silent) != now.map(|shown| shown.silent);
        let differs = |key: &EndpointKey, record: &Arc<EndpointRecord>| toned || old.get(key) != Some(record);
        let changed = new.iter().filter(|(key, record)| differs(key, record)).map(|(key, _)| key);
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        // Who wrote last may be another one now.
        let disputed = self.disputed.iter().filter(|(_, claimants)| claimants.contains(owner)).map(|(key, _)| key);
        changed.chain(gone).chain(disputed).cloned().collect()
    }

    /// Decides who is believed of an endpoint, after `owner` has changed.
    fn settle(&mut self, key: EndpointKey, owner: &NodeId, update: &mut Update) {
        let mut claimants = self.disputed.remove(&key).unwrap_or_default();
        claimants.extend(self.view.endpoints.get(&key).map(|located| located.owner.clone()));
        claimants.insert(owner.clone());
        claimants.retain(|claimant| self.record(claimant, &key).is_some());
        let version = |claimant: &NodeId| self.shown.get(claimant).map(|shown| shown.table.version);
        let believed = claimants.iter().max_by_key(|claimant| (version(claimant), *claimant)).cloned();
        let record = believed.as_ref().and_then(|believed| self.record(believed, &key)).cloned();
        if claimants.len() > 1 {
            self.disputed.insert(key.clone(), claimants);
        }
        let (Some(believed), Some(record)) = (believed, record) else {
            update.changed |= self.view.endpoints.remove(&key);
            return;
        };
        if self.is_silent(&believed) {
            update.silent.push(key.clone());
        } else if takes_flows(&record) {
            self.served(&record.service, update);
            *self.takers.entry(record.service.clone()).or_default() += 1;
        }
        update.changed |= self.view.endpoints.insert(key, Located { owner: believed, record });
    }

    /// An endpoint is about to be decided anew.
    fn uncount(&mut self, key: &EndpointKey, update: &mut Update) {
        let Some(located) = self.view.endpoints.get(key) else { return };
        if self.is_silent(&located.owner) || !takes_flows(&located.record) {
            return;
        }
        let service = located.record.service.clone();
        self.served(&service, update);
        if let Some(takers) = self.takers.get_mut(&service) {
            *takers -= 1;
            if *takers == 0 {
                self.takers.remove(&service);
            }
        }
    }

    fn served(&self, service: &ServiceId, update: &mut Update) {
        update.served.entry(service.clone()).or_insert_with(|| self.takers.contains_key(service));
    }

    /// Endpoints on nodes that are not heard of weigh nothing as long as their service has another that takes new flows.
    fn weigh(&mut self, update: &mut Update) {
        let mut keys = std::mem::take(&mut update.silent);
        let turned = |service: &ServiceId| {
            update.served.get(service).is_some_and(|before| *before != self.takers.contains_key(service))
        };
        if update.served.keys().any(turned) {
            let silent = self.shown.values().filter(|shown| shown.silent).flat_map(|shown| &shown.table.records);
            keys.extend(silent.filter(|(_, record)| turned(&record.service)).map(|(key, _)| key.clone()));
        }
        for key in keys {
            let Some(owner) = self.view.endpoints.get(&key).map(|located| located.owner.clone()) else { continue };
            let Some(record) = self.record(&owner, &key).filter(|_| self.is_silent(&owner)) else { continue };
            let record = if self.takers.contains_key(&record.service) {
                Arc::new(EndpointRecord { weight: 0, ..EndpointRecord::clone(record) })
            } else {
                record.clone()
            };
            update.changed |= self.view.endpoints.insert(key, Located { owner, record });
        }
    }

    fn record(&self, owner: &NodeId, key: &EndpointKey) -> Option<&Arc<EndpointRecord>> {
        self.shown.get(owner)?.table.records.get(key)
    }

    fn is_silent(&self, owner: &NodeId) -> bool {
        self.shown.get(owner).is_some_and(|shown| shown.silent)
    }
}

fn takes_flows(record: &EndpointRecord) -> bool {
    record.state == EndpointState::Ready && record.weight > 0
}
