//! What people see of a service, HAProxy in front, and that nothing is left in the end.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::{PATIENCE, Swarm, binary};
use skep_mesh::traces;

#[test]
fn services_nodes_and_networks_are_shown_as_docker_shows_them() {
    let swarm = Swarm::start("seen");
    swarm.serve(8080, &["--name", "my-web", "-p", "8080:80", "--replicas", "2", "nginx"]);
    swarm.until("both tasks", || swarm.must(1, &["service", "ls"]).contains("2/2"));
    assert!(swarm.must(1, &["service", "ls"]).contains("*:8080->80/tcp"));
    assert!(swarm.must(1, &["service", "inspect", "--pretty", "my-web"]).contains("PublishedPort = 8080"));
    assert!(swarm.must(1, &["node", "inspect", "--pretty", "node2"]).contains("Hostname:"));
    assert!(swarm.must(1, &["network", "ls"]).contains("ingress"));
    assert!(swarm.must(1, &["network", "inspect", "ingress"]).contains("\"Ingress\": true"));
    assert!(swarm.must(1, &["version"]).contains("skep"));
    assert!(swarm.must(1, &["info"]).contains("Swarm: active"));
    assert!(swarm.skep(1, &["service", "ls"]).out.contains("*:8080->80/tcp"));
    assert!(swarm.skep(1, &["node", "ls"]).out.contains("Leader"));

    swarm.must(1, &["service", "scale", "-d", "my-web=4"]);
    swarm.until("four tasks", || swarm.running("my-web").len() == 4);
    swarm.must(1, &["service", "scale", "-d", "my-web=1"]);
    swarm.until("one task", || swarm.running("my-web").len() == 1);
    swarm.must(1, &["service", "rm", "my-web"]);
    swarm.until("the port to be gone", || (1..=3).all(|n| swarm.client(n, 8080).is_err()));
    swarm.until("its containers to be gone", || (1..=3).all(|n| swarm.must(n, &["ps", "-aq"]).is_empty()));
}

const HAPROXY: &str = "
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    option redispatch
frontend http_front
    bind *:80
    default_backend http_back
backend http_back
    balance roundrobin
";

#[test]
fn haproxy_in_front_needs_no_reload_when_tasks_move() {
    let swarm = Swarm::start("haproxy");
    swarm.serve(8080, &["--name", "my-web", "-p", "8080:80", "--replicas", "2", "nginx"]);
    let servers: String =
        (1..=3).map(|n| format!("    server node{n} {}:8080 check\n", swarm.lab.address(n))).collect();
    let config = swarm.lab.dir().join("haproxy.cfg");
    std::fs::write(&config, format!("{HAPROXY}{servers}")).expect("written");
    let argv = ["haproxy", "-db", "-f", &config.to_string_lossy()].map(str::to_owned);
    let mut haproxy = swarm
        .lab
        .exec("client", &argv)
        .expect("a place")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("haproxy runs");
    let through = || swarm.get("client", "http://127.0.0.1/client");
    swarm.until("haproxy", || through().is_ok());
    let ask = |what: &str| (0..30).for_each(|_| drop(through().unwrap_or_else(|e| panic!("{what}: {e}"))));
    ask("at first");
    let before = swarm.running("my-web");
    swarm.must(
        1,
        &["service", "update", "-d", "--force", "--update-parallelism", "0", "--update-order", "start-first", "my-web"],
    );
    swarm.until("other tasks", || {
        let now = swarm.running("my-web");
        now.len() == 2 && now.iter().all(|task| !before.contains(task))
    });
    ask("after the tasks have moved");
    haproxy.kill().expect("killed");
    haproxy.wait().expect("reaped");
}

#[test]
fn a_lab_that_is_taken_down_leaves_nothing() {
    let (name, in_kernel) = {
        let swarm = Swarm::start("down");
        swarm.serve(8080, &["--name", "web", "-p", "8080:80", "--replicas", "3", "nginx"]);
        // Also when nobody is there to clean up after itself.
        swarm.lab.kill_daemon(2).expect("killed");
        assert!(!skep_lab::leftovers(swarm.lab.name()).is_empty(), "it is seen while it is there");
        let pins = |node: u8| swarm.lab.dir().join(format!("node{node}/run/bpf"));
        let of = |node| traces::pinned(&pins(node)).expect("the data plane is in the kernel");
        let in_kernel: BTreeSet<u32> = (1..=3).flat_map(of).collect();
        assert!(in_kernel.is_subset(&traces::loaded()));
        (swarm.lab.name().to_owned(), in_kernel)
    };
    assert_eq!(skep_lab::leftovers(&name), Vec::<String>::new());
    // The kernel frees programs, and with them the maps, a moment after the last reference to them is gone.
    let until = Instant::now() + PATIENCE;
    while !in_kernel.is_disjoint(&traces::loaded()) {
        assert!(Instant::now() < until, "eBPF programs or maps are left in the kernel");
        thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn the_demo_plays_to_its_end_and_ctrl_c_ends_it_anywhere() {
    let played = Command::new(binary()).arg("demo").output().expect("the demo runs");
    let said = String::from_utf8_lossy(&played.stdout);
    assert!(played.status.success(), "{said}\n{}", String::from_utf8_lossy(&played.stderr));
    assert!(said.contains("every node answers on port 8080") && said.contains("is left"), "{said}");

    let mut demo = Command::new(binary()).arg("demo").stdout(Stdio::piped()).spawn().expect("the demo runs");
    let name = format!("demo-{}", demo.id());
    // Anywhere: here in the middle of making things.
    while skep_lab::leftovers(&name).is_empty() {
        thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill runs").success());
    let status = demo.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(skep_lab::leftovers(&name), Vec::<String>::new());
}
