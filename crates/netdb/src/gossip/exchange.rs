//! Anti-entropy: two nodes compare, table by table, what they know, and each tells the other what it lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Member;
use rand::RngExt;
use skep_model::NodeId;

use super::hearing::Question;
use super::identity::Identity;
use super::message::Frame;
use super::rumours::Urgency;
use super::{Gossip, Output};
use crate::seal::Way;
use crate::{Delta, Tables, Unreadable};

/// From one exchange that nothing calls for to the next, on average.
const EVERY: Duration = Duration::from_secs(15);
/// An exchange with somebody who has come up begins within this time.
pub(super) const SOON: Duration = Duration::from_millis(500);
/// The pause after one that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// When the next exchange is due, and with whom.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    at: Duration,
    with: Option<NodeId>,
}

impl Schedule {
    pub(super) fn due(&self) -> Duration {
        self.at
    }

    /// Brings it forward.
    pub(super) fn soon(&mut self, with: NodeId, at: Duration) {
        if at < self.at {
            *self = Self { at, with: Some(with) };
        }
    }
}

impl Gossip {
    pub(super) fn exchange_if_due(&mut self, now: Duration) {
        if self.schedule.at > now {
            return;
        }
        self.schedule.at = now + EVERY.mul_f64(self.rng.random_range(0.7..1.3));
        let preferred = self.schedule.with.take().filter(|node| self.admitted.contains_key(node));
        let with = preferred.or_else(|| self.choose(1).pop());
        match with {
            Some(with) => self.begin(with, Vec::new()),
            None => self.schedule.at = now + AGAIN,
        }
    }

    fn begin(&mut self, with: NodeId, wants: Vec<NodeId>) {
        if let Some(addr) = self.address(&with) {
            self.counters.exchanges += 1;
            self.outputs.push(Output::Exchange { with, addr, wants });
        }
    }

    /// Gets a table from somebody who has it newer, unless that is under way.
    pub(super) fn fetch(&mut self, from: &NodeId, owner: NodeId, version: u64, now: Duration) {
        let known = self.questions.get(&owner).map_or(0, |question| question.version);
        // An answer that takes a connection takes longer.
        let question = Question { version: version.max(known), teller: from.clone(), again: now + AGAIN, times: 0 };
        self.questions.insert(owner.clone(), question);
        self.begin(from.clone(), vec![owner]);
    }

    /// The first frame of an exchange; `None` without a key.
    pub fn open_exchange(&mut self, tables: &Tables, wants: &[NodeId]) -> Option<Vec<u8>> {
        let frame = if wants.is_empty() {
            Frame::Digest { members: self.states(), ranks: self.ranks(tables) }
        } else {
            let known = |owner: &NodeId| tables.rank(owner).map_or(0, |(version, _)| version);
            Frame::Wants(wants.iter().map(|owner| (owner.clone(), known(owner))).collect())
        };
        self.seal_frame(&frame)
    }

    /// Takes a frame of an exchange in, from either side. Returns the answer, if there is one to be given.
    ///
    /// # Errors
    /// Why it was dropped; it is counted too. The exchange is over then.
    pub fn answer(
        &mut self,
        tables: &mut Tables,
        frame: &mut [u8],
        now: Duration,
    ) -> Result<Option<Vec<u8>>, Unreadable> {
        let taken = self.take_frame(tables, frame, now);
        let answer = self.count(taken)?;
        self.take_up_own(tables, now);
        Ok(answer.and_then(|answer| self.seal_frame(&answer)))
    }

    /// An exchange came to nothing: another one is held soon, with anybody.
    pub fn exchange_failed(&mut self, now: Duration) {
        let soon = now + AGAIN.mul_f64(self.rng.random_range(0.5..1.5));
        if soon < self.schedule.at {
            self.schedule = Schedule { at: soon, with: None };
        }
    }

