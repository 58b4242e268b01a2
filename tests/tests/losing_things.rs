//! What goes on when something ends: a daemon, a task, a node.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::{Probe, Swarm};

fn web(swarm: &Swarm, more: &[&str]) {
    let args = [&["--name", "web", "-p", "8080:80", "--replicas", "2"], more, &["nginx"]].concat();
    swarm.serve(8080, &args);
    swarm.until("both tasks", || swarm.running("web").len() == 2);
}

#[test]
fn daemons_are_killed_and_restarted_and_no_connection_fails() {
    let swarm = Swarm::start("daemons");
    web(&swarm, &[]);
    let before = swarm.running("web");
    let probe = Probe::begin(&swarm, &[1, 2, 3], 8080, 10);
    for node in [2, 1, 3] {
        swarm.lab.kill_daemon(node).expect("killed");
        swarm.lab.start_daemon(node).expect("started again");
    }
    swarm.lab.stop_daemon(1).expect("stopped");
    swarm.lab.start_daemon(1).expect("started again");
    let tally = probe.end();
    println!("daemons killed: {} connections, {} failed", tally.asked, tally.failed.len());
    assert!(tally.failed.is_empty(), "{:?}\n{}", tally.failed, swarm.words());
    swarm.until("all nodes to be back", || swarm.must(1, &["node", "ls"]).matches("Ready").count() == 3);
    assert_eq!(swarm.running("web"), before, "the same tasks run");
}

#[test]
fn a_killed_task_is_replaced_and_hardly_anybody_notices() {
    let swarm = Swarm::start("task");
    web(&swarm, &["--restart-delay", "0s"]);
    let before = swarm.running("web");
    let node = (1..=3).find(|n| !swarm.must(*n, &["ps", "-q"]).is_empty()).expect("a node with a task");
    let id = swarm.must(node, &["ps", "-q"]).lines().next().expect("a container").to_owned();
    let pid = swarm.must(node, &["inspect", "--format", "{{.State.Pid}}", &id]);
    let probe = Probe::begin(&swarm, &[1, 2, 3], 8080, 6);
    thread::sleep(Duration::from_secs(1));
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    let took = swarm.until("a new task", || swarm.running("web").len() == 2 && swarm.running("web") != before);
    let tally = probe.end();
    println!("task killed: replaced after {took:?}; {} connections, {} failed", tally.asked, tally.failed.len());
    // Those that were open when it died are lost; no later one may be.
    assert!(tally.failed.len() < 20, "{:?}", tally.failed);
}

#[test]
fn the_tasks_of_a_lost_node_run_elsewhere_and_nobody_is_sent_there() {
    let swarm = Swarm::start("node");
    web(&swarm, &[]);
    // Somewhere else than on the manager, so that there is something to lose.
    swarm.must(1, &["service", "update", "-d", "--constraint-add", "node.role==worker", "web"]);
    let on = |node: &str| {
        swarm
            .must(
                1,
                &[
                    "service",
                    "ps",
                    "web",
                    "--filter",
                    "desired-state=running",
                    "--format",
                    "{{.Node}} {{.CurrentState}}",
                ],
            )
            .lines()
            .filter(|l| l.starts_with(node) && l.contains(" Running"))
            .count()
    };
    swarm.until("a task on each worker", || on("node2") == 1 && on("node3") == 1);
    swarm.lab.kill_node(3).expect("killed");
    let lost = Instant::now();
    swarm.until("both tasks on node2", || on("node2") == 2);
    println!("node lost: its task ran elsewhere after {:?}", lost.elapsed());
    let tally = Probe::begin(&swarm, &[1, 2], 8080, 3).end();
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    assert!(swarm.must(1, &["node", "ls"]).contains("Down"));
}

#[test]
fn a_rolling_update_loses_no_request() {
    let swarm = Swarm::start("rolling");
    web(&swarm, &[]);
    let before = swarm.running("web");
    let probe = Probe::begin(&swarm, &[1, 2, 3], 8080, 16);
    for order in ["stop-first", "start-first"] {
        swarm.must(
            1,
            &["service", "update", "-d", "--force", "--update-order", order, "--update-monitor", "500ms", "web"],
        );
        let state = || swarm.must(1, &["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]);
        swarm.until("the update", || state() == "completed");
    }
    let tally = probe.end();
    println!("rolling updates: {} connections, {} failed", tally.asked, tally.failed.len());
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    assert!(swarm.running("web").iter().all(|task| !before.contains(task)), "all tasks were replaced");
}
