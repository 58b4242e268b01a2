//! Clients that write and read registers, and note what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use skep_model::{Node, NodeId, Version};
use skep_store::{Log, Proposal, ProposeError, Tables};
use tokio::task::JoinSet;

use super::world::{Alive, Roster, World};
use crate::tests::rig;

const CLIENTS: u64 = 4;
const REGISTERS: usize = 3;

/// What a client did, and when it began and ended by a counter that they share.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) register: NodeId,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// Each value is written once in a story.
    Write { value: String, base: Option<Version>, outcome: Result<Version, ProposeError> },
    /// `at` is the version of the tables that were read.
    Read { value: Option<String>, at: Version },
}

/// The clients of a world.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    working: JoinSet<Vec<Deed>>,
}

impl Clients {
    /// All that they did.
    pub(super) async fn stop(mut self) -> Vec<Deed> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(deeds) = self.working.join_next().await {
            all.extend(deeds.unwrap());
        }
        all
    }
}

pub(super) fn start(world: &World, mut rng: StdRng) -> Clients {
    let registers: Arc<[NodeId]> = (0..REGISTERS).map(|_| NodeId::random()).collect();
    let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut working = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client {
            number,
            rng: StdRng::seed_from_u64(rng.random()),
            roster: world.roster.clone(),
            registers: registers.clone(),
            clock: clock.clone(),
            written: 0,
        };
        working.spawn(client.work(stop.clone()));
    }
    Clients { stop, working }
}

struct Client {
    number: u64,
    rng: StdRng,
    roster: Roster,
    registers: Arc<[NodeId]>,
    clock: Arc<AtomicU64>,
    written: u64,
}

impl Client {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..60))).await;
            let Some(member) = self.member() else { continue };
            let register = self.registers.choose(&mut self.rng).unwrap().clone();
            let began = self.tick();
            let what = match self.rng.random_range(0..10) {
                0..4 => self.read(&member, &register).await,
                kind => Some(self.write(&member, &register, kind < 7).await),
            };
            let ended = self.tick();
            deeds.extend(what.map(|what| Deed { began, ended, register, what }));
        }
        deeds
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// One that believes that it leads, mostly; now and then any.
    fn member(&mut self) -> Option<Alive> {
        let all: Vec<Alive> = self.roster.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let leads = |alive: &&Alive| alive.raft.leadership().borrow().is_leader();
        let leaders: Vec<Alive> = all.iter().filter(leads).cloned().collect();
        let among = if leaders.is_empty() || self.rng.random_bool(0.1) { &all } else { &leaders };
        among.choose(&mut self.rng).cloned()
    }

    async fn read(&mut self, member: &Alive, register: &NodeId) -> Option<What> {
        member.raft.confirm().await.ok()?;
        let value = |tables: &Tables| tables.get::<Node>(register).map(|node| node.credential.clone());
        let (value, at) = member.store.view(|tables| (value(tables), tables.version()));
        Some(What::Read { value, at })
    }

    /// Writes on top of what the member knows, or whatever it knows.
    async fn write(&mut self, member: &Alive, register: &NodeId, on_top: bool) -> What {
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        let node = Node { id: register.clone(), credential: value.clone(), ..rig::node() };
        let base = on_top.then(|| member.store.view(Tables::version));
        let outcome = member.raft.propose(Proposal { base, ..rig::proposal(&node) }).await;
        What::Write { value, base, outcome }
    }
}
