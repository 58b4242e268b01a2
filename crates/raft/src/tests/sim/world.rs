//! The members of a group, and what may happen to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use openraft::SnapshotPolicy;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use skep_model::Version;
use skep_store::{Events, Log, Object, Proposal, Store, Tables};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::disk::Disk;
use super::net::{Net, Wire};
use super::oracle::Seen;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::tests::rig;
use crate::{Raft, RaftError};

/// How long a group that nothing happens to any more may take to agree. Virtual time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A member that runs.
#[derive(Clone)]
pub(super) struct Alive {
    pub(super) raft: Raft,
    pub(super) store: Store,
}

/// Who runs at present, for the clients.
pub(super) type Roster = Arc<Mutex<BTreeMap<u64, Alive>>>;

/// A member, alive or not.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) disk: Disk,
    /// The key and the snapshots.
    pub(super) dir: TempDir,
    pub(super) life: u64,
    pub(super) alive: Option<(Alive, Events)>,
}

pub(super) struct World {
    rng: StdRng,
    pub(super) net: Net,
    pub(super) members: Vec<Member>,
    /// Those whom somebody was asked to send away.
    pub(super) dismissed: BTreeSet<u64>,
    pub(super) asking: JoinSet<()>,
    /// Those who were in the group when it came to agree.
    pub(super) agreed: Vec<Alive>,
    pub(super) roster: Roster,
    seen: Seen,
    dying: JoinSet<()>,
}

impl World {
    /// A group of `size` members, all well.
    pub(super) async fn new(size: u64, mut rng: StdRng) -> Self {
        let net = Net::new(StdRng::seed_from_u64(rng.random()));
        let member = |id| Member { id, disk: Disk::default(), dir: directory(), life: 0, alive: None };
        let members = (1..=size).map(member).collect();
        let (roster, seen, dying) = (Roster::default(), Seen::default(), JoinSet::new());
        let (dismissed, asking) = (BTreeSet::new(), JoinSet::new());
        let mut world = Self { rng, net, members, dismissed, asking, agreed: Vec::new(), roster, seen, dying };
        world.revive(|_| true).await;
        let all: Vec<Raft> = world.alive().into_iter().map(|alive| alive.raft).collect();
        all[0].initialize().await.unwrap();
        for other in &all[1..] {
            all[0].add_member(other.raft_id(), nowhere()).await.unwrap();
        }
        world
    }

    pub(super) fn alive(&self) -> Vec<Alive> {
        self.members.iter().filter_map(|member| member.alive.as_ref()).map(|(alive, _)| alive.clone()).collect()
    }

    /// Starts those of the dead who are chosen.
    pub(super) async fn revive(&mut self, mut chosen: impl FnMut(&mut StdRng) -> bool) {
        for member in &mut self.members {
            if member.alive.is_some() || !chosen(&mut self.rng) {
                continue;
            }
            let alive = member.start(&self.net, StdRng::seed_from_u64(self.rng.random())).await;
            let alive = alive.unwrap_or_else(|error| panic!("member {} does not start: {error}", member.id));
            self.roster.lock().unwrap_or_else(PoisonError::into_inner).insert(member.id, alive);
        }
    }

