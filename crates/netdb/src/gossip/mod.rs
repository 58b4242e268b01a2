//! How nodes tell each other, as a plain value: no sockets, no clock. Whoever drives it says what time it is and what has arrived, and does
//! what [`Gossip::take`] returns.
//!
//! Three things happen at once, in the same datagrams:
//! - the failure detector ([`swim`]) finds out who answers;
//! - a change of a table goes from node to node ([`rumours`]);
//! - now and then, and where something is missing, two nodes compare all they know ([`exchange`]).

mod exchange;
mod identity;
mod message;
mod rumours;
mod swim;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skep_model::{GossipKeys, NodeId};

use self::exchange::Schedule;
use self::identity::Identity;
use self::message::Part;
use self::rumours::{Rumours, Urgency};
use self::swim::{Admitted, Sends, Swim};
use crate::seal::{KeyRing, OVERHEAD, Way};
use crate::wire::{Reader, Writer};
use crate::{Delta, Merged, Tables, Unreadable};

/// Bytes of a datagram at the most, with its seal: through any network that IPv6 may cross (RFC 8200, 5).
const DATAGRAM: usize = 1200;
/// Bytes of its content.
const ROOM: usize = DATAGRAM - OVERHEAD;
/// To how many members a round goes. When there are not many more, to all.
const FANOUT: usize = 3;
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
/// How often those are greeted that do not answer.
const GREET: Duration = Duration::from_secs(1);
/// How often it is looked who answers, at the most.
const LOOK: Duration = Duration::from_millis(50);
/// How long an answer is waited for before somebody is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(120);
/// So many questions without an answer lead to an exchange.
const QUESTIONS: u32 = 6;

/// Something for the driver to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        datagram: Arc<[u8]>,
    },
    /// Hold an exchange over TCP: send what [`Gossip::open_exchange`] returns, and then answer by [`Gossip::answer`] until there is
    /// nothing to answer.
    Exchange {
        /// With whom.
        with: NodeId,
        /// Where that is.
        addr: SocketAddr,
        /// Owners whose tables are asked for; empty to compare everything.
        wants: Vec<NodeId>,
    },
}

/// What has come and gone, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams taken in.
    pub received: u64,
    /// Datagrams and frames dropped: sealed with no key of ours.
    pub unknown_key: u64,
    /// Dropped: with a broken seal.
    pub forged: u64,
    /// Dropped: from nobody that managers have admitted.
    pub strangers: u64,
    /// Dropped for any other reason.
    pub unreadable: u64,
    /// Exchanges that were begun.
    pub exchanges: u64,
}

/// What is known to be missing here.
#[derive(Debug, Clone)]
struct Question {
    /// The version that there is.
    version: u64,
    /// Who has told of it last.
    teller: NodeId,
    /// When it is asked for again.
    again: Duration,
    times: u32,
}

/// One node's part in the talk.
pub struct Gossip {
    own: NodeId,
    /// When this life began, in milliseconds since 1970 or more.
    incarnation: u64,
    keys: KeyRing,
    rng: StdRng,
    admitted: Admitted,
    shorts: HashMap<u32, NodeId>,
    /// `None` until managers have said where this node is.
    swim: Option<Swim>,
    /// Members that can be spoken to.
    live: Vec<NodeId>,
    rumours: Rumours,
    /// The version of the own table that was taken up last, and the one that has been sent.
    own_version: u64,
    told: u64,
    outdone: u64,
    questions: BTreeMap<NodeId, Question>,
    schedule: Schedule,
    round_at: Option<Duration>,
    last_round: Duration,
    greet_at: Duration,
    look_at: Duration,
    counters: Counters,
    outputs: Vec<Output>,
}

impl Gossip {
    /// A node that knows nobody and has no keys. `incarnation` must be higher than in any former life of the node: the version of its own
    /// table is. `seed` must come from the system's generator of random numbers: nonces are made of it.
    #[must_use]
    pub fn new(own: NodeId, incarnation: u64, seed: [u8; 32]) -> Self {
        Self {
            own,
            incarnation,
            keys: KeyRing::empty(),
            rng: StdRng::from_seed(seed),
            admitted: BTreeMap::new(),
            shorts: HashMap::new(),
            swim: None,
            live: Vec::new(),
            rumours: Rumours::default(),
            own_version: 0,
            told: 0,
            outdone: 0,
            questions: BTreeMap::new(),
            schedule: Schedule::default(),
            round_at: None,
            last_round: Duration::ZERO,
            greet_at: Duration::ZERO,
            look_at: Duration::ZERO,
            counters: Counters::default(),
            outputs: Vec::new(),
        }
    }

