//! Who answers: SWIM with suspicion (Das, Gupta, Motivala, 2002), by the `foca` crate, and around it what keeps a slow node from accusing its
//! peers, in the sense of Lifeguard (Dadgar, Phillips, Currey, 2018).
//!
//! - A node whose own timers are late was held up: that time does not count, for any of its timers.
//! - A ping is repeated until it is answered, and a node whose pings are often lost gives its peers more time ([`Swim::patience`]).
//! - A node that hears of nobody at all gives them more time still: it may be itself that is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{
    Codec, Config, Foca, Identity as _, Member, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use skep_model::NodeId;

use super::identity::{Identity, Peeked, WireCodec, peek};
use crate::wire;

/// From one probe to the next.
const PERIOD: Duration = Duration::from_millis(400);
/// How long an answer takes at the most on a good day; after that others are asked, and the ping is repeated.
const ROUND_TRIP: Duration = Duration::from_millis(130);
/// A timer that is so late says that this node was held up.
const HELD_UP: Duration = Duration::from_millis(250);
/// The highest score of bad health: so many periods more do peers get.
const WORST: u32 = 4;
/// How long a node that hears of nobody waits before it accuses anybody.
const CUT_OFF: Duration = Duration::from_secs(2);
/// Bytes of a message at the most: half a datagram, the other half is for news.
const LARGEST: usize = 560;
/// Bytes of a message that carries nothing, at the most (IPv4).
const BARE: usize = 80;
/// Members are accepted from others only when managers have admitted them.
pub(crate) type Admitted = BTreeMap<NodeId, SocketAddr>;

/// A probe under way.
struct Probe {
    target: Identity,
    number: u8,
    message: Vec<u8>,
    began: Duration,
    repeat_at: Duration,
    patience: Duration,
    answered: bool,
}

/// The failure detector of one node.
pub(crate) struct Swim {
    foca: Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>,
    timers: BTreeMap<(Duration, u64), Timer<Identity>>,
    numbered: u64,
    probe: Option<Probe>,
    /// 0 for a node in good health.
    score: u32,
    /// When anybody was heard of last.
    heard: Duration,
    /// Whether what is known of members may have changed.
    dirty: bool,
    /// What was known when it was asked for last.
    known: Option<u64>,
    /// Whether there were suspects then.
    suspecting: bool,
    risen: Vec<NodeId>,
}

/// What foca wants done, collected.
#[derive(Default)]
struct Wishes {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    risen: Vec<Identity>,
    changed: bool,
    /// This node suspects somebody.
    accuses: bool,
}

impl Runtime<Identity> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.changed = true;
        match notification {
            Notification::MemberUp(up) => self.risen.push(up.clone()),
            Notification::Rename(_, after) => self.risen.push(after.clone()),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.accuses |= matches!(event, Timer::ChangeSuspectToDown { .. });
        self.timers.push((after, event));
    }
}

/// A message of the failure detector, and for whom it is.
pub(crate) type Sends = Vec<(Identity, Vec<u8>)>;

impl Swim {
    pub(crate) fn new(own: Identity, rng: &mut StdRng, now: Duration) -> Self {
        Self {
            foca: Foca::new(own, config(1), StdRng::from_rng(rng), WireCodec),
            timers: BTreeMap::new(),
            numbered: 0,
            probe: None,
            score: 0,
            heard: now,
            dirty: true,
            known: None,
            suspecting: false,
            risen: Vec::new(),
        }
    }

    pub(crate) fn own(&self) -> &Identity {
        self.foca.identity()
    }

