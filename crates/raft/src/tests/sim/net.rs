//! A network that delays, loses, repeats and is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use crate::network::{Link, Transport, Unanswered};
use crate::service::{Answers, Refused};

/// The network of a world. Clones are the same.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    rng: StdRng,
    /// Who answers, and which life of his that is.
    members: BTreeMap<u64, (u64, Answers)>,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(u64, u64)>,
    /// How long a message takes one way, in microseconds.
    delay: Range<u64>,
    /// How many of a thousand messages are lost, and how many come again later.
    lost: u32,
    repeated: u32,
    /// How long a snapshot takes, besides.
    snapshot: Duration,
}

impl Net {
    pub(super) fn new(rng: StdRng) -> Self {
        let (members, cut) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(State {
            rng,
            members,
            cut,
            delay: 100..2000,
            lost: 0,
            repeated: 5,
            snapshot: Duration::ZERO,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member answers from now on, in this life of his.
    pub(super) fn join(&self, member: u64, life: u64, answers: Answers) {
        self.state().members.insert(member, (life, answers));
    }

    pub(super) fn leave(&self, member: u64) {
        self.state().members.remove(&member);
    }

    pub(super) fn cut(&self, from: u64, to: u64) {
        self.state().cut.insert((from, to));
    }

    /// Nothing is cut any more.
    pub(super) fn mend(&self) {
        self.state().cut.clear();
    }

    /// How long messages take, in microseconds, and how many of a thousand are lost.
    pub(super) fn set_quality(&self, delay: Range<u64>, lost: u32) {
        let mut state = self.state();
        (state.delay, state.lost) = (delay, lost);
    }

    /// From now on a snapshot takes so long.
    pub(super) fn slow_snapshots(&self, snapshot: Duration) {
        self.state().snapshot = snapshot;
    }

    /// One way: how long the message takes, or `None` when it is lost.
    fn passage(&self, from: u64, to: u64) -> Option<Duration> {
        let mut state = self.state();
        let lost = state.lost;
        if state.cut.contains(&(from, to)) || state.rng.random_ratio(lost, 1000) {
            return None;
        }
        let delay = state.delay.clone();
        Some(Duration::from_micros(state.rng.random_range(delay)))
    }

    /// How much later the message comes a second time, if it does.
    fn echo(&self) -> Option<Duration> {
        let mut state = self.state();
        let repeated = state.repeated;
        state.rng.random_ratio(repeated, 1000).then(|| Duration::from_millis(state.rng.random_range(1..3000)))
    }

    fn member(&self, id: u64) -> Option<(u64, Answers)> {
        self.state().members.get(&id).cloned()
    }

    fn lives(&self, id: u64, life: u64) -> bool {
        self.state().members.get(&id).is_some_and(|(now, _)| *now == life)
    }
}

/// The network as one life of one member uses it.
pub(super) struct Wire {
    pub(super) net: Net,
    pub(super) own: u64,
    pub(super) life: u64,
}

impl Transport for Wire {
    type Link = SimLink;

    fn link(&self, target: u64, _: &str) -> SimLink {
        SimLink { net: self.net.clone(), own: self.own, life: self.life, target }
    }
}

#[derive(Clone)]
pub(super) struct SimLink {
    net: Net,
    own: u64,
    life: u64,
    target: u64,
}

/// A message.
#[derive(Clone)]
enum Message {
    Append(Bytes),
    Vote(Bytes),
    Snapshot(Bytes, Bytes),
}

impl Message {
    async fn handle(self, answers: Answers, to: u64) -> Result<Bytes, Refused> {
        match self {
            Self::Append(payload) => answers.append_entries(to, &payload).await,
            Self::Vote(payload) => answers.vote(to, &payload).await,
            Self::Snapshot(header, file) => answers.install_snapshot(to, &header, file).await,
        }
    }
}

fn late() -> Unanswered {
    Unanswered::Late("no answer".to_owned())
}

/// What is lost breaks the connection, which is noticed as late as a real one notices it.
async fn broken() -> Result<Bytes, Unanswered> {
    tokio::time::sleep(Duration::from_secs(4)).await;
    Err(late())
}

impl SimLink {
    async fn call(&self, message: Message, within: Duration) -> Result<Bytes, Unanswered> {
        tokio::time::timeout(within, self.exchange(message)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, message: Message) -> Result<Bytes, Unanswered> {
        // A member of a life that is over sends nothing more.
        if !self.net.lives(self.own, self.life) {
            return broken().await;
        }
        let Some(there) = self.net.passage(self.own, self.target) else { return broken().await };
        let size = if matches!(message, Message::Snapshot(..)) { self.net.state().snapshot } else { Duration::ZERO };
        tokio::time::sleep(there + size).await;
        let Some((life, answers)) = self.net.member(self.target) else {
            return Err(Unanswered::Away("nobody listens".to_owned()));
        };
        if let Some(later) = self.net.echo() {
            tokio::spawn(self.clone().again(message.clone(), life, later));
        }
        // It is handled also when the caller has no more patience.
        let handling = tokio::spawn(message.handle(answers, self.target));
        let answer = handling.await.map_err(|why| Unanswered::Away(why.to_string()))?;
        let Some(back) = self.net.passage(self.target, self.own) else { return broken().await };
        tokio::time::sleep(back).await;
        if !self.net.lives(self.target, life) || !self.net.lives(self.own, self.life) {
            return broken().await;
        }
        answer.map_err(|why| Unanswered::Away(why.to_string()))
    }

    async fn again(self, message: Message, life: u64, later: Duration) {
        tokio::time::sleep(later).await;
        if let Some((now, answers)) = self.net.member(self.target)
            && now == life
        {
            drop(message.handle(answers, self.target).await);
        }
    }
}

impl Link for SimLink {
    async fn append_entries(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        self.call(Message::Append(payload), within).await
    }

    async fn vote(&mut self, payload: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        self.call(Message::Vote(payload), within).await
    }

    async fn install_snapshot(&mut self, header: Bytes, file: Bytes, within: Duration) -> Result<Bytes, Unanswered> {
        self.call(Message::Snapshot(header, file), within).await
    }
}
