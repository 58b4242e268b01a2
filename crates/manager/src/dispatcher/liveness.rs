//! Who has been heard of, and who not for too long.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use skep_model::{Node, NodeId, NodeState};
use skep_store::Tables;
use tokio::time::Instant;

use super::{Hub, lock};
use crate::plan::lose;

/// How often the nodes are looked through.
const LOOK: Duration = Duration::from_millis(100);
/// A look that comes so late says that this manager was held up, and nothing of the nodes.
const HELD_UP: Duration = Duration::from_secs(1);

/// How many heartbeats a node may miss whose daemon is there and says nothing.
const HELD_UP_PATIENCE: u32 = 6;
/// How long it counts that such a daemon was found there.
const SEEN: Duration = Duration::from_secs(1);

/// Finds out whether a node is there although it says nothing.
#[async_trait]
pub trait Presence: Send + Sync {
    /// Whether a daemon is at that address, be it that it does not get to answer: its kernel takes connections for it. Answers within half a
    /// second.
    async fn is_there(&self, addr: IpAddr) -> bool;
}

/// When each node was heard of last. A node that was never heard of counts from when it was first looked for.
#[derive(Default)]
pub(super) struct Liveness {
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// When each was found there last, of those that were not heard of.
    there: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Liveness {
    pub(super) fn heard(&self, node: &NodeId) {
        lock(&self.heard).insert(node.clone(), Instant::now());
    }

    fn silent_for(&self, node: &NodeId, now: Instant) -> Duration {
        lock(&self.heard).get(node).map_or(Duration::ZERO, |heard| now.duration_since(*heard))
    }

    fn was_there(&self, node: &NodeId, now: Instant) -> bool {
        lock(&self.there).get(node).is_some_and(|seen| now.duration_since(*seen) < SEEN)
    }

    fn is_there(&self, node: &NodeId, now: Instant) {
        lock(&self.there).insert(node.clone(), now);
    }

    fn forgive(&self) {
        lock(&self.heard).clear();
    }

    /// Nodes that have missed a heartbeat. With the ways of the messages that is noticed within two heartbeats.
    fn quiet(&self, tables: &Tables, now: Instant) -> Vec<NodeId> {
        let patience = heartbeat_every(heartbeat(tables)) * 7 / 4;
        let believed = |node: &NodeId| tables.get::<Node>(node).is_some_and(|n| n.status.state != NodeState::Down);
        let heard = lock(&self.heard);
        let quiet = heard.iter().filter(|(node, last)| now > **last + patience && believed(node));
        quiet.map(|(node, _)| node.clone()).collect()
    }

    fn lost(&self, tables: &Tables, now: Instant) -> Vec<NodeId> {
        let period = heartbeat(tables);
        let mut heard = lock(&self.heard);
        heard.retain(|node, _| tables.get::<Node>(node).is_some());
        lock(&self.there).retain(|node, _| heard.contains_key(node));
        let believed = tables.all::<Node>().filter(|node| node.status.state != NodeState::Down);
        let silent = believed.filter(|node| now > *heard.entry(node.id.clone()).or_insert(now) + period);
        silent.map(|node| node.id.clone()).collect()
    }
}

/// Agents report at least this often, however patient the managers are.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(1);

/// How often a node says something when it may be silent for `period`.
pub(super) fn heartbeat_every(period: Duration) -> Duration {
    HEARTBEAT_LIMIT.min(period / 3)
}

/// How long a node may be silent before it counts as lost.
pub(super) fn heartbeat(tables: &Tables) -> Duration {
    tables.cluster().map_or(Duration::from_secs(5), |cluster| cluster.spec.dispatcher.heartbeat)
}

impl Hub {
    /// Marks nodes as down that have been silent for too long, while this manager leads. Never ends.
    pub(crate) async fn watch_nodes(self: Arc<Self>) {
        let mut leading = self.leading.clone();
        while leading.wait_for(|leads| *leads).await.is_ok() {
            // Nodes get one period to find the new leader.
            self.liveness.forgive();
            let mut last = Instant::now();
            while *leading.borrow() {
                tokio::time::sleep(LOOK).await;
                if last.elapsed() > LOOK + HELD_UP {
                    self.liveness.forgive();
                }
                last = Instant::now();
                self.look().await;
            }
        }
    }

    /// Those of the lost that are lost: a node whose daemon is only held up (its machine is overloaded, or was paused) loses nothing, for its
    /// tasks run and its data plane works without.
    async fn gone(&self, lost: Vec<NodeId>) -> Vec<NodeId> {
        let now = Instant::now();
        let addr = |node: &NodeId| self.writer.store().view(|t| t.get::<Node>(node).and_then(|n| n.status.addr));
        let patience = self.writer.store().view(heartbeat) * HELD_UP_PATIENCE;
        let judged = lost.into_iter().map(|node| async {
            if self.liveness.silent_for(&node, now) > patience {
                return Some(node);
            }
            if self.liveness.was_there(&node, now) {
                return None;
            }
            let Some(addr) = addr(&node) else { return Some(node) };
            if !self.presence.is_there(addr).await {
                return Some(node);
            }
            self.liveness.is_there(&node, now);
            None
        });
        futures::future::join_all(judged).await.into_iter().flatten().collect()
    }

    async fn look(&self) {
        self.writer.store().view(|tables| {
            let down = |node: &Node| node.status.state == NodeState::Down;
            let past = |node: &NodeId| tables.get::<Node>(node).is_none_or(|node| down(node));
            self.silence.look(self.liveness.quiet(tables, Instant::now()), past);
        });
        let lost = self.writer.store().view(|tables| self.liveness.lost(tables, Instant::now()));
        let gone = if lost.is_empty() { lost } else { self.gone(lost).await };
        if gone.is_empty() {
            return;
        }
        let marked = self.writer.update(|tables| {
            // Looked at again in the turn: a node that came back meanwhile is not lost.
            let mut lost = self.liveness.lost(tables, Instant::now());
            lost.retain(|node| gone.contains(node));
            Ok::<_, Infallible>((lost.clone(), lose(tables, &lost, "heartbeat failure")))
        });
        match marked.await {
            Ok(lost) => lost.iter().for_each(|node| tracing::warn!(%node, "lost: no sign of life")),
            Err(error) => tracing::warn!("cannot mark nodes as down: {error}"),
        }
    }
}