    /// Adapts to the size of the swarm, and forgets who is no member any more.
    pub(crate) fn set_members(&mut self, admitted: &Admitted, now: Duration) -> Sends {
        // Nothing in it that must not change while foca runs.
        let _ = self.foca.set_config(config(admitted.len()));
        let mut wishes = Wishes::default();
        let strangers = self.foca.iter_membership_state().map(|m| m.id().clone());
        let strangers: Vec<_> = strangers.filter(|id| admitted.get(&id.node) != Some(&id.addr)).collect();
        for stranger in strangers {
            let _ = self.foca.apply_many([Member::down(stranger.clone())].into_iter(), false, &mut wishes);
            let _ = self.foca.handle_timer(Timer::RemoveDown(stranger), &mut wishes);
        }
        // Who is admitted has a say in the answer too.
        (self.dirty, self.known) = (true, None);
        self.take(wishes, now)
    }

    /// Asks a member that is not known to be active whether it is there.
    pub(crate) fn greet(&mut self, node: NodeId, addr: SocketAddr, now: Duration) -> Sends {
        let mut wishes = Wishes::default();
        // An announcement counts whatever life the other is in.
        let _ = self.foca.announce(Identity { node, addr, incarnation: 0 }, &mut wishes);
        self.take(wishes, now)
    }

    /// Begins another life, above a former one that others remember.
    pub(crate) fn rise(&mut self, incarnation: u64, now: Duration) -> Sends {
        let mut wishes = Wishes::default();
        if incarnation > self.own().incarnation {
            let _ = self.foca.change_identity(Identity { incarnation, ..self.own().clone() }, &mut wishes);
            // What it knew of others was from below.
            self.probe = None;
        }
        self.take(wishes, now)
    }

    /// Says that this node leaves for good.
    pub(crate) fn leave(&mut self, now: Duration) -> Sends {
        let mut wishes = Wishes::default();
        let _ = self.foca.leave_cluster(&mut wishes);
        self.take(wishes, now)
    }

    /// Takes a message in. What cannot be read is dropped.
    pub(crate) fn receive(&mut self, from: &NodeId, message: &[u8], now: Duration) -> Sends {
        self.heard = now;
        if let (Peeked::Ack(number), Some(probe)) = (peek(message), &mut self.probe)
            && number == probe.number
            && !probe.answered
        {
            probe.answered = true;
            if *from == probe.target.node && now <= probe.began + ROUND_TRIP {
                self.score = self.score.saturating_sub(1);
            }
        }
        let mut wishes = Wishes::default();
        let _ = self.foca.handle_data(message, &mut wishes);
        // A message may carry what others suspect, and any word of a suspect refutes it.
        self.dirty |= self.suspecting || message.len() > BARE;
        self.take(wishes, now)
    }

    /// What this node knows of all members.
    pub(crate) fn states(&self) -> impl ExactSizeIterator<Item = &Member<Identity>> {
        self.foca.iter_membership_state()
    }

    /// What this node knows of whoever is at an address.
    pub(crate) fn state_of(&self, addr: SocketAddr) -> Option<&Member<Identity>> {
        self.states().find(|member| member.id().addr == addr)
    }

    /// Members that are suspected of having failed.
    pub(crate) fn suspected(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.states().filter(|member| member.state() == State::Suspect)
    }

    /// What this node says of itself: that it is alive, however often that was doubted.
    pub(crate) fn own_state(&mut self) -> Member<Identity> {
        // Only the head of a message tells.
        let (own, mut wishes) = (self.own().clone(), Wishes::default());
        let _ = self.foca.announce(own.clone(), &mut wishes);
        let head = wishes.sends.first().and_then(|(_, message)| WireCodec.decode_header(&message[..]).ok());
        Member::new(own, head.map_or(0, |head| head.src_incarnation), State::Alive)
    }

    /// Takes in what another node knows of all members.
    pub(crate) fn learn(&mut self, states: impl Iterator<Item = Member<Identity>>, now: Duration) -> Sends {
        let mut wishes = Wishes::default();
        let _ = self.foca.apply_many(states, false, &mut wishes);
        self.dirty = true;
        self.take(wishes, now)
    }

