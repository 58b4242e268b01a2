//! How nodes tell each other, as a plain value: no sockets, no clock. Whoever drives it says what time it is and what has arrived, and does
//! what [`Gossip::take`] returns.
//!
//! Three things happen at once, in the same datagrams:
//! - the failure detector (`swim`) finds out who answers;
//! - a change of a table goes from node to node (`rumours`);
//! - now and then, and where something is missing, two nodes compare all they know (`exchange`).

mod doubts;
mod exchange;
mod hearing;
mod identity;
mod message;
mod rounds;
mod rumours;
mod shorts;
mod swim;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skep_model::{GossipKeys, NodeId};

use self::doubts::Doubts;
use self::exchange::Schedule;
use self::hearing::Question;
use self::identity::Identity;
use self::rounds::FANOUT;
use self::rumours::Rumours;
use self::shorts::Shorts;
use self::swim::{Admitted, Swim};
use crate::seal::KeyRing;
use crate::{Tables, Unreadable};

/// How often those are greeted that do not answer.
const GREET: Duration = Duration::from_secs(1);
/// How often it is looked who answers, at the most.
const LOOK: Duration = Duration::from_millis(50);
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

/// One node's part in the talk.
pub struct Gossip {
    own: NodeId,
    /// When this life began, in milliseconds since 1970 or more.
    incarnation: u64,
    keys: KeyRing,
    rng: StdRng,
    admitted: Admitted,
    shorts: Shorts,
    /// All members but this one.
    others: Vec<NodeId>,
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
    doubts: Doubts,
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
            shorts: Shorts::default(),
            others: Vec::new(),
            swim: None,
            live: Vec::new(),
            rumours: Rumours::default(),
            own_version: 0,
            told: 0,
            outdone: 0,
            questions: BTreeMap::new(),
            doubts: Doubts::default(),
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
        self.others = self.admitted.keys().filter(|node| **node != self.own).cloned().collect();
        self.shorts = Shorts::of(self.admitted.keys());
        self.rumours.set_members(self.admitted.len());
        self.live.retain(|node| self.admitted.contains_key(node));
        self.questions.retain(|owner, _| self.admitted.contains_key(owner));
        match own {
            None => self.swim = None,
            Some(addr) if self.swim.as_ref().is_none_or(|swim| swim.own().addr != addr) => {
                let before = self.swim.take().map_or(0, |swim| swim.own().incarnation.saturating_add(1));
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
        [Some(self.greet_at), Some(self.schedule.due()), self.round_at, swim, question, self.doubts.due()]
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
        self.doubt_if_due(now);
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

    fn greet(&mut self, now: Duration) {
        self.greet_at = now + GREET.mul_f64(self.rng.random_range(0.8..1.2));
        let live: BTreeSet<_> = self.live.iter().collect();
        let quiet: Vec<_> = self.others.iter().filter(|node| !live.contains(node)).cloned().collect();
        let quiet = rounds::choose(&mut self.rng, &quiet, FANOUT);
        self.tell_doubted(&quiet);
        self.ask_others(&quiet);
        for node in quiet {
            let Some((swim, addr)) = self.swim.as_mut().zip(self.admitted.get(&node).copied()) else { return };
            if swim.state_of(addr).is_none_or(|known| known.id().node != node) {
                let sends = swim.greet(node, addr, now);
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
            self.note_doubts(now);
        }
        if let Some(node) = risen.into_iter().find(|node| self.admitted.contains_key(node)) {
            let soon = self.rng.random_range(Duration::ZERO..exchange::SOON);
            self.schedule.soon(node, now + soon);
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
