//! Members in a world that is against them, on a clock that only moves when everybody waits.
//!
//! What runs is the real thing: openraft, the log in redb with its writer, the state machine, the store, snapshots and who leads. Simulated
//! are the disk under redb ([`disk`]), which forgets at a crash what was not synced, and the network ([`net`]), which delays, loses,
//! repeats and is cut, also in one direction. Clients ([`client`]) write and read registers meanwhile, and in the end
//! everything heals, must come to agree, and [`oracle`] checks that what the clients saw is linearizable.
//!
//! One seed decides all faults, delays and what the clients do. openraft draws its election timeouts itself and snapshots are
//! real files, so that a seed gives the same story each time, though not the same instruction by instruction.
//! `SKEP_SIM_SEED=17` tells one story, `SKEP_SOAK_SECONDS=600` new ones for ten minutes.

mod client;
mod disk;
mod membership;
mod net;
mod oracle;
mod world;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::world::World;
use super::rig::propose;

/// How many stories each test tells when nobody asks for more.
const STORIES: u64 = 12;

/// Whether members come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Stays,
    Changes,
}

/// One story; what its seed was is printed when it ends badly.
fn tell(seed: u64, group: Group) -> oracle::Summary {
    let story = std::panic::catch_unwind(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(story(StdRng::seed_from_u64(seed), group))
    });
    story.unwrap_or_else(|panic| {
        eprintln!("the story of SKEP_SIM_SEED={seed} ended badly");
        std::panic::resume_unwind(panic)
    })
}

/// Safety first: chaos while clients work. Then liveness: everything heals and they must agree.
async fn story(mut rng: StdRng, group: Group) -> oracle::Summary {
    let size = if rng.random_bool(0.3) { 5 } else { 3 };
    let mut world = World::new(size, StdRng::seed_from_u64(rng.random())).await;
    let clients = client::start(&world, StdRng::seed_from_u64(rng.random()));
    let end = tokio::time::Instant::now() + Duration::from_secs(15);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1200))).await;
        world.misfortune(&mut rng).await;
        if group == Group::Changes && rng.random_bool(0.5) {
            world.regroup(&mut rng).await;
        }
    }
    world.heal().await;
    let history = clients.stop().await;
    world.agree().await;
    let (joined, left) = world.turnover(size);
    let seen = world.stop().await;
    oracle::Summary { joined, left, ..oracle::check(&history, &seen) }
}

/// Stories from this seed on, or what the environment asks for.
fn tell_many(first: u64, group: Group) {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let began = Instant::now();
    if let Some(seed) = asked("SKEP_SIM_SEED") {
        println!("{:?}", tell(seed, group));
        return;
    }
    let (first, soak) = match asked("SKEP_SOAK_SECONDS") {
        Some(seconds) => (rand::random::<u64>() >> 32, Some(Duration::from_secs(seconds))),
        None => (first, None),
    };
    let mut total = oracle::Summary::default();
    let mut stories = 0;
    while soak.map_or(stories < STORIES, |soak| began.elapsed() < soak) {
        total += tell(first + stories, group);
        stories += 1;
    }
    println!("{stories} stories from seed {first} on, in {:?}: {total:?}", began.elapsed());
    let changed = stories * u64::from(group == Group::Changes);
    assert!(total.joined + total.left >= changed / 2, "the group should have changed: {total:?}");
    assert!(total.acknowledged > 20 * stories, "the clients should have got something done: {total:?}");
}

#[test]
fn what_clients_see_is_linearizable_whatever_happens_and_all_agree_in_the_end() {
    tell_many(0, Group::Stays);
}

/// On the other core.
#[test]
fn what_clients_see_is_linearizable_in_other_stories_too() {
    tell_many(1000, Group::Stays);
}

#[test]
fn what_clients_see_is_linearizable_also_while_members_come_and_go() {
    tell_many(2000, Group::Changes);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_takes_long_does_not_cost_the_leader_its_office() {
    let mut world = World::new(3, StdRng::seed_from_u64(1)).await;
    let leader = world.alive().remove(0).raft;
    let leading = leader.leadership().borrow().clone();
    assert!(leading.is_leader(), "{leading:?}");
    world.crash(2);
    for _ in 0..100 {
        propose(&leader).await.unwrap();
    }
    // Longer than any voter waits for a leader.
    world.net.slow_snapshots(Duration::from_secs(4));
    world.heal().await;
    world.agree().await;
    assert_eq!(*leader.leadership().borrow(), leading);
    world.stop().await;
}
