//! The tables, shared within a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use skep_model::{EndpointKey, EndpointRecord, EndpointState, Member, NodeId, OwnerTable};
use tokio::sync::watch;

use crate::view::Viewer;
use crate::{Merged, Tables, View};

/// A node's tables. Cheap to clone; all clones are the same tables.
///
/// After a restart, [take over](NetDb::take_over) what still runs *before* showing [`NetDb::own`] to anybody: an empty own table is
/// news too, and takes the node's endpoints out of everybody's mesh.
#[derive(Debug, Clone)]
pub struct NetDb(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    // Both are sent to under the lock, so that what followers see is never older than what they saw before.
    own: watch::Sender<Arc<OwnerTable>>,
    view: watch::Sender<Arc<View>>,
    /// The version of the own table that other nodes have been sent word of.
    told: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    tables: Tables,
    viewer: Viewer,
}

impl NetDb {
    /// The tables of the node `own`: no members, no endpoints, at a version taken from the clock.
    #[must_use]
    pub fn new(own: NodeId) -> Self {
        let tables = Tables::new(own, now_ms());
        Self(Arc::new(Shared {
            own: watch::Sender::new(tables.own().clone()),
            view: watch::Sender::default(),
            told: watch::Sender::default(),
            state: Mutex::new(State { tables, viewer: Viewer::default() }),
        }))
    }

    /// The node that these are the tables of.
    #[must_use]
    pub fn own_node(&self) -> NodeId {
        self.read(|tables| tables.own_node().clone())
    }

    /// Adds or replaces an endpoint of this node. Saying the same again is no news and costs nothing.
    pub fn publish(&self, key: EndpointKey, record: EndpointRecord) {
        self.talk(|tables| tables.publish([(key, record)], now_ms()));
    }

    /// Says whether an endpoint of this node takes new flows. Nothing happens for one that is not there.
    pub fn set_state(&self, key: &EndpointKey, state: EndpointState) {
        self.talk(|tables| tables.set_state(key, state, now_ms()));
    }

    /// Goes on where the node was before a restart: see [`Tables::take_over`].
    pub fn take_over(&self, told: OwnerTable, holds: impl Fn(&EndpointKey) -> bool) {
        self.talk(|tables| tables.take_over(told, holds, now_ms()));
    }

    /// Removes an endpoint of this node; no error if it is not there.
    pub fn withdraw(&self, key: &EndpointKey) {
        self.talk(|tables| tables.withdraw(key, now_ms()));
    }

    /// Replaces this node's addresses. Saying the same again is no news and costs nothing.
    pub fn set_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.talk(|tables| tables.set_addresses(addresses, now_ms()));
    }

    /// This node's own table and its changes, for those who tell other nodes.
    #[must_use]
    pub fn own(&self) -> watch::Receiver<Arc<OwnerTable>> {
        self.0.own.subscribe()
    }

    /// Takes what another node says of its endpoints, when it is newer than what is known. A newer table of *this* node is not taken but
    /// outdone: the own version is raised above it.
    pub fn merge(&self, owner: NodeId, table: OwnerTable) -> Merged {
        self.talk(|tables| tables.merge(owner, table))
    }

    /// Replaces the list of members.
    pub fn set_members(&self, members: Vec<Member>) {
        self.talk(|tables| tables.set_members(members));
    }

    /// Replaces the set of members that are not heard of at present: others get their new flows, where there are others.
    pub fn set_silent(&self, silent: BTreeSet<NodeId>) {
        self.talk(|tables| tables.set_silent(silent));
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

    /// Does something with the tables. Followers are told when anything has come of it.
    pub(crate) fn talk<R>(&self, talk: impl FnOnce(&mut Tables) -> R) -> R {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { tables, viewer } = &mut *state;
        let result = talk(tables);
        let changed = tables.take_changed();
        if changed.contains(tables.own_node()) {
            self.0.own.send_if_modified(|own| {
                let news = own.version != tables.own().version;
                if news {
                    own.clone_from(tables.own());
                }
                news
            });
        }
        if !changed.is_empty() && viewer.update(tables, changed) {
            self.0.view.send_replace(Arc::new(viewer.view().clone()));
        }
        result
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
        read(&self.0.state.lock().unwrap_or_else(PoisonError::into_inner).tables)
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock is before that.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
