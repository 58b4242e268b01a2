//! Members that come and go: new ones with an empty disk, a leader that is sent away, and those who were sent away and come back with the disk
//! that they had.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::disk::Disk;
use super::world::{Alive, Member, World, directory, nowhere};

/// Whoever asks for a change gives up then; whether it is made, nobody knows.
const PATIENCE: Duration = Duration::from_secs(4);
/// So many members are there at the most, those counted that were sent away.
const MOST: usize = 8;
/// A group of fewer sends nobody away.
const LEAST: usize = 3;

impl World {
    /// Somebody is asked for another group than there is.
    pub(super) async fn regroup(&mut self, rng: &mut StdRng) {
        let Some(leader) = self.leading() else { return };
        let voters: Vec<u64> = leader.raft.members().into_keys().collect();
        match rng.random_range(0..5) {
            0 | 1 if self.members.len() < MOST => self.admit(&leader).await,
            // Who was not admitted to the end, or was left halfway by a leader before: managers ask again.
            2 => self.admit_again(&leader, &voters, rng),
            _ if voters.len() > LEAST => {
                let own = leader.raft.raft_id();
                let gone = if rng.random_bool(0.4) { own } else { *voters.choose(rng).expect("there are some") };
                self.dismissed.insert(gone);
                self.ask(async move { drop(leader.raft.remove_member(gone).await) });
            }
            _ => {}
        }
    }

    async fn admit(&mut self, leader: &Alive) {
        // A number is never used again.
        let id = self.members.iter().map(|member| member.id).max().unwrap_or_default() + 1;
        self.members.push(Member { id, disk: Disk::default(), dir: directory(), life: 0, alive: None });
        self.revive(|_| true).await;
        let leader = leader.raft.clone();
        self.ask(async move { drop(leader.add_member(id, nowhere()).await) });
    }

    fn admit_again(&mut self, leader: &Alive, voters: &[u64], rng: &mut StdRng) {
        let waits = |id: &u64| !voters.contains(id) && !self.dismissed.contains(id);
        let waiting: Vec<u64> = self.members.iter().map(|member| member.id).filter(waits).collect();
        if let Some(id) = waiting.choose(rng).copied() {
            let leader = leader.raft.clone();
            self.ask(async move { drop(leader.add_member(id, nowhere()).await) });
        }
    }

    fn ask(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        self.asking.spawn(async move {
            // An error is no news: nobody needs to know.
            let _ = tokio::time::timeout(PATIENCE, change).await;
        });
    }

    /// How many of those who agreed were not among the first `size`, and how many of the first did not.
    pub(super) fn turnover(&self, size: u64) -> (u64, u64) {
        let first = self.agreed.iter().filter(|alive| alive.raft.raft_id() <= size).count() as u64;
        (self.agreed.len() as u64 - first, size - first)
    }

    fn leading(&self) -> Option<Alive> {
        self.alive().into_iter().find(|alive| alive.raft.leadership().borrow().is_leader())
    }

    /// Those who vote, as the one says who leads: the others have been sent away, or not been admitted.
    pub(super) fn group(&self, leader: &Alive) -> Vec<Alive> {
        let voters: BTreeSet<u64> = leader.raft.members().into_keys().collect();
        self.alive().into_iter().filter(|alive| voters.contains(&alive.raft.raft_id())).collect()
    }
}