    /// The power of one member is gone.
    pub(super) fn crash(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some((alive, mut events)) = member.alive.take() else { return };
        member.disk.crash(&mut self.rng);
        self.net.leave(member.id);
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).remove(&member.id);
        drain(&mut events, &mut self.seen);
        // What the dying one may still do to its files is not for the next life.
        let dir = directory();
        copy(member.dir.path(), dir.path());
        let before = std::mem::replace(&mut member.dir, dir);
        self.dying.spawn(async move {
            alive.raft.shutdown().await;
            drop(before);
        });
    }

    /// Members that openraft has given up are on their way to another life, as a daemon sees to it.
    fn bury(&mut self) {
        let gave_up = |member: &Member| member.alive.as_ref().is_some_and(|(alive, _)| alive.raft.has_given_up());
        let given_up: Vec<usize> = (0..self.members.len()).filter(|at| gave_up(&self.members[*at])).collect();
        given_up.into_iter().for_each(|at| self.crash(at));
    }

    /// Something bad happens, or something gets better for a while.
    pub(super) async fn misfortune(&mut self, rng: &mut StdRng) {
        self.bury();
        for member in &mut self.members {
            if let Some((_, events)) = &mut member.alive {
                drain(events, &mut self.seen);
            }
        }
        self.revive(|rng| rng.random_bool(0.4)).await;
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        match rng.random_range(0..12) {
            0..3 => self.crash(rng.random_range(0..ids.len())),
            3 => (0..ids.len()).filter(|_| rng.random_bool(0.6)).for_each(|at| self.crash(at)),
            4 => self.crash_leader(),
            5 => self.split(&ids, rng.random_range(0..1 << ids.len())),
            6 => self.split(&ids, 1 << rng.random_range(0..ids.len())),
            7 => self.split(&ids, self.leader().map_or(0, |at| 1 << at)),
            8 => {
                let (from, to) = (*ids.choose(rng).unwrap(), *ids.choose(rng).unwrap());
                self.net.cut(from, to);
            }
            9 => self.net.set_quality(100..rng.random_range(1_000..90_000), rng.random_range(0..200)),
            _ => {
                self.net.mend();
                self.net.set_quality(100..2000, 0);
            }
        }
    }

    /// Nothing passes between the members in the mask and the others.
    fn split(&self, ids: &[u64], mask: u32) {
        let inside = |at: usize| mask >> at & 1 == 1;
        for (a, from) in ids.iter().enumerate() {
            for (b, to) in ids.iter().enumerate() {
                if inside(a) != inside(b) {
                    self.net.cut(*from, *to);
                }
            }
        }
    }

    /// Which one believes that it leads.
    fn leader(&self) -> Option<usize> {
        let leads = |alive: &Alive| alive.raft.leadership().borrow().is_leader();
        self.members.iter().position(|member| member.alive.as_ref().is_some_and(|(alive, _)| leads(alive)))
    }

    fn crash_leader(&mut self) {
        if let Some(at) = self.leader() {
            self.crash(at);
        }
    }

    /// Everybody lives, and everything gets through.
    pub(super) async fn heal(&mut self) {
        self.net.mend();
        self.net.set_quality(100..2000, 0);
        self.revive(|_| true).await;
    }

    /// Waits until somebody commits and the group has the same.
    pub(super) async fn agree(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // Whoever asked for another group has an answer, or gives up.
        while self.asking.join_next().await.is_some() {}
        let (version, group) = loop {
            let all = self.all_again().await;
            assert!(Instant::now() < deadline, "somebody should commit by now\n{}", describe(&all));
            tokio::time::sleep(Duration::from_millis(20)).await;
            let nothing = Proposal { changes: Vec::new(), ..rig::proposal(&rig::node()) };
            let leader = all.iter().find(|alive| alive.raft.leadership().borrow().is_leader());
            if let Some(leader) = leader
                && let Ok(version) = leader.raft.propose(nothing).await
            {
                break (version, self.group(leader));
            }
        };
        let members: BTreeSet<u64> = group.iter().map(|alive| alive.raft.raft_id()).collect();
        self.agreed = loop {
            let all = self.all_again().await;
            let group: Vec<Alive> = all.iter().filter(|a| members.contains(&a.raft.raft_id())).cloned().collect();
            if group.iter().all(|alive| alive.store.view(Tables::version) >= version) {
                break group;
            }
            assert!(Instant::now() < deadline, "all should know {version:?} by now\n{}", describe(&all));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
    }

    /// All members, once those that openraft has given up are started again. A panic in it is no giving up.
    async fn all_again(&mut self) -> Vec<Alive> {
        let all = self.alive();
        assert!(all.iter().all(|alive| !alive.raft.metrics().contains("Panicked")), "{}", describe(&all));
        self.bury();
        self.revive(|_| true).await;
        self.alive()
    }

    /// Ends it; what the members have applied.
    pub(super) async fn stop(mut self) -> Seen {
        let all = std::mem::take(&mut self.agreed);
        let tables: Vec<Vec<u8>> = all.iter().map(|alive| alive.store.view(Tables::encode)).collect();
        let versions: Vec<Version> = all.iter().map(|alive| alive.store.view(Tables::version)).collect();
        assert!(tables.iter().all(|one| *one == tables[0]), "the members should have the same state: {versions:?}");
        for member in &mut self.members {
            if let Some((alive, mut events)) = member.alive.take() {
                alive.raft.shutdown().await;
                drain(&mut events, &mut self.seen);
            }
        }
        while let Some(died) = self.dying.join_next().await {
            died.unwrap();
        }
        self.seen
    }
}

impl Member {
    async fn start(&mut self, net: &Net, mut rng: StdRng) -> Result<Alive, RaftError> {
        self.life += 1;
        let store = Store::default();
        let events = store.watch();
        let config = rig::config(self.dir.path(), self.id, nowhere());
        let delay = move || Duration::from_micros(rng.random_range(50..8000));
        let (log, closed) = LogStore::simulated(self.disk.open(), self.dir.path(), self.id, delay)?;
        let machine = Machine::open(self.dir.path(), store.clone(), &log)?;
        let wire = Wire { net: net.clone(), own: self.id, life: self.life };
        let policy = SnapshotPolicy::LogsSinceLast(30);
        let raft = Raft::start_on((log, machine, closed), config, wire, policy, 5).await?;
        net.join(self.id, self.life, raft.answers());
        let alive = Alive { raft, store };
        self.alive = Some((alive.clone(), events));
        Ok(alive)
    }
}

/// What each member says of itself.
fn describe(all: &[Alive]) -> String {
    let line = |alive: &Alive| format!("{:?} {}", alive.raft.leadership().borrow(), alive.raft.metrics());
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The simulated network goes by ids alone.
pub(super) fn nowhere() -> std::net::SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

/// In memory, where there is such a place: these files are not what is tested here.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The files that are whole: what is being written aside is not.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "new") {
            // One that is gone was replaced by a newer one at this moment, which then is in this list as well.
            drop(std::fs::copy(&path, to.join(path.file_name().unwrap())));
        }
    }
}

/// Notes what a store has told.
fn drain(events: &mut Events, seen: &mut Seen) {
    while let Some(Some(told)) = events.next().now_or_never() {
        for event in told.iter().flat_map(|events| events.iter()) {
            let Object::Node(node) = &event.object else { panic!("nobody writes that: {event:?}") };
            seen.note(node.meta.version, &node.id, &node.credential);
        }
    }
}
