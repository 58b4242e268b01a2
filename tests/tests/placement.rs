//! Where tasks run: host mode, constraints, and what cannot be placed.

use skep_e2e::Swarm;

#[test]
fn host_mode_answers_only_where_the_task_runs_and_with_it() {
    let swarm = Swarm::start("host");
    swarm.must(
        1,
        &[
            "service",
            "create",
            "-d",
            "--name",
            "everywhere",
            "--mode",
            "global",
            "--publish",
            "mode=host,published=8080,target=80",
            "nginx",
        ],
    );
    let hostname = |node: u8| swarm.get("client", &format!("http://{}:8080/hostname", swarm.lab.address(node)));
    for node in 1..=3 {
        swarm.until("every node", || hostname(node).is_ok());
        let own = swarm.must(node, &["ps", "-q"]);
        for _ in 0..4 {
            assert_eq!(hostname(node).as_deref(), Ok(own.as_str()), "node{node} answers with its own task");
        }
    }
}

#[test]
fn a_fixed_host_port_is_taken_once_on_a_node_and_a_free_one_is_found_for_each() {
    let swarm = Swarm::start("hostport");
    let one = [
        "service",
        "create",
        "-d",
        "--name",
        "one",
        "--replicas",
        "2",
        "--constraint",
        "node.hostname==node2",
        "--publish",
        "mode=host,published=8081,target=80",
        "nginx",
    ];
    swarm.must(1, &one);
    let ps = |service: &str| swarm.must(1, &["service", "ps", "--no-trunc", service]);
    swarm.until("the second to say why it waits", || ps("one").contains("host-mode port already in use on 1 node"));
    let get = |node: u8| swarm.get("client", &format!("http://{}:8081/client", swarm.lab.address(node)));
    swarm.until("node2", || get(2).is_ok());
    assert!(get(1).is_err() && get(3).is_err(), "only the node with the task answers");

    swarm.must(
        1,
        &[
            "service",
            "create",
            "-d",
            "--name",
            "high",
            "--replicas",
            "2",
            "--constraint",
            "node.hostname==node3",
            "--publish",
            "mode=host,target=80",
            "nginx",
        ],
    );
    swarm.until("a high port each", || ps("high").matches("->80/tcp").count() == 2);
    let listed = ps("high");
    let port =
        |at: usize| listed.split("->80/tcp").nth(at).and_then(|before| before.rsplit(':').next()).map(str::to_owned);
    assert_ne!(port(0), port(1), "{listed}");
}

#[test]
fn constraints_choose_nodes_and_say_when_nobody_meets_them() {
    let swarm = Swarm::start("constraints");
    let id = swarm.must(1, &["node", "inspect", "--format", "{{.ID}}", "node2"]);
    swarm.must(1, &["node", "update", "--label-add", "zone=east", "node3"]);
    let cases = [
        ("role", "node.role==manager", "node1"),
        ("notrole", "node.role!=worker", "node1"),
        ("hostname", "node.hostname==node3", "node3"),
        ("label", "node.labels.zone==east", "node3"),
    ];
    let by_id = format!("node.id=={id}");
    for (name, constraint, node) in cases.into_iter().chain([("id", by_id.as_str(), "node2")]) {
        swarm.must(1, &["service", "create", "-d", "--name", name, "--constraint", constraint, "nginx"]);
        let where_it_runs = || swarm.must(1, &["service", "ps", name, "--format", "{{.Node}} {{.CurrentState}}"]);
        swarm.until(name, || where_it_runs().starts_with(&format!("{node} Running")));
    }
    swarm.must(1, &["service", "create", "-d", "--name", "nowhere", "--constraint", "node.labels.zone==west", "nginx"]);
    let said = || swarm.must(1, &["service", "ps", "--no-trunc", "nowhere"]);
    swarm.until("the reason", || said().contains("no suitable node (scheduling constraints not satisfied on 3 nodes)"));
    assert!(said().contains("Pending"));
    // Met after all.
    swarm.must(1, &["node", "update", "--label-add", "zone=west", "node2"]);
    swarm.until("the task to run", || swarm.running("nowhere").len() == 1);
}
