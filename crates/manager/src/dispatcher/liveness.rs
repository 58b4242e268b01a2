//! Who has been heard of, and who not for too long.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skep_model::{Node, NodeId, NodeState};
use skep_store::Tables;
use tokio::time::Instant;

use super::{Hub, lock};
use crate::plan::lose;

/// How often the nodes are looked through.
const LOOK: Duration = Duration::from_millis(100);
/// A look that comes so late says that this manager was held up, and nothing of the nodes.
const HELD_UP: Duration = Duration::from_secs(1);

/// When each node was heard of last. A node that was never heard of counts from when it was first looked for.
#[derive(Default)]
pub(super) struct Liveness(Mutex<BTreeMap<NodeId, Instant>>);

impl Liveness {
    pub(super) fn heard(&self, node: &NodeId) {
        lock(&self.0).insert(node.clone(), Instant::now());
    }

    fn forgive(&self) {
        lock(&self.0).clear();
    }

    /// Nodes that have missed a heartbeat. With the ways of the messages that is noticed within two heartbeats.
    fn quiet(&self, tables: &Tables, now: Instant) -> Vec<NodeId> {
        let patience = heartbeat_every(heartbeat(tables)) * 7 / 4;
        let believed = |node: &NodeId| tables.get::<Node>(node).is_some_and(|n| n.status.state != NodeState::Down);
        let heard = lock(&self.0);
        let quiet = heard.iter().filter(|(node, last)| now > **last + patience && believed(node));
        quiet.map(|(node, _)| node.clone()).collect()
    }

    fn lost(&self, tables: &Tables, now: Instant) -> Vec<NodeId> {
        let period = heartbeat(tables);
        let mut heard = lock(&self.0);
        heard.retain(|node, _| tables.get::<Node>(node).is_some());
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

    async fn look(&self) {
        self.writer.store().view(|tables| {
            let down = |node: &Node| node.status.state == NodeState::Down;
            let past = |node: &NodeId| tables.get::<Node>(node).is_none_or(|node| down(node));
            self.silence.look(self.liveness.quiet(tables, Instant::now()), past);
        });
        if self.writer.store().view(|tables| self.liveness.lost(tables, Instant::now())).is_empty() {
            return;
        }
        let marked = self.writer.update(|tables| {
            // Looked at again in the turn: a node that came back meanwhile is not lost.
            let lost = self.liveness.lost(tables, Instant::now());
            Ok::<_, Infallible>((lost.clone(), lose(tables, &lost, "heartbeat failure")))
        });
        match marked.await {
            Ok(lost) => lost.iter().for_each(|node| tracing::warn!(%node, "lost: no sign of life")),
            Err(error) => tracing::warn!("cannot mark nodes as down: {error}"),
        }
    }
}
