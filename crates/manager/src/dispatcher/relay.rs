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
    tables: Mutex<BTreeMap<NodeId, (u64, Endpoints)>>,
    changed: watch::Sender<()>,
}

impl Relay {
    /// Takes in what `owner` says of its own endpoints.
    pub(super) fn put(&self, owner: &NodeId, table: &OwnerTable, message: Endpoints) {
        let mut tables = lock(&self.tables);
        if tables.get(owner).is_none_or(|(known, _)| *known < table.version) {
            tables.insert(owner.clone(), (table.version, message));
            drop(tables);
            self.changed.send_replace(());
        }
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&self, member: impl Fn(&NodeId) -> bool) {
        lock(&self.tables).retain(|node, _| member(node));
    }

    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The tables of other nodes than `own` that are newer than `sent`, which is brought up to date.
    pub(super) fn news(&self, own: &NodeId, sent: &mut BTreeMap<NodeId, u64>) -> Vec<Endpoints> {
        let tables = lock(&self.tables);
        let newer = tables.iter().filter(|(owner, (version, _))| *owner != own && sent.get(*owner) != Some(version));
        let newer: Vec<_> =
            newer.map(|(owner, (version, message))| (owner.clone(), *version, message.clone())).collect();
        drop(tables);
        newer
            .into_iter()
            .map(|(owner, version, message)| {
                sent.insert(owner, version);
                message
            })
            .collect()
    }
}
