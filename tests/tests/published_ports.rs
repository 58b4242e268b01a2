//! Publish a service's port, and every node answers.

use std::collections::BTreeSet;

use bollard::Docker;
use bollard::query_parameters::{InspectServiceOptions, ListTasksOptions};
use serde_json::{Value, json};
use skep_e2e::{Said, Swarm};

fn task_pid(swarm: &Swarm) -> String {
    let container = (1..=3).find_map(|n| {
        let listed = swarm.must(n, &["ps", "-q"]);
        listed.lines().next().map(|id| (n, id.to_owned()))
    });
    let (node, id) = container.expect("a container runs somewhere");
    swarm.must(node, &["inspect", "--format", "{{.State.Pid}}", &id])
}

#[test]
fn every_address_of_every_node_answers_and_the_task_sees_the_client() {
    let swarm = Swarm::start("ports");
    // The CLI's own progress display must converge by itself.
    let create =
        ["service", "create", "--name", "my-web", "--publish", "published=8080,target=80", "--replicas", "2", "nginx"];
    assert!(swarm.must(1, &create).contains("converged"));

    let outside = swarm.lab.client_address().to_string();
    let mut tasks = BTreeSet::new();
    for node in 1..=3 {
        for address in swarm.lab.addresses(node) {
            let saw = swarm.get("client", &format!("http://{address}:8080/client")).expect("it answers");
            assert!(saw == outside || saw.ends_with(".100"), "the client's address arrives: {saw}");
        }
        for _ in 0..8 {
            tasks.insert(
                swarm.get("client", &format!("http://{}:8080/hostname", swarm.lab.address(node))).expect("it answers"),
            );
        }
        let place = format!("node{node}");
        swarm.get(&place, "http://127.0.0.1:8080/client").expect("a node reaches itself by 127.0.0.1");
        swarm.get(&place, &format!("http://{}:8080/client", swarm.lab.address(node))).expect("and by its own address");
    }
    assert_eq!(tasks.len(), 2, "both tasks answer");
    assert_eq!(swarm.client(3, 8080).as_deref(), Ok(outside.as_str()));

    let pid = task_pid(&swarm);
    for node in 1..=3 {
        let url = format!("http://{}:8080/client", swarm.lab.address(node));
        let inside = std::process::Command::new("nsenter")
            .args(["-t", &pid, "-n", "curl", "-sS", "--max-time", "3", &url])
            .output();
        let inside = Said::from(inside.expect("nsenter runs"));
        assert!(inside.ok, "a task reaches node{node}: {}", inside.err);
    }
    swarm.until("the access log", || swarm.must(1, &["service", "logs", "my-web"]).contains(&outside));
    what_the_api_says(&swarm);
}

/// The same by another client than docker's own.
fn what_the_api_says(swarm: &Swarm) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = swarm.lab.socket(1);
        let api =
            Docker::connect_with_unix(&socket.to_string_lossy(), 10, bollard::API_DEFAULT_VERSION).expect("a client");
        let api = api.negotiate_version().await.expect("a version in common");
        let service = api.inspect_service("my-web", None::<InspectServiceOptions>).await.expect("the service");
        let ports = service.endpoint.and_then(|e| e.ports).expect("ports");
        assert_eq!((ports[0].published_port, ports[0].target_port), (Some(8080), Some(80)));
        let tasks = api.list_tasks(None::<ListTasksOptions>).await.expect("tasks");
        assert_eq!(tasks.len(), 2);
    });
}

#[test]
fn ports_can_be_written_in_every_way_that_docker_knows() {
    let swarm = Swarm::start("ways");
    let client = |command: &str| -> Said {
        let argv = ["bash", "-c", command].map(str::to_owned);
        swarm.lab.exec("client", &argv).expect("a place").output().expect("bash runs").into()
    };
    swarm.serve(8081, &["--name", "short", "-p", "8081:80", "nginx"]);
    swarm.must(
        1,
        &[
            "service",
            "create",
            "-d",
            "--name",
            "dns",
            "--publish",
            "published=53,target=53,protocol=udp",
            "-p",
            "53:53",
            "echo",
        ],
    );
    for node in 1..=3 {
        let udp = format!("exec 3<>/dev/udp/{}/53; echo hello >&3; timeout 2 head -n 1 <&3", swarm.lab.address(node));
        swarm.until("udp", || client(&udp).out == "hello");
        let tcp = format!("exec 3<>/dev/tcp/{}/53; timeout 2 head -n 1 <&3", swarm.lab.address(node));
        swarm.until("tcp on the same number", || client(&tcp).out == "tcp");
    }
    swarm.must(1, &["service", "create", "-d", "--name", "any", "--publish", "target=80", "nginx"]);
    let port: u16 = swarm
        .must(1, &["service", "inspect", "--format", "{{(index .Endpoint.Ports 0).PublishedPort}}", "any"])
        .parse()
        .expect("a port");
    assert!((30_000..=32_767).contains(&port), "{port}");
    swarm.until("the chosen port", || (1..=3).all(|n| swarm.client(n, port).is_ok()));
    for shown in [&["service", "ls"][..], &["service", "ps", "any"], &["service", "inspect", "--pretty", "any"]] {
        let shown = swarm.must(1, shown);
        assert!(shown.contains(&port.to_string()), "{port}: {shown}");
    }

    let spec = swarm.must(1, &["service", "inspect", "--format", "{{json .Endpoint.Spec.Ports}}", "short"]);
    let spec: Value = serde_json::from_str(&spec).expect("JSON");
    assert_eq!(spec, json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8081, "PublishMode": "ingress"}]));
}

#[test]
fn ports_are_added_and_removed_live_and_no_task_notices() {
    let swarm = Swarm::start("live");
    swarm.serve(8080, &["--name", "my-web", "--publish", "published=8080,target=80", "--replicas", "2", "nginx"]);
    swarm.until("both tasks", || swarm.running("my-web").len() == 2);
    let before = swarm.running("my-web");

    swarm.must(1, &["service", "update", "-d", "--publish-add", "published=9090,target=81", "my-web"]);
    let refused = "the new port to be there: nothing listens on 81";
    swarm.until(refused, || {
        swarm
            .client(3, 9090)
            .is_err_and(|e| e.contains("refused") || e.contains("Couldn't connect") || e.contains("Failed to connect"))
    });
    swarm.must(1, &["service", "update", "-d", "--publish-rm", "81", "my-web"]);

    swarm.must(1, &["service", "update", "-d", "--publish-add", "published=9091,target=80", "my-web"]);
    let took = swarm.until("the new port", || (1..=3).all(|n| swarm.client(n, 9091).is_ok()));
    println!("publish-add: every node answered {took:?} after the command returned");
    assert!(took.as_secs() < 2);
    swarm.must(1, &["service", "update", "-d", "--publish-rm", "80", "my-web"]);
    swarm.until("the ports to be gone", || {
        (1..=3).all(|n| swarm.client(n, 9091).is_err() && swarm.client(n, 8080).is_err())
    });
    assert_eq!(swarm.running("my-web"), before, "the same tasks run");
}
