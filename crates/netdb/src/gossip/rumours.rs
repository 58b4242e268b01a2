//! What is on its way round: each piece of news is sent whole to a few, and to some more it is only said that there is news, so that whoever
//! has missed it can ask. Pushing alone would need three times as many bytes to reach the last of a thousand through heavy loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::NodeId;

use super::message;
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
    /// The last round that it was part of.
    round: u64,
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
    queue: BTreeMap<NodeId, Rumour>,
    round: u64,
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
    pub(crate) fn start(&self, owner: &NodeId, from: u64) -> u64 {
        let waiting = self.queue.get(owner).filter(|rumour| rumour.whole > 0);
        waiting.map_or(from, |rumour| rumour.from.min(from))
    }

    /// Takes up news, in place of older news of the same owner.
    pub(crate) fn add(&mut self, owner: &NodeId, from: u64, version: u64, body: Vec<u8>, urgency: Urgency) {
        let fits = body.len() <= LARGEST && urgency != Urgency::Late;
        let rumour = Rumour {
            from,
            version,
            body: fits.then(|| body.into()),
            whole: if fits { WHOLE } else { 0 },
            mention: self.mentions,
            own: urgency == Urgency::Own,
            round: 0,
        };
        self.queue.insert(owner.clone(), rumour);
    }

    /// Begins a round: everything may be sent once in it.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Adds to a datagram what fits into `room` bytes and has not been sent in this round, to be sent to that many `recipients`. Whether it added
    /// anything.
    pub(crate) fn fill(&mut self, datagram: &mut Writer, room: usize, recipients: u32) -> bool {
        let limit = datagram.len() + room;
        let round = self.round;
        let mut order: Vec<_> = self.queue.iter_mut().filter(|(_, rumour)| rumour.round != round).collect();
        order.sort_by_key(|(_, rumour)| (!rumour.own, u32::MAX - rumour.whole, u32::MAX - rumour.mention));
        let mut mentioned = Vec::new();
        let mut left = limit.saturating_sub(datagram.len());
        for (owner, rumour) in order {
            if let (Some(body), true) = (&rumour.body, rumour.whole > 0) {
                if body.len() <= left {
                    datagram.bytes(body);
                    left -= body.len();
                    rumour.whole = rumour.whole.saturating_sub(recipients);
                    rumour.round = round;
                }
            } else if left >= message::MENTION_HEAD + message::MENTION {
                if mentioned.is_empty() {
                    left -= message::MENTION_HEAD;
                }
                left -= message::MENTION;
                mentioned.push((message::short(owner), rumour.version));
                rumour.mention = rumour.mention.saturating_sub(recipients);
                rumour.round = round;
            }
        }
        if !mentioned.is_empty() {
            message::mentions(datagram, &mentioned);
        }
        self.queue.retain(|_, rumour| rumour.whole > 0 || rumour.mention > 0);
        left < room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_news_go_first_and_everything_ends() {
        let mut rumours = Rumours::default();
        rumours.set_members(3);
        let (own, other) = (NodeId::random(), NodeId::random());
        rumours.add(&other, 1, 2, vec![2; 100], Urgency::Hot);
        rumours.add(&own, 1, 2, vec![1; 100], Urgency::Own);
        let mut sent = Vec::new();
        while !rumours.is_empty() {
            rumours.begin_round();
            let mut datagram = Writer::default();
            assert!(rumours.fill(&mut datagram, 150, 1));
            assert!(!rumours.fill(&mut datagram, 10, 1), "what does not fit waits");
            sent.push(datagram.into_bytes());
        }
        assert!(sent[..4].iter().all(|datagram| datagram[0] == 1));
        assert_eq!(sent.iter().filter(|datagram| datagram[0] == 2).count(), 4);
    }
}