    /// Members that can be spoken to, and those of which no answer comes; `None` if nothing has changed since it was asked for last.
    pub(crate) fn news(&mut self) -> Option<(Vec<NodeId>, BTreeSet<NodeId>)> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let known = self.fingerprint();
        if self.known.replace(known) == Some(known) {
            return None;
        }
        let live = self.foca.iter_members().map(|member| member.id().node.clone()).collect();
        let suspects = self.foca.iter_membership_state().filter(|member| member.state() != State::Alive);
        let suspects: BTreeSet<_> = suspects.map(|member| member.id().node.clone()).collect();
        self.suspecting = !suspects.is_empty();
        Some((live, suspects))
    }

    /// A number for who is in which state: cheaper than the lists, which seldom differ from the last ones.
    fn fingerprint(&self) -> u64 {
        let one = |member: &Member<Identity>| {
            let Identity { node, addr, incarnation } = member.id();
            let ip = match addr.ip() {
                IpAddr::V4(ip) => u64::from(ip.to_bits()),
                IpAddr::V6(ip) => ip.to_bits() as u64,
            };
            let parts = [wire::head(node.as_str()), ip, addr.port().into(), *incarnation];
            // The state goes through all rounds: were it last, one member that recovers and another that is suspected would add up to nothing. The
            // multiplier of SplitMix64.
            parts.iter().fold(member.state() as u64, |mixed: u64, part| {
                ((mixed ^ part) ^ (mixed ^ part) >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29)
            })
        };
        self.foca.iter_membership_state().map(one).fold(0, u64::wrapping_add)
    }

    /// Those who have come up since it was asked for last.
    pub(crate) fn risen(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.risen)
    }

    /// When [`Self::poll`] is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        let repeat = self.probe.as_ref().filter(|probe| !probe.answered).map(|probe| probe.repeat_at);
        self.timers.keys().next().map(|(at, _)| *at).into_iter().chain(repeat).min()
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Duration) -> Sends {
        self.forgive(now);
        let mut sends = Vec::new();
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            match timer {
                Timer::ProbeRandomMember(_) if let Some(at) = self.more_time(now) => {
                    self.schedule(at, timer);
                    continue;
                }
                Timer::SendIndirectProbe { .. } if self.probe.as_ref().is_some_and(|probe| !probe.answered) => {
                    self.score = (self.score + 1).min(WORST);
                }
                Timer::ChangeSuspectToDown { .. } => self.dirty = true,
                _ => {}
            }
            let mut wishes = Wishes::default();
            let _ = self.foca.handle_timer(timer, &mut wishes);
            if wishes.accuses {
                // Not with the next round: the others still send it new flows.
                let _ = self.foca.gossip(&mut wishes);
            }
            sends.extend(self.take(wishes, now));
        }
        if let Some(probe) = self.probe.as_mut().filter(|probe| !probe.answered && probe.repeat_at <= now) {
            probe.repeat_at = now + ROUND_TRIP;
            sends.push((probe.target.clone(), probe.message.clone()));
        }
        sends
    }

    /// Time in which this node was held up has not passed.
    fn forgive(&mut self, now: Duration) {
        let Some(late) = self.due().map(|due| now.saturating_sub(due)).filter(|late| *late > HELD_UP) else { return };
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().map(|((at, number), timer)| ((at + late, number), timer)).collect();
        self.heard += late;
        if let Some(probe) = &mut self.probe {
            probe.began += late;
            probe.repeat_at += late;
        }
        self.score = (self.score + 1).min(WORST);
    }

    /// Until when the member that is being probed may still answer; `None` once its time is over, or it has answered.
    fn more_time(&self, now: Duration) -> Option<Duration> {
        let probe = self.probe.as_ref().filter(|probe| !probe.answered)?;
        let cut_off = self.heard <= probe.began && self.foca.num_members() > 1;
        let patience = if cut_off { probe.patience.max(CUT_OFF) } else { probe.patience };
        let until = probe.began + patience;
        // Not all at once: what is heard meanwhile may change the answer.
        (now < until).then(|| until.min(now + PERIOD))
    }

    /// How long a member may take to answer, by this node's own health.
    fn patience(&self) -> Duration {
        PERIOD * (1 + self.score)
    }

    fn take(&mut self, wishes: Wishes, now: Duration) -> Sends {
        for (after, timer) in wishes.timers {
            self.schedule(now + after, timer);
        }
        self.dirty |= wishes.changed || wishes.accuses;
        self.risen.extend(wishes.risen.into_iter().map(|id| id.node));
        for (to, message) in &wishes.sends {
            if let Peeked::Ping(number) = peek(message) {
                self.probe = Some(Probe {
                    target: to.clone(),
                    number,
                    message: message.clone(),
                    began: now,
                    repeat_at: now + ROUND_TRIP,
                    patience: self.patience(),
                    answered: false,
                });
            }
        }
        wishes.sends
    }

    fn schedule(&mut self, at: Duration, timer: Timer<Identity>) {
        self.numbered += 1;
        self.timers.insert((at, self.numbered), timer);
    }
}

