//! Passes the nodes' endpoints on to the other nodes, the latest of each.

use std::collections::BTreeMap;
use std::sync::Mutex;

use skep_model::{NodeId, OwnerTable};
use skep_rpc::proto::Endpoints;
use tokio::sync::watch;

use super::lock;

/// The latest table of each node. It takes no more room than that, however slow a session is.
#[derive(Default)]
pub(super) struct Relay {
    latest: Mutex<Latest>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Latest {
    /// How many have come.
    count: u64,
    tables: BTreeMap<NodeId, Told>,
}

#[derive(Clone)]
struct Told {
    /// Which it was of all that have come.
    number: u64,
    version: u64,
    message: Endpoints,
}

impl Relay {
    /// Takes in what `owner` says of its own endpoints. Returns what others have been told instead, which the owner has to outdo, when that seems to
    /// be newer: its clock was set back between two runs of its daemon.
    pub(super) fn put(&self, owner: &NodeId, table: &OwnerTable, message: Endpoints) -> Option<Endpoints> {
        let mut latest = lock(&self.latest);
        if let Some(known) = latest.tables.get(owner).filter(|known| known.version >= table.version) {
            return (known.message != message).then(|| known.message.clone());
        }
        latest.count += 1;
        let told = Told { number: latest.count, version: table.version, message };
        latest.tables.insert(owner.clone(), told);
        drop(latest);
        self.changed.send_replace(());
        None
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&self, member: impl Fn(&NodeId) -> bool) {
        lock(&self.latest).tables.retain(|node, _| member(node));
    }

    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The tables of other nodes than `own` that are newer than `sent`, which is brought up to date. In the order in which they came: where a
    /// task stops because another has begun, nobody may hear of the end before the beginning.
    pub(super) fn news(&self, own: &NodeId, sent: &mut BTreeMap<NodeId, u64>) -> Vec<Endpoints> {
        let latest = lock(&self.latest);
        let newer =
            latest.tables.iter().filter(|(owner, told)| *owner != own && sent.get(*owner) != Some(&told.version));
        let mut newer: Vec<_> = newer.map(|(owner, told)| (owner.clone(), told.clone())).collect();
        drop(latest);
        newer.sort_by_key(|(_, told)| told.number);
        newer
            .into_iter()
            .map(|(owner, told)| {
                sent.insert(owner, told.version);
                told.message
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(node: &NodeId, version: u64) -> Endpoints {
        Endpoints { node_id: node.to_string(), table: version.to_string().into() }
    }

    #[test]
    fn news_come_once_and_in_the_order_in_which_they_came() {
        let relay = Relay::default();
        let mut nodes: Vec<NodeId> = (0..4).map(|_| NodeId::random()).collect();
        nodes.sort();
        let put = |node: &NodeId, version| {
            let table = OwnerTable { version, ..OwnerTable::default() };
            relay.put(node, &table, said(node, version))
        };
        let mut sent = BTreeMap::new();
        let mut news = || -> Vec<String> { relay.news(&nodes[3], &mut sent).into_iter().map(|m| m.node_id).collect() };
        let names = |order: [usize; 3]| order.map(|n| nodes[n].to_string());
        [2, 0, 1, 3].into_iter().for_each(|n| assert_eq!(put(&nodes[n], 7), None));
        assert_eq!(news(), names([2, 0, 1]));
        [1, 2, 0].into_iter().for_each(|n| assert_eq!(put(&nodes[n], 8), None));
        assert_eq!(put(&nodes[1], 6), Some(said(&nodes[1], 8)), "its owner is told that it is older");
        assert_eq!(put(&nodes[1], 8), None, "the same again");
        assert_eq!(news(), names([1, 2, 0]), "an older table does not change the place of a newer one");
        assert_eq!(news(), Vec::<String>::new());
    }
}
