//! The routing mesh's network, replaced by one of the operator's choice.

use std::net::IpAddr;
use std::process::Command;

use skep_e2e::{Swarm, busybox, nginx};

/// Three nodes; `quiet`, which publishes nothing, on the second.
fn start(story: &str) -> Swarm {
    let swarm = Swarm::managed(story, 3, 1);
    swarm.load(&nginx());
    swarm.load(&busybox());
    let node = ["--constraint", "node.hostname==node2", "--update-monitor", "1s"];
    swarm.must(1, &[&["service", "create", "-d", "--name", "quiet"][..], &node, &["box"]].concat());
    swarm.until("quiet", || swarm.running("quiet").len() == 1);
    swarm
}

/// What the routes of `quiet` say.
fn routes(swarm: &Swarm, family: &str) -> String {
    let inside = format!("--net={}", swarm.namespace(2, "quiet").display());
    let said = Command::new("nsenter").args([&inside, "ip", family, "route"]).output().expect("nsenter runs");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// The answers of all nodes, by both of the first node's families too.
fn answers(swarm: &Swarm, port: u16) -> bool {
    let v6 = format!("http://[{}]:{port}/client", swarm.lab.ipv6(1)[0]);
    (1..=3).all(|node| swarm.client(node, port).is_ok()) && swarm.get("client", &v6).is_ok()
}

#[test]
fn the_ingress_network_is_replaced_and_ports_are_published_on_the_new_one() {
    let swarm = start("ingress");
    swarm.serve(8080, &["--name", "web", "-p", "8080:80", "nginx"]);
    let said = swarm.docker_with(1, &["network", "rm", "ingress"], "y");
    assert!(!said.ok && said.err.contains("ingress network cannot be removed because service"), "{said:?}");
    swarm.must(1, &["service", "rm", "web"]);
    let said = swarm.docker_with(1, &["network", "rm", "ingress"], "n");
    assert!(said.out.contains("Are you sure you want to continue?"), "{said:?}");
    assert_eq!(swarm.must(1, &["network", "ls", "--format", "{{.Name}}"]), "ingress");
    let (task, before) = (swarm.running("quiet"), routes(&swarm, "-4"));
    let said = swarm.docker_with(1, &["network", "rm", "ingress"], "y");
    assert!(said.ok, "{said:?}");

    // Nothing is published on all nodes without one; all else goes on.
    swarm.until("no network", || (1..=3).all(|node| swarm.must(node, &["network", "ls", "-q"]).is_empty()));
    swarm.refused(1, &["network", "inspect", "ingress"], "not found");
    swarm.refused(
        1,
        &["service", "create", "--name", "web", "-p", "8080:80", "nginx"],
        "service needs ingress network, but no ingress network is present",
    );
    let host = ["-p", "mode=host,published=8081,target=80", "--constraint", "node.hostname==node3"];
    swarm.must(1, &[&["service", "create", "-d", "--name", "host"], &host[..], &["nginx"]].concat());
    swarm.until("a port in host mode", || swarm.client(3, 8081).is_ok());
    let lab = swarm.lab.client_address().to_string();
    assert!(swarm.inside(2, "quiet", &["ping", "-c", "1", "-W", "3", &lab]).is_some(), "it has its way out");

    let addresses = ["--subnet", "10.200.0.0/16", "--gateway", "10.200.0.2"];
    let create = ["network", "create", "-d", "overlay", "--ingress"];
    let with = |rest: &[&'static str]| [&create[..], rest].concat();
    swarm.refused(1, &with(&["--opt", "com.docker.network.driver.mtu=big", "mine"]), "no size of a packet");
    swarm.refused(1, &with(&["--subnet", "10.0.0.0/16", "mine"]), "on which tasks still have addresses");
    swarm.must(1, &with(&[&addresses[..], &["--opt", "com.docker.network.driver.mtu=1200", "mine"]].concat()));
    swarm.refused(1, &with(&["second"]), "is already present");
    assert_eq!(swarm.must(3, &["network", "ls", "--format", "{{.Name}}"]), "mine");
    assert_eq!(swarm.running("quiet"), task);
    assert_eq!(routes(&swarm, "-4"), before);
    assert!(swarm.client(3, 8081).is_ok(), "nor was it disturbed");

    swarm.serve(8080, &["--name", "web", "--mode", "global", "-p", "8080:80", "nginx"]);
    swarm.until("all families", || answers(&swarm, 8080));
    // A client on a node itself is seen by that node's new address.
    let seen: IpAddr = swarm.get("node2", "http://127.0.0.1:8080/client").expect("an answer").parse().expect("one");
    assert!(seen.to_string().starts_with("10.200.0."), "{seen}");

    // What published nothing is replaced when it does, and is on the new network then.
    swarm.must(1, &["service", "update", "-d", "--publish-add", "9090:80", "quiet"]);
    swarm.until("quiet on all nodes", || answers(&swarm, 9090));
    assert_ne!(swarm.running("quiet"), task);
    let now = routes(&swarm, "-4");
    assert!(now.contains("src 10.200.") && now.contains("mtu 1200"), "{now}");
    assert!(routes(&swarm, "-6").contains("mtu 1280"), "IPv6 has no smaller packets");
}
