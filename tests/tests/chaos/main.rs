//! Five nodes, three of them managers, and somebody who kills daemons, stops them for a while and cuts links, one at a time and at random.
//! `SKEP_CHAOS_SECONDS` says for how long, `SKEP_CHAOS_SEED` repeats the order of events.

mod unique;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skep_e2e::{Load, PORT, Server, Swarm};

/// The nodes that are left alone: one is asked all the while, and the other holds a majority of the managers together with any one more.
const SPARED: u8 = 5;
const NODES: u8 = 5;
const MANAGERS: u8 = 3;
/// What a cut or a death may cost: a SYN that is sent again, until the node is known not to answer.
const NOTICED: Duration = Duration::from_secs(2);

/// What somebody who writes knows of what he wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum Blow {
    Killed,
    Paused,
    Cut,
    /// It hears the others, and they do not hear it.
    Muted,
}

impl Blow {
    /// Whether what the node says does not arrive.
    fn cuts(self) -> bool {
        matches!(self, Self::Cut | Self::Muted)
    }
}

/// Tells those who work meanwhile to stop, when it is dropped.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn seconds() -> u64 {
    std::env::var("SKEP_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn signal(swarm: &Swarm, node: u8, signal: &str) {
    let pid = swarm.lab.daemon_pid(node).expect("its daemon runs").to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
}

/// Begins or ends that nothing of what a node sends to other nodes leaves it.
fn mute(swarm: &Swarm, node: u8, verb: &str) {
    for other in (1..=NODES).filter(|other| *other != node) {
        let to = swarm.lab.address(other).to_string();
        let argv = ["ip", "route", verb, "blackhole", &to].map(str::to_owned);
        let status = swarm.lab.exec(&format!("node{node}"), &argv).expect("a place").status().expect("ip runs");
        assert!(status.success(), "ip route {verb} blackhole {to}");
    }
}

/// Lets something befall a node for a while. Returns when it began.
fn strike(swarm: &Swarm, node: u8, blow: Blow, lasts: Duration) -> Instant {
    let began = Instant::now();
    match blow {
        Blow::Killed => {
            swarm.lab.kill_daemon(node).expect("killed");
            thread::sleep(lasts);
            swarm.lab.start_daemon(node).expect("started");
        }
        Blow::Paused => {
            signal(swarm, node, "-STOP");
            thread::sleep(lasts);
            signal(swarm, node, "-CONT");
        }
        Blow::Cut => {
            swarm.lab.cut_link(node).expect("cut");
            thread::sleep(lasts);
            swarm.lab.join_link(node).expect("joined");
        }
        Blow::Muted => {
            mute(swarm, node, "add");
            thread::sleep(lasts);
            mute(swarm, node, "del");
        }
    }
    began
}

/// Creates and removes services by managers that are left alone at the moment, and keeps account.
fn write(swarm: &Swarm, struck: &AtomicU8, stop: &AtomicBool) -> (BTreeMap<String, Known>, usize, Duration) {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for number in 0u16.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let manager = (1..=MANAGERS).find(|m| *m != struck.load(Ordering::Relaxed)).expect("one is left alone");
        let name = format!("s{number}");
        let publish = format!("{}:80", 10_000 + number);
        let mut create = vec!["service", "create", "-d", "--no-resolve-image", "--name", &name, "--replicas", "0"];
        create.extend(["-p", publish.as_str(), "nginx"]);
        let began = Instant::now();
        let created = swarm.docker(manager, &create);
        slowest = slowest.max(began.elapsed());
        let outcome = if created.ok { Known::There } else { Known::Unknown };
        refused += usize::from(!created.ok);
        known.insert(name.clone(), outcome);
        if number % 3 == 0 && created.ok {
            let removed = swarm.docker(manager, &["service", "rm", &name]);
            refused += usize::from(!removed.ok);
            known.insert(name, if removed.ok { Known::Gone } else { Known::Unknown });
        }
    }
    (known, refused, slowest)
}

fn names(swarm: &Swarm, node: u8) -> BTreeSet<String> {
    swarm.must(node, &["service", "ls", "--format", "{{.Name}}"]).lines().map(str::to_owned).collect()
}