    /// Replaces the keys.
    pub fn set_keys(&mut self, keys: &GossipKeys) {
        self.keys = KeyRing::new(keys);
    }

    /// Replaces the list of those whom managers have admitted, with where they listen. Nobody else is spoken to or listened to.
    pub fn set_members(&mut self, members: BTreeMap<NodeId, SocketAddr>, now: Duration) {
        let own = members.get(&self.own).copied();
        let new = members.keys().find(|node| **node != self.own && !self.admitted.contains_key(*node)).cloned();
        if let Some(new) = new {
            let soon = self.rng.random_range(Duration::ZERO..exchange::SOON);
            self.schedule.soon(new, now + soon);
        }
        self.admitted = members;
        self.shorts = self.admitted.keys().map(|node| (message::short(node), node.clone())).collect();
        self.rumours.set_members(self.admitted.len());
        self.live.retain(|node| self.admitted.contains_key(node));
        self.questions.retain(|owner, _| self.admitted.contains_key(owner));
        match own {
            None => self.swim = None,
            Some(addr) if self.swim.as_ref().is_none_or(|swim| swim.own().addr != addr) => {
                let before = self.swim.take().map_or(0, |swim| swim.own().incarnation + 1);
                self.incarnation = self.incarnation.max(before);
                let identity = Identity { node: self.own.clone(), addr, incarnation: self.incarnation };
                self.swim = Some(Swim::new(identity, &mut self.rng, now));
            }
            Some(_) => {}
        }
        if let Some(swim) = &mut self.swim {
            let sends = swim.set_members(&self.admitted, now);
            self.send_swim(sends);
        }
        self.greet_at = now;
    }

    /// Where a member listens.
    #[must_use]
    pub fn address(&self, node: &NodeId) -> Option<SocketAddr> {
        self.admitted.get(node).copied()
    }

