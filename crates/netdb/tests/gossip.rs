//! Nodes tell each other, in virtual time. Every run prints its seed; `SKEP_SIM_SEED` repeats it, `SKEP_SIM_NODES` sets the size of the largest.

mod sim;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use skep_model::{EndpointKey, EndpointState};
use skep_netdb::Tables;

use sim::{EPOCH, Sim, record, seed};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn nodes(default: usize) -> usize {
    std::env::var("SKEP_SIM_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Steps of a task's replacement, from when its turn comes: what a rolling update does.
enum Step {
    Starting(usize, EndpointKey),
    Ready(usize, EndpointKey),
    Draining(usize, EndpointKey),
    Gone(usize, EndpointKey),
}

fn rollout(sim: &mut Sim, tasks: usize, a_second: u64) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    for task in 0..tasks {
        let at = sim.now + Duration::from_micros(1_000_000 / a_second * task as u64);
        let (new, old) = (sim.rng.random_range(0..sim.nodes.len()), sim.rng.random_range(0..sim.nodes.len()));
        let replaced = sim.nodes[old].tables.own().records.keys().nth(task % 10).unwrap().clone();
        let fresh = sim.key();
        steps.push((at, Step::Starting(new, fresh.clone())));
        steps.push((at + 400 * MS, Step::Ready(new, fresh)));
        steps.push((at + 500 * MS, Step::Draining(old, replaced.clone())));
        steps.push((at + 1500 * MS, Step::Gone(old, replaced)));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn take_step(sim: &mut Sim, step: &Step) -> usize {
    match step {
        Step::Starting(node, key) => sim.change(*node, |tables, now| {
            tables.publish([(key.clone(), record(EndpointState::Starting))], now);
        }),
        Step::Ready(node, key) => sim.change(*node, |tables, now| {
            tables.set_state(key, EndpointState::Ready, now);
        }),
        Step::Draining(node, key) => sim.change(*node, |tables, now| {
            tables.set_state(key, EndpointState::Draining, now);
        }),
        Step::Gone(node, key) => sim.change(*node, |tables, now| {
            tables.withdraw(key, now);
        }),
    }
    match step {
        Step::Starting(node, _) | Step::Ready(node, _) | Step::Draining(node, _) | Step::Gone(node, _) => *node,
    }
}

#[test]
fn a_change_is_known_everywhere_within_two_seconds_through_heavy_loss() {
    let (count, began) = (nodes(100), Instant::now());
    let mut sim = Sim::new(seed(), count, 50);
    println!("{count} nodes with {} records know each other after {:?}", count * 50, began.elapsed());
    (sim.loss, sim.doubled) = (0.3, 0.02);
    sim.run_for(2 * SECOND);
    let (start, tasks) = (sim.now, 300);
    sim.nodes.iter_mut().for_each(|node| node.bytes = 0);
    let mut sent = None;
    for (at, step) in rollout(&mut sim, tasks, 100) {
        // The rollout is at its height until then.
        let height = start + SECOND * tasks as u32 / 100;
        if sent.is_none() && at >= height {
            sim.run_until(height);
            sent = Some(sim.nodes.iter().map(|node| node.bytes).collect::<Vec<_>>());
        }
        sim.run_until(at);
        let node = take_step(&mut sim, &step);
        sim.watch(node);
    }
    while sim.pending() > 0 {
        sim.run_for(25 * MS);
        assert!(sim.now < start + 60 * SECOND, "{} changes do not arrive", sim.pending());
    }
    let mut taken = std::mem::take(&mut sim.taken);
    taken.sort();
    let rates = sent.unwrap().into_iter().map(|bytes| bytes * 100 / tasks as u64);
    let (mean, busiest) = (rates.clone().sum::<u64>() / count as u64, rates.max().unwrap());
    let [half, p99, all] = [taken.len() / 2, taken.len() * 99 / 100, taken.len() - 1].map(|place| taken[place]);
    println!(
        "{} changes are known to all: half within {half:?}, 99 of 100 within {p99:?}, all within {all:?}; \
         {} kB/s a node, the busiest {} kB/s; {:?} of real time",
        taken.len(),
        mean / 1000,
        busiest / 1000,
        began.elapsed(),
    );
    assert!(p99 <= 2 * SECOND, "{p99:?}");
    assert!(busiest < 200_000, "{busiest} bytes a second");
}

/// Publishes one ready endpoint on each node, all of one service.
fn one_each(sim: &mut Sim) -> Vec<EndpointKey> {
    let keys: Vec<EndpointKey> = (0..sim.nodes.len()).map(|_| sim.key()).collect();
    for (node, key) in keys.iter().enumerate() {
        sim.change(node, |tables, now| {
            tables.publish([(key.clone(), record(EndpointState::Ready))], now);
        });
    }
    keys
}

/// By how many other nodes an endpoint is seen with that weight.
fn seen(sim: &Sim, owner: usize, key: &EndpointKey, weight: Option<u32>) -> usize {
    let others = (0..sim.nodes.len()).filter(|node| *node != owner && !sim.nodes[*node].dead);
    others.filter(|node| sim.weight(*node, key) == weight).count()
}

#[test]
fn a_paused_node_gets_no_flows_evicts_nobody_and_is_back_when_it_wakes() {
    let mut sim = Sim::new(seed(), 20, 0);
    let keys = one_each(&mut sim);
    sim.run_for(3 * SECOND);
    assert!(sim.stale().is_empty());
    sim.nodes[3].paused = sim.now + 10 * SECOND;
    sim.run_for(4 * SECOND);
    assert_eq!(seen(&sim, 3, &keys[3], Some(0)), 19, "nobody sends it new flows, all keep those that there are");
    // Meanwhile the world goes on.
    let late = sim.key();
    sim.change(7, |tables, now| {
        tables.publish([(late.clone(), record(EndpointState::Ready))], now);
    });
    sim.run_for(6 * SECOND);
    for _ in 0..100 {
        sim.run_for(50 * MS);
        let suspected = keys.iter().enumerate().filter(|(owner, _)| *owner != 3);
        for (owner, key) in suspected {
            assert_eq!(seen(&sim, owner, key, Some(1)), if sim.weight(3, key) == Some(1) { 19 } else { 18 });
            assert_eq!(sim.weight(3, key), Some(1), "who slept accuses nobody, after {:?}", sim.now);
        }
    }
    assert_eq!(seen(&sim, 3, &keys[3], Some(1)), 19);
    assert_eq!(sim.weight(3, &late), Some(1));
    assert!(sim.stale().is_empty());
}

#[test]
fn a_dead_node_weighs_nothing_within_seconds() {
    let mut sim = Sim::new(seed(), 20, 0);
    let keys = one_each(&mut sim);
    sim.run_for(3 * SECOND);
    let died = sim.now;
    sim.nodes[5].dead = true;
    while seen(&sim, 5, &keys[5], Some(0)) < 19 {
        sim.run_for(50 * MS);
        assert!(sim.now < died + 5 * SECOND);
    }
    println!("all know it after {:?}", sim.now - died);
    sim.run_for(20 * SECOND);
    assert_eq!(seen(&sim, 5, &keys[5], Some(0)), 19, "hidden by managers only");
}

#[test]
fn who_hears_and_is_not_heard_by_one_is_spoken_for_by_the_others() {
    let mut sim = Sim::new(seed(), 12, 0);
    let keys = one_each(&mut sim);
    sim.run_for(3 * SECOND);
    // Nothing gets from 0 to 1; all else does.
    sim.cut = Box::new(|from, to| (from, to) == (0, 1));
    let late = sim.key();
    sim.change(0, |tables, now| {
        tables.publish([(late.clone(), record(EndpointState::Ready))], now);
    });
    sim.run_for(5 * SECOND);
    let mut doubts = 0;
    for _ in 0..100 {
        sim.run_for(100 * MS);
        doubts += seen(&sim, 0, &keys[0], Some(0)) + seen(&sim, 1, &keys[1], Some(0));
    }
    assert_eq!(sim.weight(1, &late), Some(1), "news go round the cut");
    assert_eq!(doubts, 0);
    assert!(sim.stale().is_empty());
}

#[test]
fn a_machine_that_joins_anew_at_its_address_takes_the_place_of_its_former_self() {
    let mut sim = Sim::new(seed(), 10, 0);
    let keys = one_each(&mut sim);
    sim.run_for(3 * SECOND);
    let (addr, former) = (sim.nodes[4].addr, sim.nodes[4].id.clone());
    sim.nodes[4].dead = true;
    sim.run_for(SECOND);
    // Managers know both for a while: the new one joins before the former is removed. Its clock is an hour behind.
    let id = sim.random_id();
    let mut members: BTreeMap<_, _> = sim.nodes.iter().map(|n| (n.id.clone(), n.addr)).collect();
    members.insert(id.clone(), addr);
    sim.set_members(members.clone());
    let index = sim.add(id.clone(), addr, Tables::new(id, EPOCH - 3_600_000));
    sim.set_members(members.clone());
    let fresh = sim.key();
    sim.change(index, |tables, now| {
        tables.publish([(fresh.clone(), record(EndpointState::Ready))], now);
    });
    sim.run_for(5 * SECOND);
    assert_eq!(seen(&sim, index, &fresh, Some(1)), 9, "known by all that live");
    members.remove(&former);
    sim.set_members(members);
    sim.run_for(5 * SECOND);
    assert_eq!(seen(&sim, index, &fresh, Some(1)), 9);
    assert_eq!(seen(&sim, index, &keys[4], None), 9, "its former self is gone");
    assert!(sim.stale().is_empty());
}

#[test]
fn a_node_that_is_back_with_its_clock_set_back_is_believed() {
    let mut sim = Sim::new(seed(), 10, 0);
    let keys = one_each(&mut sim);
    sim.run_for(3 * SECOND);
    let (id, addr) = (sim.nodes[2].id.clone(), sim.nodes[2].addr);
    sim.nodes[2].dead = true;
    // Its disk was lost too: it knows nothing of its former life.
    let index = sim.add(id.clone(), addr, Tables::new(id, EPOCH - 86_400_000));
    let everybody = sim.nodes.iter().map(|n| (n.id.clone(), n.addr)).collect();
    sim.set_members(everybody);
    let fresh = sim.key();
    sim.change(index, |tables, _| {
        tables.publish([(fresh.clone(), record(EndpointState::Ready))], EPOCH - 86_400_000);
    });
    sim.run_for(20 * SECOND);
    assert_eq!(seen(&sim, index, &fresh, Some(1)), 9);
    assert_eq!(seen(&sim, index, &keys[2], None), 9, "what it had before is gone");
    assert!(sim.stale().is_empty());
}

#[test]
fn two_halves_that_were_apart_agree_within_five_seconds() {
    let count = nodes(60);
    let mut sim = Sim::new(seed(), count, 10);
    (sim.loss, sim.doubled) = (0.05, 0.05);
    sim.run_for(3 * SECOND);
    sim.cut = Box::new(|from, to| from % 2 != to % 2);
    let mut fresh = Vec::new();
    for node in 0..count {
        let key = sim.key();
        sim.change(node, |tables, now| {
            tables.publish([(key.clone(), record(EndpointState::Ready))], now);
        });
        fresh.push(key);
        sim.run_for(Duration::from_secs(20) / count as u32);
    }
    assert_eq!(sim.stale().len(), count, "the halves know nothing of each other");
    sim.cut = Box::new(|_, _| false);
    let healed = sim.now;
    while !sim.stale().is_empty() {
        sim.run_for(100 * MS);
        assert!(sim.now < healed + 5 * SECOND, "stale: {:?}", sim.stale());
    }
    println!("all agree {:?} after the cut was mended", sim.now - healed);
    sim.run_for(10 * SECOND);
    for (owner, key) in fresh.iter().enumerate() {
        assert_eq!(seen(&sim, owner, key, Some(1)), count - 1, "nobody is doubted any more");
    }
}

#[test]
fn a_node_that_joins_knows_everything_soon() {
    let mut sim = Sim::new(seed(), 50, 40);
    sim.run_for(SECOND);
    let id = sim.random_id();
    let mut members: BTreeMap<_, _> = sim.nodes.iter().map(|n| (n.id.clone(), n.addr)).collect();
    let addr = Sim::addr(50);
    members.insert(id.clone(), addr);
    sim.set_members(members.clone());
    sim.add(id.clone(), addr, Tables::new(id, EPOCH + 1000));
    sim.set_members(members);
    let joined = sim.now;
    while !sim.stale().is_empty() {
        sim.run_for(50 * MS);
        assert!(sim.now < joined + 5 * SECOND, "stale: {:?}", sim.stale());
    }
    println!("all agree {:?} after it came", sim.now - joined);
}

/// A third of all datagrams is lost, half of the rest comes twice and in any order; some are heard by others and do not hear them; one node
/// stands still for ten seconds, and another one dies. Everybody changes its table all the time.
fn the_worst(seed: u64) -> (Sim, Vec<EndpointKey>) {
    let mut sim = Sim::new(seed, 30, 5);
    let keys = one_each(&mut sim);
    (sim.loss, sim.doubled) = (0.3, 0.5);
    sim.cut = Box::new(|from, to| (from, to) == (8, 9) || from < 5 && to >= 25);
    sim.nodes[7].paused = sim.now + 10 * SECOND;
    for round in 0..40 {
        sim.nodes[11].dead |= round == 30;
        for (node, kept) in keys.iter().enumerate() {
            let others = sim.nodes[node].tables.own().records.keys().filter(|key| *key != kept).take(2);
            let gone: Vec<_> = others.filter(|_| round % 2 == 0).cloned().collect();
            let fresh = sim.key();
            sim.change(node, |tables, now| {
                tables.publish([(fresh, record(EndpointState::Starting))], now);
                for gone in gone {
                    tables.withdraw(&gone, now);
                }
            });
        }
        sim.run_for(250 * MS);
    }
    (sim, keys)
}

/// How long anybody that lives is doubted by anybody without a break, within ten seconds; and nobody takes the dead for living.
fn longest_doubt(sim: &mut Sim, keys: &[EndpointKey]) -> Duration {
    let (mut since, mut longest) = (BTreeMap::new(), Duration::ZERO);
    for _ in 0..100 {
        sim.run_for(100 * MS);
        for viewer in (0..sim.nodes.len()).filter(|node| !sim.nodes[*node].dead) {
            let view = sim.nodes[viewer].tables.view();
            for (owner, key) in keys.iter().enumerate() {
                let weight = view.endpoints[key].record.weight;
                if sim.nodes[owner].dead {
                    assert_eq!(weight, 0, "{viewer} takes {owner} for living");
                } else if weight == 0 {
                    let began = *since.entry((viewer, owner)).or_insert(sim.now);
                    longest = longest.max(sim.now - began);
                } else {
                    since.remove(&(viewer, owner));
                }
            }
        }
    }
    longest
}

#[test]
fn nothing_is_stale_and_nobody_is_wronged_for_long_five_seconds_after_the_worst() {
    let first = seed();
    let runs = std::env::var("SKEP_SIM_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (mut agreed, mut doubted) = (Duration::ZERO, Duration::ZERO);
    for seed in (0..runs).map(|run| first.wrapping_add(run)) {
        let (mut sim, keys) = the_worst(seed);
        let over = sim.now;
        while !sim.stale().is_empty() {
            sim.run_for(50 * MS);
            assert!(sim.now < over + 5 * SECOND, "seed {seed}: stale {:?}", sim.stale());
        }
        agreed = agreed.max(sim.now - over);
        sim.run_until(over + 5 * SECOND);
        let longest = longest_doubt(&mut sim, &keys);
        assert!(longest <= 2 * SECOND, "seed {seed}: somebody is doubted for {longest:?}");
        assert!(sim.stale().is_empty(), "seed {seed}: {:?}", sim.stale());
        doubted = doubted.max(longest);
    }
    println!(
        "{runs} runs: all agree {agreed:?} after the last change, with the cut still there; the longest doubt is {doubted:?}"
    );
}