#[test]
fn a_swarm_that_is_beaten_loses_nothing() {
    let swarm = Swarm::managed_checked("chaos", NODES, MANAGERS);
    // The node that is asked has no task of its own: each request depends on the others.
    let elsewhere = format!("node.hostname!=node{SPARED}");
    swarm.must(1, &["network", "create", "-d", "overlay", "inside"]);
    let flags = ["--constraint", &elsewhere, "--restart-delay", "0s", "--network", "inside"];
    swarm.serve_web(4, &flags, &["checker"]);
    let seed = std::env::var("SKEP_CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("SKEP_CHAOS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (struck, stop, blows) = (AtomicU8::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
    let load = Load::begin(&swarm, Server::Checker, &[SPARED], PORT);
    let ((known, refused, slowest), looks) = thread::scope(|scope| {
        // Also when something goes wrong: the scope ends only with all that were begun in it.
        let stopped = Stopped(&stop);
        let watching = scope.spawn(|| unique::watch(&swarm, &struck, &stop));
        let writing = scope.spawn(|| write(&swarm, &struck, &stop));
        let until = Instant::now() + Duration::from_secs(seconds());
        while Instant::now() < until {
            let node = rng.random_range(1..SPARED);
            let blow = [Blow::Killed, Blow::Paused, Blow::Cut, Blow::Muted][rng.random_range(0..4)];
            let lasts = Duration::from_millis(rng.random_range(300..3000));
            struck.store(node, Ordering::Relaxed);
            let began = strike(&swarm, node, blow, lasts);
            blows.lock().unwrap().push((began, began.elapsed(), node, blow));
            struck.store(0, Ordering::Relaxed);
            // One at a time: the others have to take it back first.
            swarm.until("the node to be back", || {
                let said =
                    swarm.docker(SPARED % MANAGERS + 1, &["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]);
                said.ok && !said.out.contains("Down") && !said.out.contains("Unreachable")
            });
        }
        drop(stopped);
        (writing.join().expect("it keeps account"), watching.join().expect("nothing is given out twice"))
    });
    swarm.until("all tasks to run", || swarm.running("web").len() == 4);
    let report = load.end();
    let blows = blows.into_inner().unwrap();
    judge_requests(&swarm, &report, &blows);
    judge_writes(&swarm, &known);
    let created = known.values().filter(|known| **known == Known::There).count();
    println!(
        "{} blows; nothing given out twice in {looks} looks; {} writes acknowledged and there, {refused} refused, the slowest took {slowest:?}; {} requests",
        blows.len(),
        created,
        report.asked.len()
    );
}

/// Requests fail only when their task or its node was struck while they were under way.
fn judge_requests(swarm: &Swarm, report: &skep_e2e::Report, blows: &[(Instant, Duration, u8, Blow)]) {
    let excused = |attempt: &skep_e2e::Attempt| {
        blows.iter().any(|(began, lasted, _, blow)| {
            blow.cuts() && attempt.opened + attempt.took >= *began && attempt.opened <= *began + *lasted
        })
    };
    let failed: Vec<_> = report.failed(report.began).filter(|attempt| !excused(attempt)).collect();
    assert!(failed.is_empty(), "failed:\n{}\n{}", told(report, &failed, blows), swarm.words());
    let slow: Vec<_> = report
        .slow(report.began)
        .filter(|attempt| {
            !blows.iter().any(|(began, _, _, blow)| {
                let since = attempt.opened.saturating_duration_since(*began);
                blow.cuts() && attempt.opened + NOTICED >= *began && since <= NOTICED
            })
        })
        .collect();
    assert!(slow.is_empty(), "slow:\n{}\n{}", told(report, &slow, blows), swarm.words());
    let [failed, slow] = [report.failed(report.began).count(), report.slow(report.began).count()];
    println!("requests: {} asked, {failed} failed while a link was cut, {slow} slow", report.asked.len());
}

/// What went wrong between the blows, in the order in which it happened, in seconds since the first request.
fn told(report: &skep_e2e::Report, attempts: &[&skep_e2e::Attempt], blows: &[(Instant, Duration, u8, Blow)]) -> String {
    let at = |when: Instant| when.saturating_duration_since(report.began).as_secs_f64();
    let asked = attempts.iter().map(|attempt| (at(attempt.opened), format!("{attempt:?}")));
    let struck = blows.iter().map(|(began, lasted, node, blow)| {
        (at(*began), format!("node{node} {blow:?} for {:.2} s", lasted.as_secs_f64()))
    });
    let mut lines: Vec<(f64, String)> = asked.chain(struck).collect();
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    lines.iter().map(|(at, line)| format!("{at:9.3} {line}\n")).collect()
}

/// Every manager knows what was acknowledged, and nothing was given out twice.
fn judge_writes(swarm: &Swarm, known: &BTreeMap<String, Known>) {
    for manager in 1..=MANAGERS {
        let there = names(swarm, manager);
        for (name, known) in known {
            match known {
                Known::There => assert!(there.contains(name), "node{manager} has lost {name}"),
                Known::Gone => assert!(!there.contains(name), "node{manager} still has {name}"),
                Known::Unknown => {}
            }
        }
    }
    (1..=MANAGERS).for_each(|manager| assert!(unique::look(swarm, manager), "node{manager} answers"));
}