/// Whether what is known of a member outdoes what somebody else holds of whoever is at its address.
pub(crate) fn outdoes(known: &Member<Identity>, held: &Member<Identity>) -> bool {
    if known.id() != held.id() {
        return known.id().win_addr_conflict(held.id());
    }
    held.state() != State::Down && (known.state() == State::Down || known.incarnation() > held.incarnation())
}

/// How a swarm of `members` is watched.
fn config(members: usize) -> Config {
    // News reach everybody when each node passes them on that often; a suspicion must reach its member, and the answer everybody.
    let decades = (members.max(1) as f64 + 1.0).log10();
    let transmissions = NonZeroU8::new((4.0 * decades).ceil() as u8).unwrap_or(NonZeroU8::MIN);
    let every = |millis, members| {
        let num_members = NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN);
        Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members })
    };
    Config {
        probe_period: PERIOD,
        probe_rtt: ROUND_TRIP,
        num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
        max_transmissions: transmissions,
        suspect_to_down_after: Duration::from_secs(3) + Duration::from_secs_f64(decades),
        remove_down_after: Some(Duration::from_secs(24 * 3600)),
        max_packet_size: NonZeroUsize::MIN.saturating_add(LARGEST - 1),
        notify_down_members: true,
        periodic_announce: every(10_000, 1),
        // Who is down is greeted by us: only those that managers have admitted, and soon.
        periodic_announce_to_down_members: None,
        periodic_gossip: every(100, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swim() -> (Swim, [Identity; 3]) {
        let node = |last: u8| Identity {
            node: NodeId::random(),
            addr: SocketAddr::new([10, 0, 0, last].into(), 7946),
            incarnation: 1_790_000_000_000,
        };
        let nodes = [1, 2, 3].map(node);
        (Swim::new(nodes[0].clone(), &mut StdRng::seed_from_u64(1), Duration::ZERO), nodes)
    }

    #[test]
    fn one_that_recovers_while_another_is_suspected_is_news() {
        for _ in 0..100 {
            let (mut swim, [_, one, other]) = swim();
            let mut seen = |members: [Member<Identity>; 2]| {
                swim.learn(members.into_iter(), Duration::ZERO);
                swim.news().expect("something has changed").1
            };
            let suspect = |id: &Identity| Member::new(id.clone(), 0, State::Suspect);
            assert_eq!(seen([suspect(&one), Member::alive(other.clone())]), [one.node.clone()].into());
            assert_eq!(seen([Member::new(one.clone(), 1, State::Alive), suspect(&other)]), [other.node.clone()].into());
        }
    }

    #[test]
    fn who_was_doubted_says_so_of_itself() {
        let (mut swim, [own, ..]) = swim();
        assert_eq!(swim.own_state(), Member::alive(own.clone()));
        swim.learn([Member::new(own.clone(), 4, State::Suspect)].into_iter(), Duration::ZERO);
        let now = swim.own_state();
        assert_eq!((now.incarnation(), now.state()), (5, State::Alive));
        assert!(outdoes(&now, &Member::new(own, 4, State::Suspect)));
    }
}
