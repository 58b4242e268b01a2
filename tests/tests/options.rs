//! Options of published ports, and ports that belong to somebody else.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use skep_e2e::Swarm;

/// A server of a node's own, which answers `mine` to every request until it is dropped.
struct HostServer {
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

/// What a process of the node hears when it binds the port on all addresses.
fn bind(swarm: &Swarm, node: u8, port: u16) -> std::io::Result<TcpListener> {
    swarm.lab.run(&format!("node{node}"), || TcpListener::bind(("0.0.0.0", port))).expect("a place")
}

impl HostServer {
    fn start(listener: TcpListener) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).expect("set");
        let serving = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((mut client, _)) = listener.accept() {
                    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
                    let _ = client.read(&mut [0; 1024]);
                    let _ = client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nmine");
                    // The client ends first: else the port would stay in use for a minute after the server.
                    while client.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
                } else {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { stop, serving: Some(serving) }
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.serving.take().map(JoinHandle::join);
    }
}

/// What a node's status says beside its state.
fn message(swarm: &Swarm, node: u8) -> String {
    let status = swarm.must(1, &["node", "inspect", "--format", "{{json .Status}}", &format!("node{node}")]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("a status");
    status["Message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_port_that_a_process_has_stays_its_own_until_it_ends() {
    let swarm = Swarm::start("taken");
    let server = HostServer::start(bind(&swarm, 2, 8080).expect("a free port"));
    swarm.must(1, &["service", "create", "-d", "--name", "web", "-p", "8080:80", "nginx"]);
    swarm.until("the other nodes to answer", || [1, 3].iter().all(|n| swarm.client(*n, 8080).is_ok()));

    let told = "port 8080/tcp is taken by";
    swarm.until("the node to say so", || message(&swarm, 2).contains(told));
    assert_eq!(swarm.client(2, 8080).as_deref(), Ok("mine"), "the process is unharmed");
    swarm.until("service ps to say so", || swarm.must(1, &["service", "ps", "--no-trunc", "web"]).contains(told));
    let updated = swarm.docker(1, &["service", "update", "-d", "--label-add", "a=b", "web"]);
    assert!(updated.ok && updated.err.contains(told) && updated.err.contains("node2"), "{updated:?}");
    let log = std::fs::read_to_string(swarm.lab.log(2)).expect("a log");
    assert!(log.contains(told), "{log}");
    assert_eq!((message(&swarm, 1), message(&swarm, 3)), (String::new(), String::new()));

    // A task in host mode would have the port to itself, so it cannot run there.
    let host = ["--publish", "mode=host,published=8081,target=80", "--constraint", "node.hostname==node2"];
    let other = bind(&swarm, 2, 8081).expect("a free port");
    swarm.must(
        1,
        &[&["service", "create", "-d", "--name", "own", "--restart-delay", "1s"], &host[..], &["nginx"]].concat(),
    );
    let rejected = "port 8081/tcp is taken by";
    swarm
        .until("the task to be rejected", || swarm.must(1, &["service", "ps", "--no-trunc", "own"]).contains(rejected));
    assert!(swarm.running("own").is_empty());
    drop(other);
    swarm.until("the task to run", || swarm.running("own").len() == 1 && swarm.client(2, 8081).is_ok());

    drop(server);
    let outside = swarm.lab.client_address().to_string();
    swarm.until("the port to be taken over", || swarm.client(2, 8080).as_deref() == Ok(outside.as_str()));
    swarm.until("nothing to be said", || message(&swarm, 2).is_empty());
    // From now on nobody gets it, until it is published no more.
    for node in 1..=3 {
        let bound = bind(&swarm, node, 8080);
        assert!(
            bound.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrInUse),
            "node{node}: {bound:?}\n{}",
            swarm.words()
        );
    }
    swarm.must(1, &["service", "rm", "web"]);
    swarm.until("the port to be free", || (1..=3).all(|node| bind(&swarm, node, 8080).is_ok()));
}

#[test]
fn labels_say_which_nodes_answer_and_bad_ones_are_refused() {
    let swarm = Swarm::start("labels");
    let create = |more: &[&str], fragment: &str| {
        let args = [&["service", "create", "-d", "--name", "web", "-p", "8080:80"], more, &["nginx"]].concat();
        swarm.refused(1, &args, fragment);
    };
    create(&["--label", "skep.publish.8081.lb=maglev"], "does not publish port 8081, but 8080/tcp");
    create(&["--label", "skep.publish.8080.lb=fair"], "maglev, local-first");
    create(&["--label", "skep.anything=1"], "label \"skep.anything\" means nothing");
    create(&["--label", "skep.publish.8080.drain=2h"], "from 0s to 1h");
    assert_eq!(swarm.must(1, &["service", "ls", "-q"]), "", "nothing was created");

    let edge = "skep.publish.8080.nodes=node.labels.edge==true";
    swarm.must(1, &["node", "update", "--label-add", "edge=true", "node1"]);
    swarm.must(1, &["service", "create", "-d", "--name", "web", "-p", "8080:80", "--label", edge, "nginx"]);
    let answers = |nodes: [bool; 3]| (1..=3).zip(nodes).all(|(n, wanted)| swarm.client(n, 8080).is_ok() == wanted);
    swarm.until("one node to answer", || answers([true, false, false]));
    drop(bind(&swarm, 2, 8080).expect("where it is not published it is free"));
    swarm.must(1, &["node", "update", "--label-add", "edge=true", "node3"]);
    swarm.must(1, &["node", "update", "--label-rm", "edge", "node1"]);
    swarm.until("another node to answer", || answers([false, false, true]));
    swarm.refused(1, &["service", "update", "-d", "--publish-rm", "80", "web"], "--label-rm");
    swarm.must(1, &["service", "update", "-d", "--label-rm", "skep.publish.8080.nodes", "web"]);
    swarm.until("all nodes to answer", || answers([true; 3]));
    swarm.must(1, &["service", "rm", "web"]);

    // An address before the port is an option too.
    let said = swarm.skep(1, &["service", "create", "-d", "--name", "own", "-p", "127.0.0.1:8082:80", "nginx"]);
    assert!(said.ok, "{}", said.err);
    let labels = swarm.must(1, &["service", "inspect", "--format", "{{json .Spec.Labels}}", "own"]);
    assert_eq!(labels, r#"{"skep.publish.8082/tcp.addr":"127.0.0.1"}"#);
}
