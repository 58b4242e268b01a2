//! Who leads, as this member knows.

use std::net::SocketAddr;
use std::time::Duration;

use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fault::Fault;
use crate::types::Core;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody that this member knows of: there is an election, too few members are in reach, or this member is new.
    Unknown,
    /// This member, and its store shows everything that was ever acknowledged.
    Leader {
        /// Grows with each election: it tells one time of leading from the next.
        term: u64,
    },
    /// Another member.
    Follower {
        /// The leader's Raft id.
        leader: u64,
        /// Where it answers.
        addr: SocketAddr,
    },
    /// This member has stopped, by itself or because it was told to. It does not come back.
    Stopped(
        /// Why.
        String,
    ),
}

impl Leadership {
    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }
}

/// A leader that has not heard of a majority for so long does not lead any more, though nobody has told it yet. By then the others
/// may have elected another one: they wait for 600 ms of silence and then for as long again at most.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(1);
/// How often that is looked at when openraft has nothing new to say.
const LOOK: Duration = Duration::from_millis(200);

type Metrics = RaftMetrics<u64, openraft::BasicNode>;

/// Follows openraft's own metrics until the member stops.
pub(crate) async fn follow(core: Core, fault: Fault, leadership: watch::Sender<Leadership>) {
    let mut metrics = core.metrics();
    let mut told = Instant::now();
    loop {
        let now = metrics.borrow_and_update().clone();
        let current = leadership.borrow().clone();
        let next = match &now.running_state {
            Err(fatal) => Leadership::Stopped(fault.or(fatal)),
            Ok(()) if now.state == ServerState::Leader => lead(&core, &now, told, &current).await,
            Ok(()) => followed(&now).unwrap_or(Leadership::Unknown),
        };
        let stopped = matches!(next, Leadership::Stopped(_));
        if next != current {
            tracing::info!(leadership = ?next, "who leads has changed");
            leadership.send_replace(next);
        }
        if stopped {
            return;
        }
        // Only a leader looks again by itself: others are told of every change.
        let changed = match now.state {
            ServerState::Leader => tokio::time::timeout(LOOK, metrics.changed()).await,
            _ => Ok(metrics.changed().await),
        };
        match changed {
            Ok(Ok(())) => told = Instant::now(),
            Ok(Err(_)) => {
                leadership.send_replace(Leadership::Stopped("it was shut down".to_owned()));
                return;
            }
            Err(_) => {}
        }
    }
}

/// Whether openraft's leader may be believed. `told` is when openraft last said anything: one that hangs does not hear either.
async fn lead(core: &Core, metrics: &Metrics, told: Instant, current: &Leadership) -> Leadership {
    let leader = Leadership::Leader { term: metrics.current_term };
    let alone = metrics.membership_config.voter_ids().count() == 1;
    let silence = metrics.millis_since_quorum_ack.map(|ms| Duration::from_millis(ms) + told.elapsed());
    let silent = !alone && silence.is_some_and(|silence| silence > QUORUM_TIMEOUT);
    if silent {
        // Not asked for again before somebody answers by himself: whoever waits for this must hear at once.
        return Leadership::Unknown;
    }
    if *current == leader {
        return leader;
    }
    // New, or heard again: ask a majority, and wait until everything that it has is applied here.
    match tokio::time::timeout(QUORUM_TIMEOUT, core.ensure_linearizable()).await {
        Ok(Ok(_)) => leader,
        _ => Leadership::Unknown,
    }
}

fn followed(metrics: &Metrics) -> Option<Leadership> {
    let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
    let addr = metrics.membership_config.membership().get_node(&leader)?.addr.parse().ok()?;
    Some(Leadership::Follower { leader, addr })
}
