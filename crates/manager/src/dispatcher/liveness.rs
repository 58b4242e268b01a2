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
use crate::plan::{Lost, lose};

/// How often the nodes are looked through.
const LOOK: Duration = Duration::from_millis(100);
/// A look that comes so late says that this manager was held up, and nothing of the nodes.
const HELD_UP: Duration = Duration::from_secs(1);

/// How many heartbeats a node may miss whose daemon is there and says nothing.
const HELD_UP_PATIENCE: u32 = 6;
/// How long it counts that such a daemon was found there.
const SEEN: Duration = Duration::from_secs(1);
/// How many times in a row nobody must be found at a node that says nothing, until it is given up before its time. One packet that is lost says
/// nothing, three of them and the silence do.
const NOBODY: u32 = 3;

/// What is at the address of a node that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its daemon, be it that it does not get to answer: its kernel takes connections for it.
    Daemon,
    /// The machine, without its daemon: that may be starting again.
    Machine,
    /// Nobody who answers.
    Nobody,
}

/// Finds out whether a node is there although it says nothing.
#[async_trait]
pub trait Presence: Send + Sync {
    /// What is at that address. Answers within half a second.
    async fn look_for(&self, addr: IpAddr) -> Found;
}

/// When each node was heard of last. A node that was never heard of counts from when it was first looked for.
#[derive(Default)]
pub(super) struct Liveness {
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// When each was found there last, of those that were not heard of.
    there: Mutex<BTreeMap<NodeId, Instant>>,
    /// How many times in a row nobody was found there.
    nobody: Mutex<BTreeMap<NodeId, u32>>,
}

impl Liveness {
    pub(super) fn heard(&self, node: &NodeId) {
        lock(&self.heard).insert(node.clone(), Instant::now());
        lock(&self.nobody).remove(node);
    }

    fn silent_for(&self, node: &NodeId, now: Instant) -> Duration {
        lock(&self.heard).get(node).map_or(Duration::ZERO, |heard| now.duration_since(*heard))
    }

    fn was_there(&self, node: &NodeId, now: Instant) -> bool {
        lock(&self.there).get(node).is_some_and(|seen| now.duration_since(*seen) < SEEN)
    }

    /// Whether a node that has said nothing for so long is to be given up, after it was looked for.
    fn judge(&self, node: &NodeId, found: Found, missed: Missed, now: Instant) -> bool {
        let mut nobody = lock(&self.nobody);
        if found != Found::Nobody {
            nobody.remove(node);
        }
        match found {
            Found::Daemon => {
                lock(&self.there).insert(node.clone(), now);
                false
            }
            Found::Machine => missed == Missed::Period,
            Found::Nobody => {
                let times = nobody.entry(node.clone()).or_default();
                *times += 1;
                missed == Missed::Period || *times >= NOBODY
            }
        }
    }

    fn forgive(&self) {
        lock(&self.heard).clear();
        lock(&self.nobody).clear();
    }

    /// Nodes that have missed a heartbeat. With the ways of the messages that is noticed within two heartbeats.
    fn quiet(&self, tables: &Tables, now: Instant) -> Vec<NodeId> {
        let patience = heartbeat_every(heartbeat(tables)) * 7 / 4;
        let believed = |node: &NodeId| tables.get::<Node>(node).is_some_and(|n| n.status.state != NodeState::Down);
        let heard = lock(&self.heard);
        let quiet = heard.iter().filter(|(node, last)| now > **last + patience && believed(node));
        quiet.map(|(node, _)| node.clone()).collect()
    }

    /// Counts from now for nodes that were never heard of, and forgets those that are no members any more.
    fn follow(&self, tables: &Tables, now: Instant) {
        let mut heard = lock(&self.heard);
        heard.retain(|node, _| tables.get::<Node>(node).is_some());
        lock(&self.there).retain(|node, _| heard.contains_key(node));
        lock(&self.nobody).retain(|node, _| heard.contains_key(node));
        for node in tables.all::<Node>().filter(|node| node.status.state != NodeState::Down) {
            heard.entry(node.id.clone()).or_insert(now);
        }
    }
}

