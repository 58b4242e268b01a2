//! What breaks under a demanding client: new connections find a task that works, established ones end at once or not at all.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_e2e::{Attempt, End, Kept, Load, PORT, Report, Server, Swarm, Usage};

/// How long the client watches before something happens.
const CALM: Duration = Duration::from_millis(1500);
/// After so long nobody is sent to a task any more that has died.
const NOTICED: Duration = Duration::from_millis(50);
/// After so long nobody waits for a node any more that is gone.
const AVOIDED: Duration = Duration::from_secs(2);
/// After so long others run in the place of a lost node's tasks that are to be restarted without delay.
const REPLACED: Duration = Duration::from_secs(5);
/// One SYN that is sent again (RFC 6298: after a second), and the handshake.
const ONE_RETRY: Duration = Duration::from_millis(1300);
/// What "at once" means for a connection that asks every 100 ms, on a machine with little time.
const AT_ONCE: Duration = Duration::from_millis(500);

fn begin(swarm: &Swarm, nodes: &[u8]) -> Load {
    let load = Load::begin(swarm, Server::Checker, nodes, PORT);
    thread::sleep(CALM);
    load
}

/// A node other than the manager with at least one task, and the tasks.
fn victim(swarm: &Swarm) -> (u8, BTreeSet<String>) {
    let node = (2..=3).max_by_key(|node| swarm.containers(*node).len()).expect("two nodes");
    let tasks = swarm.containers(node);
    assert!(!tasks.is_empty(), "workers have tasks");
    (node, tasks)
}

/// Nothing failed that was over before `event`, and nothing that was opened `noticed` or later after it. What was under way in between shares
/// the fate of its task.
fn nothing_failed_from(swarm: &Swarm, report: &Report, event: Instant, noticed: Duration) {
    let before = report.failed(report.began).filter(|attempt| attempt.opened + attempt.took < event);
    let bad: Vec<_> = before.chain(report.failed(event + noticed)).collect();
    let last = bad.last().map(|attempt| (attempt.outcome, attempt.opened.saturating_duration_since(event)));
    assert!(bad.is_empty(), "{} failed, the last {last:?}\n{}", bad.len(), swarm.words());
    let shut_out: Vec<_> = report.shut_out(event + noticed).collect();
    assert!(shut_out.is_empty(), "{shut_out:#?}\n{}", swarm.words());
}

fn nobody_waited_from(report: &Report, event: Instant) {
    let slow: Vec<_> = report.slow(event).collect();
    let last = slow.last().map(|attempt| attempt.opened.duration_since(event));
    assert!(slow.is_empty(), "{} waited, the last was opened {last:?} after it", slow.len());
}

/// Connections to other tasks live on; those to `lost` end, and do not hang for longer than `silence`.
fn severed_within(swarm: &Swarm, report: &Report, lost: &BTreeSet<String>, event: Instant, silence: Duration) {
    let broken: Vec<_> = report.broken(lost).take(20).collect();
    assert!(broken.is_empty(), "their tasks live on: {broken:#?}\n{}", swarm.words());
    let hung = |kept: &&Kept| kept.end == End::Alive || kept.waited > silence;
    let hung: Vec<_> = report.severed(lost).filter(hung).take(20).collect();
    assert!(hung.is_empty(), "hung: {hung:#?}\n{}", swarm.words());
    assert!(report.severed(lost).any(|kept| kept.usage == Usage::Long), "long connections to it were open");
    assert!(report.survivors(Usage::Idle, event) > 0, "idle connections to other tasks stay");
}

/// Lets `end` end a task; it returns when that was.
fn a_task_ends(
    story: &str,
    title: &str,
    end: impl FnOnce(&Swarm, u8, &str) -> Instant,
) -> (Swarm, Report, Instant, String) {
    let swarm = Swarm::start_checked(story);
    swarm.serve_web(3, &["--restart-delay", "2s"], &["checker"]);
    let (node, tasks) = victim(&swarm);
    let task = tasks.first().expect("a task").clone();
    let load = begin(&swarm, &[1, 2, 3]);
    let event = end(&swarm, node, &task);
    swarm.until("another task", || swarm.running("web").len() == 3 && !swarm.all_containers().contains(&task));
    thread::sleep(CALM);
    let report = load.end();
    report.print(title, event);
    nobody_waited_from(&report, event);
    (swarm, report, event, task)
}

