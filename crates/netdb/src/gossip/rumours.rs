//! What is on its way round: each piece of news is sent whole to a few, and to some more it is only said that there is news, so that whoever
//! has missed it can ask. Pushing alone would need three times as many bytes to reach the last of a thousand through heavy loss.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::{Change, NewsWriter};
use super::shorts::Short;
use crate::wire::Writer;

/// To how many a node sends a change whole.
const WHOLE: u32 = 4;
/// Changes that take more bytes than this are only mentioned; who wants them comes by TCP.
pub(crate) const LARGEST: usize = 1000;

/// How the news of one table go round.
#[derive(Debug)]
struct Rumour {
    /// The version that the change starts from.
    from: u64,
    version: u64,
    /// The change, written down; `None` when it is too large.
    body: Option<Arc<[u8]>>,
    /// To how many it is still sent whole.
    whole: u32,
    /// To how many it is still mentioned.
    mention: u32,
    own: bool,
}

/// How urgent a piece of news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A change of this node's own.
    Own,
    /// Heard of just now.
    Hot,
    /// Caught up with: most have it already.
    Late,
}

/// The news that this node passes on: at most one piece for each owner.
#[derive(Debug, Default)]
pub(crate) struct Rumours {
    queue: BTreeMap<Short, Rumour>,
    /// What has not been sent in this round, the most urgent first.
    order: Vec<Short>,
    mentions: u32,
}

impl Rumours {
    /// Adapts to the size of the swarm.
    pub(crate) fn set_members(&mut self, members: usize) {
        let decades = (members as f64 + 1.0).log10();
        self.mentions = ((6.0 * decades).ceil() as u32).max(4);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// From which version a change of `owner` should start that was heard of with one that starts from `from`: what is still on its way is told
    /// along.
    pub(crate) fn start(&self, owner: Short, from: u64) -> u64 {
        let waiting = self.queue.get(&owner).filter(|rumour| rumour.whole > 0);
        waiting.map_or(from, |rumour| rumour.from.min(from))
    }

    /// Takes up news, in place of older news of the same owner.
    pub(crate) fn add(&mut self, owner: Short, from: u64, version: u64, body: Vec<u8>, urgency: Urgency) {
        let fits = body.len() <= LARGEST && urgency != Urgency::Late;
        let rumour = Rumour {
            from,
            version,
            body: fits.then(|| body.into()),
            whole: if fits { WHOLE } else { 0 },
            mention: self.mentions,
            own: urgency == Urgency::Own,
        };
        self.queue.insert(owner, rumour);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.order.clear();
    }

    /// Begins a round: everything may be sent once in it.
    pub(crate) fn begin_round(&mut self) {
        let urgency = |(owner, rumour): (&Short, &Rumour)| {
            ((!rumour.own, Reverse(rumour.whole), Reverse(rumour.mention)), *owner)
        };
        let mut order: Vec<_> = self.queue.iter().map(urgency).collect();
        order.sort_unstable();
        self.order.clear();
        self.order.extend(order.into_iter().map(|(_, owner)| owner));
    }

    /// Adds to a datagram what fits into `room` bytes and has not been sent in this round, to be sent to that many `recipients`. Whether it added
    /// anything.
    pub(crate) fn fill(&mut self, datagram: &mut Writer, room: usize, recipients: u32) -> bool {
        let Some(first) = self.order.first().and_then(|owner| self.queue.get(owner)) else { return false };
        let mut news = NewsWriter::new(first.version);
        let order = std::mem::take(&mut self.order);
        for owner in order {
            let Some(rumour) = self.queue.get_mut(&owner) else { continue };
            let left = room.saturating_sub(news.len());
            let sent = match &rumour.body {
                Some(body) if rumour.whole > 0 => {
                    let change = Change { owner, from: rumour.from, to: rumour.version, content: body };
                    news.change(&change, left).then(|| rumour.whole = rumour.whole.saturating_sub(recipients))
                }
                _ => {
                    let sent = news.mention(owner, rumour.version, left);
                    sent.then(|| rumour.mention = rumour.mention.saturating_sub(recipients))
                }
            };
            if sent.is_none() {
                self.order.push(owner);
            } else if rumour.whole == 0 && rumour.mention == 0 {
                self.queue.remove(&owner);
            }
        }
        let added = !news.is_empty();
        if added {
            news.finish(datagram);
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use skep_model::NodeId;

    use super::*;

    #[test]
    fn own_news_go_first_and_everything_ends() {
        let mut rumours = Rumours::default();
        rumours.set_members(3);
        let [own, other] = [(); 2].map(|()| Short::of(&NodeId::random()));
        rumours.add(other, 1, 2, vec![2; 100], Urgency::Hot);
        rumours.add(own, 1, 2, vec![1; 100], Urgency::Own);
        let mut sent = Vec::new();
        while !rumours.is_empty() {
            rumours.begin_round();
            let mut datagram = Writer::default();
            assert!(rumours.fill(&mut datagram, 150, 1));
            assert!(!rumours.fill(&mut datagram, 10, 1), "what does not fit waits");
            sent.push(datagram.into_bytes());
        }
        let has = |datagram: &Vec<u8>, content: u8| datagram.windows(100).any(|bytes| bytes == [content; 100]);
        assert!(sent[..4].iter().all(|datagram| has(datagram, 1)));
        assert_eq!(sent.iter().filter(|datagram| has(datagram, 2)).count(), 4);
    }
}