/// How much of its time a node has said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missed {
    /// A heartbeat.
    Heartbeat,
    /// As long as it may be silent.
    Period,
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

    /// Those of the quiet that are lost. A node whose daemon is only held up (its machine is overloaded, or was paused) loses nothing, for its
    /// tasks run and its data plane works without. Where nobody answers at all, the rest of the time is not waited for.
    async fn gone(&self, quiet: Vec<NodeId>) -> Vec<Lost> {
        let now = Instant::now();
        let addr = |node: &NodeId| self.writer.store().view(|t| t.get::<Node>(node).and_then(|n| n.status.addr));
        let period = self.writer.store().view(heartbeat);
        let judged = quiet.into_iter().map(|node| async {
            let silent = self.liveness.silent_for(&node, now);
            let missed = if silent > period { Missed::Period } else { Missed::Heartbeat };
            let seen = self.liveness.was_there(&node, now);
            let found = match addr(&node) {
                _ if seen => Found::Daemon,
                Some(addr) => self.presence.look_for(addr).await,
                // Nobody knows where to look for it.
                None => Found::Machine,
            };
            let is_lost = silent > period * HELD_UP_PATIENCE || !seen && self.liveness.judge(&node, found, missed, now);
            is_lost.then_some(Lost { node, machine_answers: found != Found::Nobody })
        });
        futures::future::join_all(judged).await.into_iter().flatten().collect()
    }

    async fn look(&self) {
        let quiet = self.writer.store().view(|tables| {
            self.liveness.follow(tables, Instant::now());
            let quiet = self.liveness.quiet(tables, Instant::now());
            let down = |node: &Node| node.status.state == NodeState::Down;
            let past = |node: &NodeId| tables.get::<Node>(node).is_none_or(|node| down(node));
            self.silence.look(quiet.iter().cloned(), past);
            quiet
        });
        let gone = if quiet.is_empty() { Vec::new() } else { self.gone(quiet).await };
        if gone.is_empty() {
            return;
        }
        let marked = self.writer.update(|tables| {
            // Looked at again in the turn: a node that came back meanwhile is not lost.
            let quiet = self.liveness.quiet(tables, Instant::now());
            let lost: Vec<Lost> = gone.iter().filter(|lost| quiet.contains(&lost.node)).cloned().collect();
            let changes = lose(tables, &lost, "heartbeat failure");
            Ok::<_, Infallible>((lost, changes))
        });
        match marked.await {
            Ok(lost) => lost.iter().for_each(|Lost { node, machine_answers }| {
                tracing::warn!(%node, machine_answers, "lost: no sign of life");
            }),
            Err(error) => tracing::warn!("cannot mark nodes as down: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_where_nobody_answers_is_given_up_before_its_time_and_no_other() {
        let (liveness, now) = (Liveness::default(), Instant::now());
        let (dead, restarting, held_up) = (NodeId::random(), NodeId::random(), NodeId::random());
        let judge = |node: &NodeId, found, missed| liveness.judge(node, found, missed, now);
        for _ in 1..NOBODY {
            assert!(!judge(&dead, Found::Nobody, Missed::Heartbeat));
        }
        assert!(judge(&dead, Found::Nobody, Missed::Heartbeat));
        for _ in 0..10 * NOBODY {
            assert!(!judge(&restarting, Found::Machine, Missed::Heartbeat));
            assert!(!judge(&held_up, Found::Daemon, Missed::Period));
        }
        assert!(judge(&restarting, Found::Machine, Missed::Period));
        assert!(liveness.was_there(&held_up, now) && !liveness.was_there(&dead, now));
    }

    #[test]
    fn a_lost_answer_now_and_then_gives_nobody_up() {
        let (liveness, now, node) = (Liveness::default(), Instant::now(), NodeId::random());
        for word in 0..10 {
            for _ in 1..NOBODY {
                assert!(!liveness.judge(&node, Found::Nobody, Missed::Heartbeat, now));
            }
            match word % 2 {
                0 => liveness.heard(&node),
                _ => assert!(!liveness.judge(&node, Found::Machine, Missed::Heartbeat, now)),
            }
        }
    }
}