#[test]
fn a_killed_task_refuses_nobody_after_50_ms() {
    let (swarm, report, event, task) = a_task_ends("killed", "task killed (kill -9)", |swarm, node, task| {
        let pid = swarm.must(node, &["inspect", "--format", "{{.State.Pid}}", task]);
        // By no other program, which would take its time to start.
        let pid = Pid::from_raw(pid.parse().expect("a number"));
        let event = Instant::now();
        kill(pid, Signal::SIGKILL).expect("it is there");
        event
    });
    nothing_failed_from(&swarm, &report, event, NOTICED);
    severed_within(&swarm, &report, &BTreeSet::from([task]), event, AT_ONCE);
}

#[test]
fn a_container_removed_by_hand_refuses_nobody() {
    let (swarm, report, event, task) =
        a_task_ends("removed", "container removed (docker rm -f)", |swarm, node, task| {
            let event = Instant::now();
            swarm.must(node, &["rm", "-f", task]);
            event
        });
    // The node does it itself, so nobody needs to find out.
    nothing_failed_from(&swarm, &report, event, Duration::ZERO);
    severed_within(&swarm, &report, &BTreeSet::from([task]), event, AT_ONCE);
}

#[test]
fn a_node_without_power_is_avoided() {
    let swarm = Swarm::start_checked("cut");
    swarm.serve_web(4, &[], &["checker"]);
    let (node, lost) = victim(&swarm);
    let others: Vec<u8> = (1..=3).filter(|n| *n != node).collect();
    let load = begin(&swarm, &others);
    swarm.lab.cut_link(node).expect("cut");
    let event = Instant::now();
    let everywhere = || swarm.running("web").len() == 4 && swarm.must(1, &["node", "ls"]).contains("Down");
    swarm.until("its tasks to run elsewhere", everywhere);
    thread::sleep(Duration::from_secs(4));
    let report = load.end();
    report.print("node without power", event);
    nothing_failed_from(&swarm, &report, event, Duration::ZERO);
    nobody_waited_from(&report, event + AVOIDED);
    let twice: Vec<_> =
        report.slow(event).filter(|a| a.took >= ONE_RETRY).map(|a| (a.opened.duration_since(event), a)).collect();
    assert!(twice.is_empty(), "waited for more than one SYN: {twice:#?}\n{}", swarm.words());
    // A node counts as lost after five seconds; what was sent before is sent again at intervals that double.
    severed_within(&swarm, &report, &lost, event, Duration::from_secs(9));
}

