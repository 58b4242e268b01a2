//! Planned changes under a demanding client: no request fails, and no connection ends but with its task, and then in order.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::{End, Load, Outcome, PORT, Report, Server, Swarm, Usage};

/// How long the client watches before something happens, and after.
const CALM: Duration = Duration::from_millis(1500);

/// Lets `change` happen under load. `server` says what runs.
fn under_load(swarm: &Swarm, server: Server, story: &str, change: impl FnOnce()) -> (Report, Instant) {
    let load = Load::begin(swarm, server, &[1, 2, 3], PORT);
    thread::sleep(CALM);
    let event = Instant::now();
    change();
    thread::sleep(CALM);
    let report = load.end();
    report.print(story, event);
    (report, event)
}

/// Nothing failed, nothing was slow, and of what was kept only connections to tasks that are gone have ended, in order.
fn nothing_lost(swarm: &Swarm, report: &Report, gone: &BTreeSet<String>) {
    let bad: Vec<_> = report.asked.iter().filter(|attempt| attempt.outcome != Outcome::Ok).take(20).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}", swarm.words());
    let broken: Vec<_> = report.broken(gone).chain(report.shut_out(report.began)).take(20).collect();
    assert!(broken.is_empty(), "not by their tasks: {broken:#?}\n{}", swarm.words());
    for kept in report.severed(gone) {
        let in_order = match kept.usage {
            Usage::Long => matches!(kept.end, End::Dismissed | End::Closed),
            Usage::Idle => kept.end == End::Closed,
        };
        assert!(in_order, "not ended in order: {kept:#?}\n{}", swarm.words());
    }
}

#[test]
fn a_rolling_update_loses_nothing_in_either_order() {
    let swarm = Swarm::start_checked("rolling");
    swarm.serve_web(2, &[], &["checker"]);
    for order in ["stop-first", "start-first"] {
        let gone = swarm.all_containers();
        let update = || swarm.roll(&["--update-order", order]);
        let (report, _) = under_load(&swarm, Server::Checker, &format!("update, {order}"), update);
        nothing_lost(&swarm, &report, &gone);
    }
}

#[test]
fn the_only_task_is_replaced_again_and_again_and_somebody_is_always_there() {
    let swarm = Swarm::start_checked("single");
    swarm.serve_web(1, &["--update-order", "start-first"], &["checker"]);
    let mut gone = swarm.all_containers();
    let (report, _) = under_load(&swarm, Server::Checker, "three updates of a single task, start-first", || {
        for _ in 0..3 {
            swarm.roll(&[]);
            gone.extend(swarm.all_containers());
        }
    });
    let last = swarm.all_containers();
    nothing_lost(&swarm, &report, &gone.difference(&last).cloned().collect());
}

#[test]
fn a_rolling_update_of_a_real_nginx_loses_nothing_in_either_order() {
    let swarm = Swarm::start("nginx");
    swarm.serve_web(2, &[], &["nginx"]);
    for order in ["stop-first", "start-first"] {
        let update = || swarm.roll(&["--update-order", order]);
        let (report, _) = under_load(&swarm, Server::Nginx, &format!("update of nginx, {order}"), update);
        nothing_lost(&swarm, &report, &BTreeSet::new());
    }
}

#[test]
fn an_app_that_listens_late_is_waited_for_without_a_health_check() {
    let swarm = Swarm::start_checked("late");
    swarm.serve_web(2, &[], &["checker", "80", "3"]);
    for (order, parallelism) in [("stop-first", "1"), ("start-first", "2")] {
        let gone = swarm.all_containers();
        let update = || swarm.roll(&["--update-order", order, "--update-parallelism", parallelism]);
        let story = format!("update of an app that listens after 3 s, {order}");
        let (report, _) = under_load(&swarm, Server::Checker, &story, update);
        nothing_lost(&swarm, &report, &gone);
    }
}

#[test]
fn nine_of_ten_tasks_are_taken_away_and_nobody_notices() {
    let swarm = Swarm::start_checked("scale");
    swarm.serve_web(10, &[], &["checker"]);
    let before = swarm.all_containers();
    let (report, event) = under_load(&swarm, Server::Checker, "scale 10 to 1", || {
        swarm.must(1, &["service", "scale", "-d", "web=1"]);
        swarm.until("one container to be left", || swarm.all_containers().len() == 1);
    });
    let left = swarm.all_containers();
    nothing_lost(&swarm, &report, &before.difference(&left).cloned().collect());
    assert!(report.survivors(Usage::Idle, event) > 0, "idle connections to the task that is left stay");
}

#[test]
fn a_node_is_drained_and_nobody_notices() {
    let swarm = Swarm::start_checked("drain");
    swarm.serve_web(4, &[], &["checker"]);
    let node = (2..=3).max_by_key(|node| swarm.containers(*node).len()).expect("two nodes");
    let gone = swarm.containers(node);
    assert!(!gone.is_empty());
    let (report, event) = under_load(&swarm, Server::Checker, "node drained", || {
        swarm.must(1, &["node", "update", "--availability", "drain", &format!("node{node}")]);
        swarm.until("its containers to be gone", || swarm.containers(node).is_empty());
        swarm.until("others to run", || swarm.running("web").len() == 4);
    });
    nothing_lost(&swarm, &report, &gone);
    assert!(report.survivors(Usage::Idle, event) > 0, "idle connections to other nodes' tasks stay");
}

#[test]
fn daemons_are_restarted_and_killed_and_no_connection_notices() {
    let swarm = Swarm::start_checked("daemons");
    swarm.serve_web(2, &[], &["checker"]);
    let tasks = swarm.running("web");
    let (report, event) = under_load(&swarm, Server::Checker, "daemons restarted and killed", || {
        for node in [2, 1, 3] {
            swarm.lab.stop_daemon(node).expect("stopped");
            swarm.lab.start_daemon(node).expect("started again");
        }
        for node in [3, 1, 2] {
            swarm.lab.kill_daemon(node).expect("killed");
            swarm.lab.start_daemon(node).expect("started again");
        }
        swarm.until("all nodes to be back", || swarm.must(1, &["node", "ls"]).matches("Ready").count() == 3);
    });
    nothing_lost(&swarm, &report, &BTreeSet::new());
    assert_eq!(report.kept.len(), report.survivors(Usage::Idle, event) + report.survivors(Usage::Long, event));
    assert_eq!(swarm.running("web"), tasks, "the same tasks run");
}
