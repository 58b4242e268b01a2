//! Passing news on, and everything that is sent.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use skep_model::NodeId;

use super::message;
use super::rumours::Urgency;
use super::shorts::Short;
use super::swim::Sends;
use super::{Gossip, Output};
use crate::Tables;
use crate::seal::{OVERHEAD, Way};
use crate::wire::Writer;

/// Bytes of a datagram at the most, with its seal: through any network that IPv6 may cross (RFC 8200, 5).
const DATAGRAM: usize = 1200;
/// Bytes of its content.
pub(super) const ROOM: usize = DATAGRAM - OVERHEAD;
/// To how many members a round goes. When there are not many more, to all.
pub(super) const FANOUT: usize = 3;
/// Up to so many members, everybody is told by everybody.
const FEW: usize = 5;
/// From one round to the next, while there is news.
const ROUND: Duration = Duration::from_millis(70);
/// News from others wait for company that long, so that several share a datagram.
const COMPANY: Duration = Duration::from_millis(30);
/// Own changes wait only when they come faster than this.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Datagrams to each recipient of a round. What is left goes with the next.
const BURST: usize = 12;
impl Gossip {
    pub(super) fn pass_on(&mut self, tables: &Tables, owner: &NodeId, before: u64, urgency: Urgency, now: Duration) {
        let short = Short::of(owner);
        let start = self.rumours.start(short, before);
        let Some(delta) = tables.delta(owner, start) else { return };
        self.rumours.add(short, delta.from, delta.to, message::content(&delta), urgency);
        let wait = match urgency {
            Urgency::Own => self.last_round + AT_ONCE,
            Urgency::Hot | Urgency::Late => now + self.rng.random_range(COMPANY / 2..COMPANY * 2),
        };
        let at = wait.max(now);
        self.round_at = Some(self.round_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn take_up_own(&mut self, tables: &Tables, now: Duration) {
        let version = tables.own().version;
        if tables.outdone() != self.outdone {
            self.outdone = tables.outdone();
            // A former life had a clock that was ahead: its incarnation was as high as its table's version, or lower.
            self.incarnation = self.incarnation.max(version);
            if let Some(swim) = &mut self.swim {
                let sends = swim.rise(version, now);
                self.send_swim(sends);
            }
        }
        if version != self.own_version {
            let own = self.own.clone();
            self.pass_on(tables, &own, self.own_version, Urgency::Own, now);
            self.own_version = version;
            if self.round_at.is_some_and(|at| at <= now) {
                self.round(now);
            }
        }
    }

    /// Sends what is on its way to a few members.
    pub(super) fn round(&mut self, now: Duration) {
        self.last_round = now;
        self.round_at = None;
        let recipients = self.recipients();
        self.told = self.own_version;
        if recipients.is_empty() {
            // Nobody is there to be told; who comes compares everything.
            self.rumours.clear();
            return;
        }
        let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
        self.rumours.begin_round();
        for _ in 0..BURST {
            let mut content = Writer::with_capacity(ROOM);
            if !self.rumours.fill(&mut content, ROOM, count) {
                break;
            }
            self.send_all(&recipients, &content.into_bytes());
        }
        if !self.rumours.is_empty() {
            self.round_at = Some(now + ROUND.mul_f64(self.rng.random_range(0.75..1.25)));
        }
    }

    /// A few of those who answer, or all of them when there are few; while nobody is known to answer, of those who were admitted.
    pub(super) fn recipients(&mut self) -> Vec<NodeId> {
        let known = self.known().len();
        self.choose(if known <= FEW { known } else { FANOUT })
    }

    /// Those who answer; while nobody is known to, those who were admitted.
    fn known(&self) -> &[NodeId] {
        if self.live.is_empty() { &self.others } else { &self.live }
    }

    /// That many of [`Self::known`], or all when there are no more.
    pub(super) fn choose(&mut self, wanted: usize) -> Vec<NodeId> {
        let pool = if self.live.is_empty() { &self.others } else { &self.live };
        choose(&mut self.rng, pool, wanted)
    }

    pub(super) fn send_swim(&mut self, sends: Sends) {
        for (to, message) in sends {
            if self.admitted.get(&to.node) != Some(&to.addr) {
                continue;
            }
            let mut content = Writer::with_capacity(ROOM);
            message::swim(&mut content, &message);
            // It goes anyway: news may come along.
            let room = ROOM - content.len();
            if !self.rumours.is_empty() {
                self.rumours.begin_round();
                self.rumours.fill(&mut content, room, 1);
            }
            self.send_to(&to.node, &content.into_bytes());
        }
    }

    pub(super) fn send_to(&mut self, to: &NodeId, content: &[u8]) {
        self.send_all(std::slice::from_ref(to), content);
    }

    pub(super) fn send_all(&mut self, recipients: &[NodeId], content: &[u8]) {
        let nonce = self.rng.random();
        let Some(datagram) = self.keys.seal(Way::Datagram, &self.own, nonce, content) else { return };
        let datagram: Arc<[u8]> = datagram.into();
        for to in recipients.iter().filter_map(|node| self.admitted.get(node)) {
            self.counters.sent += 1;
            self.outputs.push(Output::Send { to: *to, datagram: datagram.clone() });
        }
    }
}

/// That many of `pool`, or all when there are no more.
pub(super) fn choose(rng: &mut StdRng, pool: &[NodeId], wanted: usize) -> Vec<NodeId> {
    let mut places: Vec<usize> = Vec::with_capacity(wanted.min(pool.len()));
    while places.len() < wanted.min(pool.len()) {
        // Few are wanted: it is quicker to draw again than to shuffle a thousand.
        let place = rng.random_range(0..pool.len());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places.into_iter().map(|place| pool[place].clone()).collect()
}