#[test]
fn a_node_whose_processes_are_killed_is_avoided() {
    let swarm = Swarm::start_checked("nodekill");
    swarm.serve_web(4, &[], &["checker"]);
    let (node, lost) = victim(&swarm);
    let others: Vec<u8> = (1..=3).filter(|n| *n != node).collect();
    let load = begin(&swarm, &others);
    let event = Instant::now();
    swarm.lab.kill_node(node).expect("killed");
    let dead = Instant::now();
    let everywhere = || swarm.running("web").len() == 4 && swarm.must(1, &["node", "ls"]).contains("Down");
    swarm.until("its tasks to run elsewhere", everywhere);
    thread::sleep(CALM);
    let report = load.end();
    report.print("node killed (all its processes)", event);
    // They do not all die at once.
    nothing_failed_from(&swarm, &report, event, dead + NOTICED - event);
    nobody_waited_from(&report, event);
    severed_within(&swarm, &report, &lost, event, AT_ONCE);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Workers are cut off one after the other, `SKEP_LOSSES` times: how long new connections still meet the tasks that are gone, and how long it takes
/// until others run.
#[test]
fn a_lost_worker_is_avoided_and_its_tasks_replaced_in_time() {
    let swarm = Swarm::start_checked("losses");
    swarm.serve_web(4, &["--restart-delay", "0s"], &["checker"]);
    let tries: u16 = std::env::var("SKEP_LOSSES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let load = begin(&swarm, &[1]);
    let mut losses = Vec::new();
    for _ in 0..tries {
        let (node, lost) = victim(&swarm);
        let event = Instant::now();
        swarm.lab.cut_link(node).expect("cut");
        let elsewhere = |n: &u8| *n != node;
        swarm.until("its tasks to run elsewhere", || {
            let containers = (1..=3).filter(elsewhere).map(|n| swarm.containers(n).len()).sum::<usize>();
            containers == 4 && swarm.running("web").len() == 4
        });
        losses.push((event, event.elapsed()));
        swarm.lab.join_link(node).expect("joined");
        swarm.until("the node to be back, without them", || {
            let listed = swarm.must(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
            listed.contains(&format!("node{node} Ready")) && swarm.containers(node).is_disjoint(&lost)
        });
        thread::sleep(CALM);
    }
    let report = load.end();
    let met = |event: Instant| {
        let mut bad = report.failed(event).chain(report.slow(event)).map(|a| a.opened.duration_since(event));
        bad.by_ref().filter(|after| *after < CALM * 4).max().unwrap_or_default()
    };
    let avoided: Vec<_> = losses.iter().map(|(event, _)| met(*event)).collect();
    let replaced: Vec<_> = losses.iter().map(|(_, replaced)| *replaced).collect();
    println!("lost {tries} times: avoided after {avoided:?}, replaced after {replaced:?}");
    println!("medians: {:?}, {:?}", median(avoided.clone()), median(replaced.clone()));
    // What was under way shares the fate of its task.
    let under_way = |a: &&Attempt| losses.iter().any(|(event, _)| a.opened <= *event && *event <= a.opened + a.took);
    let failed: Vec<_> = report.failed(report.began).filter(|a| !under_way(a)).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", swarm.words());
    assert!(avoided.iter().all(|after| *after <= AVOIDED), "{avoided:?}\n{}", swarm.words());
    assert!(replaced.iter().all(|after| *after <= REPLACED), "{replaced:?}\n{}", swarm.words());
}

/// A daemon gets no time at all for ten seconds, twice as long as a node may be silent: its tasks run and answer, and are not replaced.
#[test]
fn a_daemon_that_is_held_up_loses_no_task() {
    let swarm = Swarm::start_checked("heldup");
    swarm.serve_web(4, &[], &["checker"]);
    let (node, tasks) = victim(&swarm);
    let load = begin(&swarm, &[1, 2, 3]);
    let signal = |signal: Signal| {
        let pid = swarm.lab.daemon_pid(node).expect("its daemon runs");
        kill(Pid::from_raw(pid), signal).expect("it is there");
    };
    let event = Instant::now();
    signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(10));
    signal(Signal::SIGCONT);
    swarm.until("its session to be back", || {
        swarm.must(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).contains(&format!("node{node} Ready"))
    });
    thread::sleep(CALM);
    let report = load.end();
    report.print("daemon held up for 10 s", event);
    nothing_failed_from(&swarm, &report, event, Duration::ZERO);
    nobody_waited_from(&report, event);
    let nobody = BTreeSet::new();
    let broken: Vec<_> = report.broken(&nobody).take(20).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(swarm.containers(node), tasks, "the same tasks");
    assert_eq!(swarm.running("web").len(), 4);
}

/// All tasks of a service are on a node whose daemon is gone for longer than a node may be silent. It is given up and its tasks are replaced, but
/// they answer, and are asked until the others do.
#[test]
fn tasks_without_their_daemon_answer_until_others_do() {
    let swarm = Swarm::start_checked("away");
    let availability = |to: &str| swarm.must(1, &["node", "update", "--availability", to, "node2"]);
    availability("drain");
    swarm.serve_web(2, &["--restart-delay", "0s", "--constraint", "node.hostname!=node1"], &["checker"]);
    availability("active");
    let (node, lost) = victim(&swarm);
    assert_eq!((node, lost.len()), (3, 2), "all of them are on one node");
    let load = begin(&swarm, &[1]);
    let event = Instant::now();
    swarm.lab.kill_daemon(node).expect("killed");
    swarm.until("its tasks to run elsewhere", || swarm.containers(2).len() == 2 && swarm.running("web").len() == 2);
    thread::sleep(CALM);
    swarm.lab.start_daemon(node).expect("started");
    swarm.until("the old ones to be gone", || swarm.containers(node).is_empty());
    thread::sleep(CALM);
    let report = load.end();
    report.print("the daemon of the only node with tasks gone for longer than a heartbeat", event);
    nothing_failed_from(&swarm, &report, event, Duration::ZERO);
    nobody_waited_from(&report, event);
}
