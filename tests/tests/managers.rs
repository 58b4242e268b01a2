//! Several managers: who is one, who leads, and what goes on while that changes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::Swarm;

/// Until another manager takes a write after the leader was lost, at the worst.
const FAILOVER: Duration = Duration::from_secs(3);
/// What somebody who asks without a leader waits for at the most to be told so, and the time that a command line needs.
const TOLD: Duration = Duration::from_millis(2500);

/// The node that leads, as any manager of these says.
fn leader(swarm: &Swarm, nodes: &[u8]) -> u8 {
    let mut found = None;
    swarm.until("a leader", || {
        found = nodes.iter().find_map(|node| {
            let said = swarm.docker(*node, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
            let line = said.out.lines().find_map(|line| line.strip_suffix(" Leader")).map(str::to_owned);
            line.and_then(|host| host.strip_prefix("node")?.parse().ok())
        });
        found.is_some()
    });
    found.expect("it was found")
}

/// Hostname and what it is among the managers, of each node.
fn standing(swarm: &Swarm, node: u8) -> BTreeSet<String> {
    let listed = swarm.must(node, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    listed.lines().map(|line| line.trim().to_owned()).collect()
}

/// Every manager votes and answers, as one of them says once it can.
fn whole(swarm: &Swarm, node: u8, managers: usize) {
    swarm.until("all managers to be reachable", || {
        let said = swarm.docker(node, &["node", "ls", "--format", "{{.ManagerStatus}}"]);
        let good = said.out.lines().filter(|standing| ["Leader", "Reachable"].contains(&standing.trim()));
        said.ok && good.count() == managers
    });
}

fn load_nginx(swarm: &Swarm) {
    let image = skep_e2e::nginx().to_string_lossy().into_owned();
    (1..=swarm.lab.nodes()).for_each(|node| drop(swarm.must(node, &["load", "-i", &image])));
}

fn ids(swarm: &Swarm, node: u8) -> BTreeSet<String> {
    swarm.must(node, &["service", "ls", "-q"]).lines().map(str::to_owned).collect()
}

fn create(name: &str, port: u16) -> Vec<String> {
    let publish = format!("{port}:80");
    let args =
        ["service", "create", "-d", "--no-resolve-image", "--name", name, "--replicas", "0", "-p", &publish, "nginx"];
    args.map(str::to_owned).to_vec()
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn any_manager_takes_requests_while_managers_come_and_go() {
    let swarm = Swarm::managed("roles", 4, 3);
    whole(&swarm, 2, 3);
    assert_eq!(standing(&swarm, 3), standing(&swarm, 1));
    swarm.refused(4, &["node", "ls"], "This node is not a swarm manager. Worker nodes can't be used");

    let stop = AtomicBool::new(false);
    let created = thread::scope(|scope| {
        // Somebody goes on creating services all the while, by a manager that is one all the while.
        let creating = scope.spawn(|| {
            let mut made = BTreeSet::new();
            for number in 0u16.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                made.insert(swarm.must(3, &words(&create(&format!("s{number}"), 10_000 + number))));
            }
            made
        });
        swarm.must(2, &["node", "promote", "node4"]);
        whole(&swarm, 1, 4);
        swarm.must(4, &["service", "ls"]);
        swarm.must(4, &["node", "demote", "node2"]);
        swarm.until("node2 to be a worker", || !swarm.docker(2, &["node", "ls"]).ok);
        // The one that leads goes too, and the others go on.
        assert_eq!(leader(&swarm, &[3]), 1);
        swarm.must(1, &["node", "demote", "node1"]);
        swarm.until("node1 to be a worker", || !swarm.docker(1, &["node", "ls"]).ok);
        whole(&swarm, 4, 2);
        swarm.must(4, &["node", "promote", "node1", "node2"]);
        whole(&swarm, 3, 4);
        swarm.must(2, &["node", "demote", "node4"]);
        swarm.until("node4 to be a worker", || !swarm.docker(4, &["node", "ls"]).ok);
        stop.store(true, Ordering::Relaxed);
        creating.join().expect("nothing was refused")
    });
    assert!(created.len() > 5, "{}", created.len());
    for node in 1..=3 {
        let known = ids(&swarm, node);
        assert!(created.iter().all(|id| known.iter().any(|known| id.starts_with(known.as_str()))), "node{node}");
    }
    let ports: Vec<_> =
        swarm.must(1, &["service", "ls", "--format", "{{.Ports}}"]).lines().map(str::to_owned).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "every port is given once");
    println!("{} services were created while six roles changed", created.len());

    swarm.refused(1, &["node", "rm", "--force", "node2"], "is a cluster manager");
    swarm.must(1, &["node", "demote", "node2"]);
    swarm.must(1, &["node", "rm", "--force", "node2"]);
    assert!(!standing(&swarm, 3).iter().any(|line| line.starts_with("node2")));
    // A manager leaves: by the way it does not, but with force, and the others do without it.
    swarm.refused(3, &["swarm", "leave"], "participating as a manager");
    swarm.must(4, &["swarm", "leave"]);
    swarm.must(1, &["node", "promote", "node1"]);
}

#[test]
fn a_lost_leader_is_replaced() {
    let swarm = Swarm::managed("leader", 3, 3);
    whole(&swarm, 1, 3);
    let mut waited = Vec::new();
    let tries: u16 = std::env::var("SKEP_FAILOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for attempt in 0..tries {
        let lost = leader(&swarm, &[1, 2, 3]);
        let other = lost % 3 + 1;
        let kill = attempt % 2 == 0;
        let event = Instant::now();
        if kill {
            swarm.lab.kill_daemon(lost).expect("killed");
        } else {
            swarm.lab.cut_link(lost).expect("cut");
        }
        swarm.must(other, &words(&create(&format!("s{attempt}"), 10_000 + attempt)));
        waited.push(event.elapsed());
        println!(
            "leader {}: a write was taken after {:?}",
            if kill { "killed" } else { "cut off" },
            waited[waited.len() - 1]
        );
        assert_ne!(leader(&swarm, &[other]), lost);
        if kill {
            swarm.lab.start_daemon(lost).expect("started");
        } else {
            swarm.lab.join_link(lost).expect("joined");
        }
        whole(&swarm, other, 3);
        swarm.until("the lost one to know", || ids(&swarm, lost).len() == usize::from(attempt) + 1);
    }
    waited.sort();
    println!("leader lost {tries} times: median {:?}, worst {:?}", waited[waited.len() / 2], waited[waited.len() - 1]);
    assert!(waited.iter().all(|waited| *waited < FAILOVER), "{waited:?}");
}

#[test]
fn without_a_majority_nothing_changes_and_everything_runs_on() {
    let swarm = Swarm::managed("quorum", 4, 3);
    whole(&swarm, 1, 3);
    load_nginx(&swarm);
    let only = ["--name", "web", "--constraint", "node.hostname==node4", "--publish", "8080:80", "nginx"];
    swarm.serve(8080, &only);
    let before = ids(&swarm, 3);
    for lost in 1..=2 {
        swarm.lab.kill_daemon(lost).expect("killed");
    }
    let event = Instant::now();
    while event.elapsed() < Duration::from_secs(8) {
        for asked in [&["node", "ls"][..], &["service", "ls"], &words(&create("late", 10_000))] {
            let began = Instant::now();
            swarm.refused(3, asked, "The swarm does not have a leader");
            assert!(began.elapsed() < TOLD, "docker {}: {:?}", asked.join(" "), began.elapsed());
        }
        assert_eq!(swarm.client(3, 8080), Ok(swarm.lab.client_address().to_string()));
    }
    for lost in 1..=2 {
        swarm.lab.start_daemon(lost).expect("started");
    }
    whole(&swarm, 3, 3);
    assert_eq!(ids(&swarm, 1), before, "nothing that was refused was done after all");
    assert_eq!(swarm.client(4, 8080), Ok(swarm.lab.client_address().to_string()));
}

#[test]
fn one_that_is_left_goes_on_alone_and_the_others_come_back_as_workers() {
    let swarm = Swarm::managed("alone", 3, 3);
    whole(&swarm, 1, 3);
    load_nginx(&swarm);
    swarm.serve(8080, &["--name", "web", "--replicas", "3", "--publish", "8080:80", "nginx"]);
    let told = ["service", "inspect", "web", "--format", "{{.ID}} {{json .Spec}} {{json .Endpoint}}"];
    let before = swarm.must(3, &told);
    for lost in 1..=2 {
        swarm.lab.kill_daemon(lost).expect("killed");
    }
    swarm.refused(3, &["service", "ls"], "The swarm does not have a leader");
    swarm.refused(3, &["swarm", "init"], "This node is already part of a swarm");
    swarm.must(3, &["swarm", "init", "--force-new-cluster"]);
    assert_eq!(swarm.must(3, &told), before, "services, ports and addresses are as they were");
    swarm.must(3, &words(&create("new", 10_000)));
    assert!(standing(&swarm, 3).contains("node3 Leader"));
    swarm.refused(3, &["node", "demote", "node3"], "attempting to demote the last manager");

    // Those that come back have another majority on their disks, and do not get it.
    for back in 1..=2 {
        swarm.lab.start_daemon(back).expect("started");
    }
    let workers = |node: u8| swarm.docker(node, &["node", "ls"]).err.contains("Worker nodes can't be used");
    swarm.until("the others to be workers", || workers(1) && workers(2));
    swarm.until("all to be ready", || {
        swarm.must(3, &["node", "ls", "--format", "{{.Status}}"]).lines().all(|status| status == "Ready")
    });
    swarm.must(3, &["node", "promote", "node1", "node2"]);
    whole(&swarm, 3, 3);
    assert_eq!(ids(&swarm, 1), ids(&swarm, 3));
    assert_eq!(ids(&swarm, 2), ids(&swarm, 3));
    swarm.until("all nodes to answer", || (1..=3).all(|node| swarm.client(node, 8080).is_ok()));
}

#[test]
fn a_locked_manager_manages_only_with_the_key_and_its_tasks_run_without() {
    let swarm = Swarm::managed("locked", 3, 3);
    whole(&swarm, 1, 3);
    load_nginx(&swarm);
    swarm.serve(8080, &["--name", "web", "--replicas", "3", "--publish", "8080:80", "nginx"]);
    swarm.must(2, &["swarm", "update", "--autolock=true"]);
    let key = swarm.must(1, &["swarm", "unlock-key", "-q"]);
    assert!(key.starts_with("SWMKEY-1-"), "{key}");
    let wrapped = |node: u8| {
        let file = swarm.lab.data_root(node).join("raft/key.json");
        !std::fs::read_to_string(file).expect("a key file").contains("\"plain\"")
    };
    swarm.until("all managers to be locked", || (1..=3).all(wrapped));

    swarm.lab.stop_daemon(3).expect("stopped");
    swarm.lab.start_daemon(3).expect("started");
    swarm.refused(3, &["node", "ls"], "Swarm is encrypted and needs to be unlocked");
    assert_eq!(swarm.must(3, &["info", "--format", "{{.Swarm.LocalNodeState}}"]), "locked");
    assert_eq!(swarm.client(3, 8080), Ok(swarm.lab.client_address().to_string()), "the mesh does not need it");
    swarm.until("the node to be ready", || {
        let said = swarm.must(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"]);
        said.contains("node3 Ready Unreachable")
    });
    let unlock = |node: u8, key: &str| swarm.docker_with(node, &["swarm", "unlock"], key);
    let wrong = unlock(3, "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert!(!wrong.ok && wrong.err.contains("invalid key provided"), "{}", wrong.err);
    swarm.refused(3, &["node", "ls"], "Swarm is encrypted and needs to be unlocked");
    let unlocked = unlock(3, &key);
    assert!(unlocked.ok, "{}", unlocked.err);
    whole(&swarm, 3, 3);

    let rotated = swarm.must(3, &["swarm", "unlock-key", "--rotate", "-q"]);
    assert_ne!(rotated, key);
    swarm.lab.stop_daemon(2).expect("stopped");
    swarm.lab.start_daemon(2).expect("started");
    assert!(!unlock(2, &key).ok, "the old key opens nothing any more");
    assert!(unlock(2, &rotated).ok);
    whole(&swarm, 2, 3);
    swarm.must(2, &["swarm", "update", "--autolock=false"]);
    swarm.until("no manager to be locked", || !(1..=3).any(wrapped));
    swarm.lab.stop_daemon(1).expect("stopped");
    swarm.lab.start_daemon(1).expect("started");
    whole(&swarm, 1, 3);
}
