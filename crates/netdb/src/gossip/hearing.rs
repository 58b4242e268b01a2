//! Taking datagrams in, and asking for what is missing.

use std::time::Duration;

use skep_model::NodeId;

use super::Gossip;
use super::message::{self, Part};
use super::rounds::ROOM;
use super::rumours::{self, Urgency};
use crate::seal::Way;
use crate::wire::{Reader, Writer};
use crate::{Delta, Merged, Tables, Unreadable};

/// How long an answer is waited for before somebody is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(120);
/// So many questions without an answer lead to an exchange.
const QUESTIONS: u32 = 6;

/// What is known to be missing here.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The version that there is.
    pub(super) version: u64,
    /// Who has told of it last.
    pub(super) teller: NodeId,
    /// When it is asked for again.
    pub(super) again: Duration,
    pub(super) times: u32,
}

/// With whom this node is speaking.
struct Heard<'a> {
    from: &'a NodeId,
    now: Duration,
    /// What goes back.
    reply: Writer,
}

impl Gossip {
    pub(super) fn receive_inner(
        &mut self,
        tables: &mut Tables,
        datagram: &mut [u8],
        now: Duration,
    ) -> Result<(), Unreadable> {
        let (from, content) = self.keys.open(Way::Datagram, datagram)?;
        self.check_sender(&from)?;
        let mut reader = Reader::new(content);
        let mut heard = Heard { from: &from, now, reply: Writer::default() };
        while !reader.is_empty() {
            let part = Part::read(&mut reader)?;
            self.take_part(tables, &mut heard, part)?;
        }
        if heard.reply.len() > 0 {
            self.send_to(&from, &heard.reply.into_bytes());
        }
        Ok(())
    }

    pub(super) fn check_sender(&self, from: &NodeId) -> Result<(), Unreadable> {
        let admitted = *from != self.own && self.admitted.contains_key(from);
        if admitted { Ok(()) } else { Err(Unreadable::Stranger) }
    }

    fn take_part(&mut self, tables: &mut Tables, heard: &mut Heard<'_>, part: Part<'_>) -> Result<(), Unreadable> {
        match part {
            Part::Swim(message) => {
                if let Some(swim) = &mut self.swim {
                    let sends = swim.receive(heard.from, message, heard.now);
                    self.send_swim(sends);
                }
            }
            Part::Delta(delta) => {
                let (owner, version) = message::delta_head(delta)?;
                let known = owner != self.own && tables.rank(&owner).is_some_and(|(known, _)| known >= version);
                if !known && self.apply(tables, Reader::new(delta).delta()?, Urgency::Hot, heard.now) == Merged::Gap {
                    self.ask(tables, heard, owner, version);
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
                        self.ask(tables, heard, owner, version);
                    }
                }
            }
            Part::Want(owner, known) => self.answer_want(tables, heard, &owner, known),
            Part::TooLarge(owner) => self.fetch(heard.from, owner, 0, heard.now),
        }
        Ok(())
    }

    /// Asks who told of it for what is missing, unless somebody has just been asked.
    fn ask(&mut self, tables: &Tables, heard: &mut Heard<'_>, owner: NodeId, version: u64) {
        let teller = heard.from.clone();
        if let Some(question) = self.questions.get_mut(&owner) {
            if question.version < version {
                (question.version, question.teller) = (version, teller);
            }
            return;
        }
        write_want(tables, &owner, &mut heard.reply);
        self.questions.insert(owner, Question { version, teller, again: heard.now + ASK_AGAIN, times: 1 });
        self.send_if_full(heard);
    }

    /// Questions that were not answered are asked anew, of anybody: most know by now. In the end it is a matter for an exchange.
    pub(super) fn ask_again(&mut self, tables: &Tables, now: Duration) {
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
            write_want(tables, &owner, &mut content);
            self.send_to(&whom, &content.into_bytes());
            self.questions.insert(owner, Question { again: now + ASK_AGAIN, times: question.times + 1, ..question });
        }
    }

    fn answer_want(&mut self, tables: &Tables, heard: &mut Heard<'_>, owner: &NodeId, known: u64) {
        if tables.rank(owner).is_none_or(|(version, _)| version <= known) {
            return;
        }
        let Some(delta) = tables.delta(owner, known) else { return };
        let body = message::delta(&delta);
        if body.len() > rumours::LARGEST {
            message::too_large(&mut heard.reply, owner);
        } else {
            if heard.reply.len() + body.len() > ROOM {
                let full = std::mem::take(&mut heard.reply).into_bytes();
                self.send_to(heard.from, &full);
            }
            heard.reply.bytes(&body);
        }
        self.send_if_full(heard);
    }

    fn send_if_full(&mut self, heard: &mut Heard<'_>) {
        // The longest question or notice still fits.
        if heard.reply.len() > ROOM - 32 {
            let full = std::mem::take(&mut heard.reply).into_bytes();
            self.send_to(heard.from, &full);
        }
    }

    /// Takes in a change of somebody's table, and passes it on when it is news.
    pub(super) fn apply(&mut self, tables: &mut Tables, delta: Delta, urgency: Urgency, now: Duration) -> Merged {
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
}

fn write_want(tables: &Tables, owner: &NodeId, content: &mut Writer) {
    let known = tables.rank(owner).map_or(0, |(version, _)| version);
    message::want(content, owner, known);
}
