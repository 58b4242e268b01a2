//! Nodes tell each other, in virtual time. Every run prints its seed; `SKEP_SIM_SEED` repeats it, `SKEP_SIM_NODES` sets the size of the largest.

mod sim;

use std::time::{Duration, Instant};

use rand::RngExt;
use skep_model::{EndpointKey, EndpointState, NodeId};
use skep_netdb::Tables;

use sim::{EPOCH, Sim, key, record, seed};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn nodes(default: usize) -> usize {
    std::env::var("SKEP_SIM_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A change that not everybody knows yet.
struct Pending {
    owner: NodeId,
    version: u64,
    made: Duration,
    missing: Vec<usize>,
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
        let fresh = key();
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
    let (count, began) = (nodes(200), Instant::now());
    let mut sim = Sim::new(seed(), count, 50);
    println!("{count} nodes with {} records know each other after {:?}", count * 50, began.elapsed());
    (sim.loss, sim.doubled) = (0.3, 0.02);
    sim.run_for(2 * SECOND);
    let (start, tasks) = (sim.now, 300);
    sim.nodes.iter_mut().for_each(|node| node.bytes = 0);
    let steps = rollout(&mut sim, tasks, 100);
    let mut steps = steps.into_iter().peekable();
    let (mut pending, mut taken): (Vec<Pending>, Vec<Duration>) = (Vec::new(), Vec::new());
    let (mut busy, mut worst_rate) = (0, 0);
    while steps.peek().is_some() || !pending.is_empty() {
        let tick = sim.now + 25 * MS;
        while let Some((at, step)) = steps.next_if(|(at, _)| *at <= tick) {
            sim.run_until(at.max(sim.now));
            let node = take_step(&mut sim, &step);
            let (owner, version) = (sim.nodes[node].id.clone(), sim.nodes[node].tables.own().version);
            let missing = (0..count).filter(|other| *other != node).collect();
            pending.push(Pending { owner, version, made: sim.now, missing });
        }
        sim.run_until(tick);
        for change in &mut pending {
            change.missing.retain(|node| {
                sim.nodes[*node].tables.rank(&change.owner).is_none_or(|(version, _)| version < change.version)
            });
        }
        let now = sim.now;
        pending.retain(|change| {
            if change.missing.is_empty() {
                taken.push(now - change.made);
            }
            !change.missing.is_empty()
        });
        assert!(now < start + 60 * SECOND, "{} changes do not arrive", pending.len());
        if busy == 0 && now >= start + Duration::from_millis(tasks as u64 * 10) {
            // The rollout is at its height until then.
            busy = sim.nodes.iter().map(|node| node.bytes).sum::<u64>() / count as u64;
            worst_rate = sim.nodes.iter().map(|node| node.bytes).max().unwrap_or_default();
        }
    }
    taken.sort();
    let p99 = taken[taken.len() * 99 / 100];
    let seconds = tasks as u64 / 100;
    println!(
        "{} changes are known to all: half within {:?}, 99 of 100 within {p99:?}, all within {:?}; {} kB/s a node, the busiest {} kB/s; {:?} of real time",
        taken.len(),
        taken[taken.len() / 2],
        taken[taken.len() - 1],
        busy / 1000 / seconds,
        worst_rate / 1000 / seconds,
        began.elapsed(),
    );
    assert!(p99 <= 2 * SECOND, "{p99:?}");
    assert!(busy / seconds < 200_000, "{} bytes a second", busy / seconds);
}