    fn take_frame(
        &mut self,
        tables: &mut Tables,
        frame: &mut [u8],
        now: Duration,
    ) -> Result<Option<Frame>, Unreadable> {
        let (from, content) = self.keys.open(Way::Stream, frame)?;
        self.check_sender(&from)?;
        match Frame::read(content)? {
            Frame::Digest { members, ranks } => {
                let lacks = self.states_unlike(&members);
                self.learn(members, now);
                let (deltas, wants) = self.compare(tables, &ranks);
                Ok(Some(Frame::Answer { members: lacks, deltas, wants }))
            }
            Frame::Answer { members, deltas, wants } => {
                self.learn(members, now);
                self.take_deltas(tables, deltas, now);
                Ok(Some(Frame::Deltas(newer(tables, wants))))
            }
            Frame::Deltas(deltas) => {
                self.take_deltas(tables, deltas, now);
                Ok(None)
            }
            Frame::Wants(wants) => Ok(Some(Frame::Deltas(newer(tables, wants)))),
        }
    }

    /// What the other side lacks, and what this side lacks.
    fn compare(&self, tables: &mut Tables, theirs: &[(NodeId, u64, u64)]) -> (Vec<Delta>, Vec<(NodeId, u64)>) {
        let theirs: BTreeMap<&NodeId, (u64, u64)> =
            theirs.iter().map(|(o, version, digest)| (o, (*version, *digest))).collect();
        let mine = theirs.get(&self.own).filter(|theirs| **theirs != tables.rank(&self.own).unwrap_or_default());
        if let Some((version, _)) = mine {
            tables.outdo(*version);
        }
        let mut deltas = Vec::new();
        for (owner, rank) in tables.ranks().filter(|(owner, _)| self.admitted.contains_key(*owner)) {
            let known = theirs.get(owner).copied().unwrap_or_default();
            if rank > known {
                // Of two tables of one version, the whole better one is told.
                let from = if rank.0 == known.0 { 0 } else { known.0 };
                deltas.extend(tables.delta(owner, from));
            }
        }
        let lacks = |owner: &NodeId| tables.rank(owner).unwrap_or_default();
        let wanted = theirs.iter().filter(|(owner, theirs)| **owner != &self.own && **theirs > lacks(owner));
        let wants = wanted.map(|(owner, theirs)| {
            let known = lacks(owner).0;
            (Clone::clone(*owner), if known == theirs.0 { 0 } else { known })
        });
        (deltas, wants.collect())
    }

    fn take_deltas(&mut self, tables: &mut Tables, deltas: Vec<Delta>, now: Duration) {
        for delta in deltas {
            self.apply(tables, delta, Urgency::Late, now);
        }
    }

    /// What this node knows of the tables of members.
    fn ranks(&self, tables: &Tables) -> Vec<(NodeId, u64, u64)> {
        let members = tables.ranks().filter(|(owner, _)| self.admitted.contains_key(*owner));
        members.map(|(owner, (version, digest))| (owner.clone(), version, digest)).collect()
    }

    fn states(&mut self) -> Vec<Member<Identity>> {
        let Some(swim) = &mut self.swim else { return Vec::new() };
        let own = swim.own_state();
        swim.states().cloned().chain([own]).collect()
    }

    /// What this node knows of members otherwise than somebody else, or alone: seldom much.
    fn states_unlike(&mut self, theirs: &[Member<Identity>]) -> Vec<Member<Identity>> {
        let theirs: BTreeMap<_, _> = theirs.iter().map(|state| (state.id().addr, state)).collect();
        let mut states = self.states();
        states.retain(|state| theirs.get(&state.id().addr) != Some(&state));
        states
    }

    pub(super) fn learn(&mut self, states: Vec<Member<Identity>>, now: Duration) {
        let Some(swim) = &mut self.swim else { return };
        let admitted = &self.admitted;
        let states = states.into_iter().filter(|state| admitted.get(&state.id().node) == Some(&state.id().addr));
        let sends = swim.learn(states, now);
        self.send_swim(sends);
    }

    fn seal_frame(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        let nonce = self.rng.random();
        self.keys.seal(Way::Stream, &self.own, nonce, &frame.write())
    }
}

/// What is asked for, as far as it is newer here.
fn newer(tables: &Tables, wants: Vec<(NodeId, u64)>) -> Vec<Delta> {
    wants.into_iter().filter_map(|(owner, from)| tables.delta(&owner, from)).collect()
}
