//! The tables, shared within a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use skep_model::{EndpointKey, EndpointRecord, EndpointState, Member, NodeId, OwnerTable};
use tokio::sync::watch;

use crate::{Merged, Tables, View};

/// A node's tables. Cheap to clone; all clones are the same tables.
///
/// After a restart, [take over](NetDb::take_over) what still runs *before* showing [`NetDb::own`] to anybody: an empty own table is
/// news too, and takes the node's endpoints out of everybody's mesh.
#[derive(Debug, Clone)]
pub struct NetDb(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tables: Mutex<Tables>,
    // Both are sent to under the lock, so that what followers see is never older than what they saw before.
    own: watch::Sender<OwnerTable>,
    view: watch::Sender<Arc<View>>,
    /// The version of the own table that other nodes have been sent word of.
    told: watch::Sender<u64>,
}

/// What to tell followers after a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Nothing,
    View,
}

impl Changed {
    fn when(yes: bool) -> Self {
        if yes { Self::View } else { Self::Nothing }
    }
}

impl NetDb {
    /// The tables of the node `own`: no members, no endpoints, at a version taken from the clock.
    #[must_use]
    pub fn new(own: NodeId) -> Self {
        let tables = Tables::new(own, now_ms());
        let (table, view) = (tables.own().as_ref().clone(), tables.view());
        Self(Arc::new(Shared {
            tables: Mutex::new(tables),
            own: watch::Sender::new(table),
            view: watch::Sender::new(Arc::new(view)),
            told: watch::Sender::default(),
        }))
    }

    /// The node that these are the tables of.
    #[must_use]
    pub fn own_node(&self) -> NodeId {
        self.read(|tables| tables.own_node().clone())
    }

    /// Adds or replaces an endpoint of this node. Saying the same again is no news and costs nothing.
    pub fn publish(&self, key: EndpointKey, record: EndpointRecord) {
        self.change(|tables| ((), Changed::when(tables.publish([(key, record)], now_ms()))));
    }

    /// Says whether an endpoint of this node takes new flows. Nothing happens for one that is not there.
    pub fn set_state(&self, key: &EndpointKey, state: EndpointState) {
        self.change(|tables| ((), Changed::when(tables.set_state(key, state, now_ms()))));
    }

    /// Goes on where the node was before a restart: see [`Tables::take_over`].
    pub fn take_over(&self, told: OwnerTable, holds: impl Fn(&EndpointKey) -> bool) {
        self.change(|tables| {
            tables.take_over(told, holds, now_ms());
            ((), Changed::View)
        });
    }

    /// Removes an endpoint of this node; no error if it is not there.
    pub fn withdraw(&self, key: &EndpointKey) {
        self.change(|tables| ((), Changed::when(tables.withdraw(key, now_ms()))));
    }

    /// Replaces this node's addresses. Saying the same again is no news and costs nothing.
    pub fn set_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.change(|tables| ((), Changed::when(tables.set_addresses(addresses, now_ms()))));
    }

    /// This node's own table and its changes, for those who tell other nodes.
    #[must_use]
    pub fn own(&self) -> watch::Receiver<OwnerTable> {
        self.0.own.subscribe()
    }

    /// Takes what another node says of its endpoints, when it is newer than what is known. A newer table of *this* node is not taken but
    /// outdone: the own version is raised above it.
    pub fn merge(&self, owner: NodeId, table: OwnerTable) -> Merged {
        self.change(|tables| {
            let merged = tables.merge(owner, table);
            (merged, Changed::when(merged == Merged::Newer))
        })
    }

    /// Replaces the list of members.
    pub fn set_members(&self, members: Vec<Member>) {
        self.change(|tables| ((), Changed::when(tables.set_members(members))));
    }

    /// Replaces the set of members that are not heard of at present: others get their new flows, where there are others.
    pub fn set_silent(&self, silent: BTreeSet<NodeId>) {
        self.change(|tables| ((), Changed::when(tables.set_silent(silent))));
    }

    /// Returns once other nodes have been sent word of the own table as it is now.
    pub async fn told(&self) {
        let version = self.read(|tables| tables.own().version);
        let mut told = self.0.told.subscribe();
        // The sender lives as long as this handle.
        let _ = told.wait_for(|told| *told >= version).await;
    }

    pub(crate) fn set_told(&self, version: u64) {
        self.0.told.send_if_modified(|told| {
            let news = *told < version;
            *told = version.max(*told);
            news
        });
    }

    /// For what is said and heard: followers are told when anything has come of it.
    pub(crate) fn talk<R>(&self, talk: impl FnOnce(&mut Tables) -> R) -> R {
        self.change(|tables| {
            let before = tables.revision();
            let result = talk(tables);
            (result, Changed::when(tables.revision() != before))
        })
    }

    /// Members and endpoints, and their changes. A change of what is hidden is none.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    /// The newest known table of a node, also of one that is hidden.
    #[must_use]
    pub fn table(&self, owner: &NodeId) -> Option<Arc<OwnerTable>> {
        self.read(|tables| tables.table(owner).cloned())
    }

    /// At which version each node's table is known here: what two nodes compare to find out who lags.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<NodeId, u64> {
        self.read(|tables| tables.all().map(|(owner, table)| (owner.clone(), table.version)).collect())
    }

    fn read<R>(&self, read: impl FnOnce(&Tables) -> R) -> R {
        read(&self.0.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Tables) -> (R, Changed)) -> R {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, changed) = change(&mut tables);
        self.0.own.send_if_modified(|own| {
            let news = own.version != tables.own().version;
            if news {
                *own = tables.own().as_ref().clone();
            }
            news
        });
        if changed == Changed::View {
            let fresh = tables.view();
            self.0.view.send_if_modified(|view| {
                let news = **view != fresh;
                if news {
                    *view = Arc::new(fresh);
                }
                news
            });
        }
        result
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock is before that.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
