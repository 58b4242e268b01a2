//! Taking datagrams in, and asking for what is missing.

use std::time::Duration;

use skep_model::NodeId;

use super::Gossip;
use super::message::{self, Change, NewsWriter, Part};
use super::rounds::ROOM;
use super::rumours::{self, Urgency};
use super::shorts::Short;
use crate::seal::Way;
use crate::wire::{Reader, Writer};
use crate::{Delta, Merged, Tables, Unreadable};

/// How long an answer is waited for before somebody is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(120);
/// So many questions without an answer lead to an exchange.
const QUESTIONS: u32 = 8;
/// How many are asked again at a time: either question or either answer may be lost.
const ASKED: usize = 2;

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
            Part::News(news) => {
                for change in &news.changes {
                    self.take_change(tables, heard, change)?;
                }
                for (short, version) in news.mentions {
                    if let Some(owner) = self.lacking(tables, short, version) {
                        self.ask(tables, heard, owner, version);
                    }
                }
            }
            Part::Want(short, known) => {
                if let Some(owner) = self.shorts.node(short).cloned() {
                    self.answer_want(tables, heard, &owner, known);
                }
            }
            Part::TooLarge(short) => {
                if let Some(owner) = self.shorts.node(short).cloned() {
                    self.fetch(heard.from, owner, 0, heard.now);
                }
            }
            Part::Doubt(member) => {
                self.take_doubt(member, &mut heard.reply, heard.now);
                self.send_if_full(heard);
            }
            Part::Seen(member) => self.learn(vec![member], heard.now),
        }
        Ok(())
    }

    fn take_change(
        &mut self,
        tables: &mut Tables,
        heard: &mut Heard<'_>,
        change: &Change<'_>,
    ) -> Result<(), Unreadable> {
        if let Some(owner) = self.lacking(tables, change.owner, change.to) {
            let delta = change.delta(owner.clone())?;
            if self.apply(tables, delta, Urgency::Hot, heard.now) == Merged::Gap {
                self.ask(tables, heard, owner, change.to);
            }
        }
        Ok(())
    }

    /// Whose table it is, if another one's that is not known here at that version.
    fn lacking(&mut self, tables: &mut Tables, short: Short, version: u64) -> Option<NodeId> {
        let known = self.shorts.get_mut(short)?;
        if known.version >= version {
            // Most of what comes is no news, and this is the quick way to know.
            return None;
        }
        if known.node == self.own {
            // Two lives of this node may have counted differently.
            if version > tables.own().version {
                tables.outdo(version);
            }
            return None;
        }
        known.version = tables.rank(&known.node).map_or(0, |(version, _)| version);
        (known.version < version).then(|| known.node.clone())
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

    /// Questions that were not answered are asked anew, of any two: most know by now. In the end it is a matter for an exchange.
    pub(super) fn ask_again(&mut self, tables: &Tables, now: Duration) {
        if self.questions.values().all(|question| question.again > now) {
            return;
        }
        let (mut content, mut lost) = (Writer::default(), Vec::new());
        let whom = self.choose(ASKED);
        for (owner, question) in &mut self.questions {
            // Those that are due soon come along.
            if question.again > now + ASK_AGAIN / 4 {
                continue;
            }
            if question.times >= QUESTIONS {
                lost.push((question.teller.clone(), owner.clone(), question.version));
                continue;
            }
            if content.len() + message::WANT_LEN > ROOM {
                // The others are asked for at once, of another two.
                break;
            }
            (question.again, question.times) = (now + ASK_AGAIN, question.times + 1);
            write_want(tables, owner, &mut content);
        }
        if content.len() > 0 {
            self.send_all(&whom, &content.into_bytes());
        }
        for (teller, owner, version) in lost {
            self.fetch(&teller, owner, version, now);
        }
    }

    fn answer_want(&mut self, tables: &Tables, heard: &mut Heard<'_>, owner: &NodeId, known: u64) {
        if tables.rank(owner).is_none_or(|(version, _)| version <= known) {
            return;
        }
        let Some(delta) = tables.delta(owner, known) else { return };
        let content = message::content(&delta);
        if content.len() > rumours::LARGEST {
            message::too_large(&mut heard.reply, Short::of(owner));
        } else {
            let change = Change { owner: Short::of(owner), from: delta.from, to: delta.to, content: &content };
            let mut news = NewsWriter::new(delta.to);
            news.change(&change, usize::MAX);
            if heard.reply.len() + news.len() > ROOM {
                let full = std::mem::take(&mut heard.reply).into_bytes();
                self.send_to(heard.from, &full);
            }
            news.finish(&mut heard.reply);
        }
        self.send_if_full(heard);
    }

    fn send_if_full(&mut self, heard: &mut Heard<'_>) {
        // The longest question, notice or state still fits.
        if heard.reply.len() > ROOM - 64 {
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
    message::want(content, Short::of(owner), known);
}