    /// The version of the own table of which others have been sent word.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told
    }

    /// What has come and gone.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is to be done, and forgets it.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::poll`] is due, at the latest.
    #[must_use]
    pub fn due(&self) -> Duration {
        let swim = self.swim.as_ref().and_then(Swim::due);
        let question = self.questions.values().map(|question| question.again).min();
        [Some(self.greet_at), Some(self.schedule.due()), self.round_at, swim, question]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.greet_at)
    }

    /// Does what is due: takes up changes of the own table too.
    pub fn poll(&mut self, tables: &mut Tables, now: Duration) {
        if let Some(swim) = &mut self.swim {
            let sends = swim.poll(now);
            self.send_swim(sends);
        }
        self.take_up_own(tables, now);
        if self.greet_at <= now {
            self.greet(now);
        }
        if self.round_at.is_some_and(|at| at <= now) {
            self.round(now);
        }
        self.ask_again(tables, now);
        self.exchange_if_due(now);
        self.look(tables, now);
    }

    /// Takes a datagram in. `now` is the time since any moment before the start, and never goes back.
    ///
    /// # Errors
    /// Why it was dropped, wholly or from some point on; it is counted too.
    pub fn receive(&mut self, tables: &mut Tables, datagram: &mut [u8], now: Duration) -> Result<(), Unreadable> {
        let taken = self.receive_inner(tables, datagram, now);
        self.count(taken)?;
        self.counters.received += 1;
        self.take_up_own(tables, now);
        self.look(tables, now);
        Ok(())
    }

    /// Says that this node leaves for good. Its table should be empty, and is said a last time.
    pub fn leave(&mut self, tables: &mut Tables, now: Duration) {
        self.take_up_own(tables, now);
        self.round(now);
        if let Some(swim) = &mut self.swim {
            let sends = swim.leave(now);
            self.send_swim(sends);
        }
    }

    fn receive_inner(&mut self, tables: &mut Tables, datagram: &mut [u8], now: Duration) -> Result<(), Unreadable> {
        let (from, content) = self.keys.open(Way::Datagram, datagram)?;
        self.check_sender(&from)?;
        let mut reader = Reader::new(content);
        let mut reply = Writer::default();
        while !reader.is_empty() {
            let part = Part::read(&mut reader)?;
            self.take_part(tables, &from, part, &mut reply, now)?;
        }
        if reply.len() > 0 {
            self.send_to(&from, &reply.into_bytes());
        }
        Ok(())
    }

    fn check_sender(&self, from: &NodeId) -> Result<(), Unreadable> {
        let admitted = *from != self.own && self.admitted.contains_key(from);
        if admitted { Ok(()) } else { Err(Unreadable::Stranger) }
    }

    fn take_part(
        &mut self,
        tables: &mut Tables,
        from: &NodeId,
        part: Part<'_>,
        reply: &mut Writer,
        now: Duration,
    ) -> Result<(), Unreadable> {
        match part {
            Part::Swim(message) => {
                if let Some(swim) = &mut self.swim {
                    let sends = swim.receive(from, message, now);
                    self.send_swim(sends);
                }
            }
            Part::Delta(delta) => {
                let (owner, version) = message::delta_head(delta)?;
                let known = owner != self.own && tables.rank(&owner).is_some_and(|(known, _)| known >= version);
                if !known && self.apply(tables, Reader::new(delta).delta()?, Urgency::Hot, now) == Merged::Gap {
                    self.ask(tables, from, owner, version, reply, now);
                }
            }
            Part::Mentions(mentions) => {
                for (short, version) in mentions {
                    let Some(owner) = self.shorts.get(&short).cloned() else { continue };
                    if owner == self.own {
                        // Two lives of this node may have counted differently.
                        if version > tables.own().version {
                            tables.outdo(version);
                        }
                    } else if tables.rank(&owner).is_none_or(|(known, _)| known < version) {
                        self.ask(tables, from, owner, version, reply, now);
                    }
                }
            }
            Part::Want(owner, known) => self.answer_want(tables, from, &owner, known, reply),
            Part::TooLarge(owner) => self.fetch(from, owner, 0, now),
        }
        Ok(())
    }

    /// Asks who told of it for what is missing, unless somebody has just been asked.
    fn ask(&mut self, tables: &Tables, from: &NodeId, owner: NodeId, version: u64, reply: &mut Writer, now: Duration) {
        if let Some(question) = self.questions.get_mut(&owner) {
            if question.version < version {
                (question.version, question.teller) = (version, from.clone());
            }
            return;
        }
        self.write_want(tables, &owner, reply);
        self.questions.insert(owner, Question { version, teller: from.clone(), again: now + ASK_AGAIN, times: 1 });
        self.send_if_full(from, reply);
    }

    fn write_want(&self, tables: &Tables, owner: &NodeId, reply: &mut Writer) {
        let known = tables.rank(owner).map_or(0, |(version, _)| version);
        message::want(reply, owner, known);
    }

    /// Questions that were not answered are asked anew, of anybody: most know by now. In the end it is a matter for an exchange.
    fn ask_again(&mut self, tables: &Tables, now: Duration) {
        let due = self.questions.iter().filter(|(_, question)| question.again <= now);
        let due: Vec<_> = due.map(|(owner, question)| (owner.clone(), question.clone())).collect();
        for (owner, question) in due {
            if question.times >= QUESTIONS {
                self.fetch(&question.teller, owner, question.version, now);
                continue;
            }
            let mut anybody = self.live.clone();
            self.choose(&mut anybody, 1);
            let whom = anybody.pop().unwrap_or_else(|| question.teller.clone());
            let mut content = Writer::default();
            self.write_want(tables, &owner, &mut content);
            self.send_to(&whom, &content.into_bytes());
            self.questions.insert(owner, Question { again: now + ASK_AGAIN, times: question.times + 1, ..question });
        }
    }

    fn answer_want(&mut self, tables: &Tables, from: &NodeId, owner: &NodeId, known: u64, reply: &mut Writer) {
        if tables.rank(owner).is_none_or(|(version, _)| version <= known) {
            return;
        }
        let Some(delta) = tables.delta(owner, known) else { return };
        let body = message::delta(&delta);
        if body.len() > rumours::LARGEST {
            message::too_large(reply, owner);
        } else {
            if reply.len() + body.len() > ROOM {
                let full = std::mem::take(reply).into_bytes();
                self.send_to(from, &full);
            }
            reply.bytes(&body);
        }
        self.send_if_full(from, reply);
    }

    fn send_if_full(&mut self, to: &NodeId, reply: &mut Writer) {
        // The longest question or notice still fits.
        if reply.len() > ROOM - 32 {
            let full = std::mem::take(reply).into_bytes();
            self.send_to(to, &full);
        }
    }

    /// Takes in a change of somebody's table, and passes it on when it is news.
    fn apply(&mut self, tables: &mut Tables, delta: Delta, urgency: Urgency, now: Duration) -> Merged {
        let owner = delta.owner.clone();
        if !self.admitted.contains_key(&owner) {
            return Merged::Stale;
        }
        let before = tables.rank(&owner).map_or(0, |(version, _)| version);
        let merged = tables.apply(delta);
        if merged == Merged::Newer {
            let after = tables.rank(&owner).map_or(0, |(version, _)| version);
            if self.questions.get(&owner).is_some_and(|question| question.version <= after) {
                self.questions.remove(&owner);
            }
            self.pass_on(tables, &owner, before, urgency, now);
        }
        merged
    }

    fn pass_on(&mut self, tables: &Tables, owner: &NodeId, before: u64, urgency: Urgency, now: Duration) {
        let start = self.rumours.start(owner, before);
        let Some(delta) = tables.delta(owner, start) else { return };
        self.rumours.add(owner, start, delta.to, message::delta(&delta), urgency);
        let wait = match urgency {
            Urgency::Own => self.last_round + AT_ONCE,
            Urgency::Hot | Urgency::Late => now + self.rng.random_range(COMPANY / 2..COMPANY * 2),
        };
        let at = wait.max(now);
        self.round_at = Some(self.round_at.map_or(at, |before| before.min(at)));
    }

    fn take_up_own(&mut self, tables: &Tables, now: Duration) {
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
    fn round(&mut self, now: Duration) {
        self.last_round = now;
        self.round_at = None;
        let recipients = self.recipients();
        self.told = self.own_version;
        if recipients.is_empty() {
            // Nobody is there to be told; who comes compares everything.
            self.rumours = Rumours::default();
            self.rumours.set_members(self.admitted.len());
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
    fn recipients(&mut self) -> Vec<NodeId> {
        let mut pool = if self.live.is_empty() { self.others() } else { self.live.clone() };
        let wanted = if pool.len() <= FEW { pool.len() } else { FANOUT };
        self.choose(&mut pool, wanted);
        pool
    }

    fn others(&self) -> Vec<NodeId> {
        self.admitted.keys().filter(|node| **node != self.own).cloned().collect()
    }

    /// Keeps that many of `pool`, any.
    fn choose(&mut self, pool: &mut Vec<NodeId>, wanted: usize) {
        let wanted = wanted.min(pool.len());
        for place in 0..wanted {
            let other = self.rng.random_range(place..pool.len());
            pool.swap(place, other);
        }
        pool.truncate(wanted);
    }

    fn greet(&mut self, now: Duration) {
        self.greet_at = now + GREET.mul_f64(self.rng.random_range(0.8..1.2));
        let live: BTreeSet<_> = self.live.iter().cloned().collect();
        let mut quiet: Vec<_> = self.others().into_iter().filter(|node| !live.contains(node)).collect();
        self.choose(&mut quiet, FANOUT);
        for node in quiet {
            if let (Some(swim), Some(addr)) = (&mut self.swim, self.admitted.get(&node)) {
                let sends = swim.greet(node, *addr, now);
                self.send_swim(sends);
            }
        }
    }

    /// Looks who answers.
    fn look(&mut self, tables: &mut Tables, now: Duration) {
        let Some(swim) = self.swim.as_mut().filter(|_| self.look_at <= now) else { return };
        self.look_at = now + LOOK;
        let risen = swim.risen();
        if let Some((live, suspects)) = swim.news() {
            self.live = live.into_iter().filter(|node| self.admitted.contains_key(node)).collect();
            tables.set_suspects(suspects);
        }
        if let Some(node) = risen.into_iter().find(|node| self.admitted.contains_key(node)) {
            let soon = self.rng.random_range(Duration::ZERO..exchange::SOON);
            self.schedule.soon(node, now + soon);
        }
    }

    fn send_swim(&mut self, sends: Sends) {
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

    fn send_to(&mut self, to: &NodeId, content: &[u8]) {
        self.send_all(std::slice::from_ref(to), content);
    }

    fn send_all(&mut self, recipients: &[NodeId], content: &[u8]) {
        let nonce = self.rng.random();
        let Some(datagram) = self.keys.seal(Way::Datagram, &self.own, nonce, content) else { return };
        let datagram: Arc<[u8]> = datagram.into();
        for to in recipients.iter().filter_map(|node| self.admitted.get(node)) {
            self.counters.sent += 1;
            self.outputs.push(Output::Send { to: *to, datagram: datagram.clone() });
        }
    }

    fn count<T>(&mut self, taken: Result<T, Unreadable>) -> Result<T, Unreadable> {
        match &taken {
            Ok(_) => {}
            Err(Unreadable::UnknownKey) => self.counters.unknown_key += 1,
            Err(Unreadable::Forged) => self.counters.forged += 1,
            Err(Unreadable::Stranger) => self.counters.strangers += 1,
            Err(Unreadable::Foreign | Unreadable::Garbled) => self.counters.unreadable += 1,
        }
        taken
    }
}
