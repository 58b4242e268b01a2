//! Whoever doubts a member asks: the member itself, which may not have been told that it is doubted, and others, who may have heard it refute
//! that, or fail to. Rumours of it reach almost everybody; without a question whoever was missed would doubt for seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Member;
use rand::RngExt;
use skep_model::NodeId;

use super::Gossip;
use super::identity::Identity;
use super::message;
use super::rounds::ROOM;
use super::swim::{Admitted, outdoes};
use crate::wire::Writer;

/// How long rumours are waited for, for each power of ten of members.
const RUMOUR: Duration = Duration::from_millis(150);
/// By how many a member is told at a time that they doubt it.
const TOLD: f64 = 32.0;
/// How many others are asked.
const ASKED: usize = 2;

/// Who is doubted, and when this node asks next.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<NodeId, Duration>);

impl Doubts {
    pub(super) fn due(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }
}

impl Gossip {
    /// Takes note of who is doubted now.
    pub(super) fn note_doubts(&mut self, now: Duration) {
        let Some(swim) = &self.swim else { return };
        let suspected = swim.suspected().filter(|member| is_admitted(&self.admitted, member));
        let suspected: Vec<_> = suspected.map(|member| member.id().node.clone()).collect();
        let known = std::mem::take(&mut self.doubts.0);
        for node in suspected {
            let at = known.get(&node).copied().unwrap_or_else(|| now + self.pause());
            self.doubts.0.insert(node, at);
        }
    }

    /// Asks about those whose time has come.
    pub(super) fn doubt_if_due(&mut self, now: Duration) {
        if self.doubts.due().is_none_or(|due| due > now) {
            return;
        }
        let again = now + self.pause();
        // Those that are due soon come along.
        let soon = now + RUMOUR / 2;
        let due: Vec<_> = self.doubts.0.iter().filter(|(_, at)| **at <= soon).map(|(node, _)| node.clone()).collect();
        for node in &due {
            self.doubts.0.insert(node.clone(), again);
        }
        // A thousand who ask one that is well would be too many: those who were told by it answer the rest.
        let share = (TOLD / self.others.len() as f64).min(1.0);
        let told: Vec<_> = due.iter().filter(|_| self.rng.random_bool(share)).cloned().collect();
        self.tell_doubted(&told);
        self.ask_others(&due);
    }

    /// Tells these members how they are seen here. Nothing is said to those that are not known at all.
    pub(super) fn tell_doubted(&mut self, nodes: &[NodeId]) {
        for (node, content) in self.doubts_of(nodes) {
            self.send_to(&node, &content);
        }
    }

    /// Tells a few how these members are seen here: whoever knows better answers.
    pub(super) fn ask_others(&mut self, nodes: &[NodeId]) {
        let mut all = Writer::default();
        for (_, content) in self.doubts_of(nodes) {
            // Those that there is no room for are asked about next time.
            if all.len() + content.len() <= ROOM {
                all.bytes(&content);
            }
        }
        if all.len() > 0 {
            let others = self.choose(ASKED);
            self.send_all(&others, &all.into_bytes());
        }
    }

    fn doubts_of(&self, nodes: &[NodeId]) -> Vec<(NodeId, Vec<u8>)> {
        let Some(swim) = &self.swim else { return Vec::new() };
        let known = |node: &NodeId| swim.state_of(*self.admitted.get(node)?).filter(|known| known.id().node == *node);
        let doubts = nodes.iter().filter_map(known).map(|member| {
            let mut content = Writer::default();
            message::doubt(&mut content, member);
            (member.id().node.clone(), content.into_bytes())
        });
        doubts.collect()
    }

    /// Somebody sees a member like that: says what is known better here.
    pub(super) fn take_doubt(&mut self, doubted: Member<Identity>, reply: &mut Writer, now: Duration) {
        let Some(swim) = self.swim.as_mut().filter(|_| is_admitted(&self.admitted, &doubted)) else { return };
        if doubted.id().addr != swim.own().addr {
            let known = swim.state_of(doubted.id().addr).filter(|known| outdoes(known, &doubted));
            known.into_iter().for_each(|known| message::seen(reply, known));
            return;
        }
        // What is said of a former life needs no refuting.
        let refuted = Some(doubted).filter(|doubted| doubted.id() == swim.own());
        let sends = swim.learn(refuted.into_iter(), now);
        message::seen(reply, &swim.own_state());
        self.send_swim(sends);
    }

    fn pause(&mut self) -> Duration {
        let decades = (self.admitted.len() as f64 + 1.0).log10().max(1.0);
        RUMOUR.mul_f64(decades * self.rng.random_range(0.75..1.25))
    }
}

fn is_admitted(admitted: &Admitted, member: &Member<Identity>) -> bool {
    admitted.get(&member.id().node) == Some(&member.id().addr)
}
