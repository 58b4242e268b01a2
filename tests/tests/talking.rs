//! Tasks on networks of their own: whom they find, whom they reach, and how they get out.

use skep_e2e::{Swarm, busybox};

/// Three nodes; `web` on all of them and `cli` on the second, on one network; `other` on the third, on another one that is internal.
fn start(story: &str) -> Swarm {
    let swarm = Swarm::start(story);
    swarm.load(&busybox());
    swarm.must(1, &["network", "create", "-d", "overlay", "app"]);
    swarm.must(1, &["network", "create", "-d", "overlay", "--internal", "dark"]);
    swarm.serve(8080, &["--name", "web", "--network", "app", "--mode", "global", "-p", "8080:80", "nginx"]);
    let create = |name: &str, network: &str, node: &str| {
        let node = format!("node.hostname=={node}");
        swarm.must(1, &["service", "create", "-d", "--name", name, "--network", network, "--constraint", &node, "box"]);
    };
    create("cli", "app", "node2");
    create("other", "dark", "node3");
    swarm.until("all tasks", || {
        [("web", 3), ("cli", 1), ("other", 1)].iter().all(|(name, tasks)| swarm.running(name).len() == *tasks)
    });
    swarm
}

fn ask(swarm: &Swarm, node: u8, service: &str, url: &str) -> Option<String> {
    swarm.inside(node, service, &["timeout", "4", "wget", "-q", "-O", "-", url])
}

/// The address that a name leads to in a task.
fn address(swarm: &Swarm, node: u8, service: &str, name: &str) -> String {
    let said = swarm.inside(node, service, &["nslookup", "-type=a", name]).unwrap_or_default();
    let found = said.lines().filter_map(|line| line.strip_prefix("Address: ")).next_back();
    found.unwrap_or_else(|| panic!("{name}: {said}")).to_owned()
}

#[test]
fn tasks_find_and_reach_those_on_their_networks_and_nobody_else() {
    let swarm = start("talking");
    let own = swarm.inside(2, "cli", &["hostname", "-i"]).expect("its addresses");
    let own = own.split_whitespace().next().expect("an address");
    // By the service's own address, and by each task's, wherever it runs; and the task sees who asks.
    for _ in 0..6 {
        assert_eq!(ask(&swarm, 2, "cli", "http://web/client").as_deref(), Some(own));
    }
    let said = swarm.inside(2, "cli", &["nslookup", "-type=a", "tasks.web"]).expect("an answer");
    let tasks: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("Address: ")).collect();
    assert_eq!(tasks.len(), 3, "{said}");
    for task in tasks {
        assert_eq!(ask(&swarm, 2, "cli", &format!("http://{task}/client")).as_deref(), Some(own), "{task}");
        assert!(swarm.inside(2, "cli", &["ping", "-c", "1", "-W", "3", task]).is_some(), "{task}");
    }
    assert!(swarm.inside(2, "cli", &["ping", "-c", "1", "-W", "3", "web"]).is_some());
    // Another network's is neither named nor reached, by any of its addresses.
    assert!(swarm.inside(2, "cli", &["nslookup", "-type=a", "other"]).is_none());
    for name in ["other", "tasks.other"] {
        let address = address(&swarm, 3, "other", name);
        assert!(ask(&swarm, 3, "other", &format!("http://{address}/client")).is_some(), "{name}");
        assert!(ask(&swarm, 2, "cli", &format!("http://{address}/client")).is_none(), "{name}");
    }
    // A daemon that starts again changes none of it.
    swarm.lab.kill_daemon(2).expect("killed");
    swarm.lab.start_daemon(2).expect("started");
    swarm.until("names in its tasks", || ask(&swarm, 2, "cli", "http://web/client").as_deref() == Some(own));
}

#[test]
fn tasks_reach_the_world_outside_unless_their_networks_are_internal() {
    let swarm = start("outside");
    let argv = ["python3", "-m", "http.server", "--bind", "0.0.0.0", "8000"].map(str::to_owned);
    let mut server = swarm.lab.exec("client", &argv).expect("a place").spawn().expect("python");
    let outside = format!("http://{}:8000/", swarm.lab.client_address());
    swarm.until("the world outside", || ask(&swarm, 2, "cli", &outside).is_some());
    assert!(swarm.inside(2, "cli", &["ping", "-c", "1", "-W", "3", &swarm.lab.client_address().to_string()]).is_some());
    assert!(ask(&swarm, 3, "other", &outside).is_none(), "its network is internal");
    server.kill().expect("it runs");
    server.wait().expect("it ends");
}
