//! A load balancer of one's own in front of a service that is scaled and rolled, configured as the README says: within the swarm and outside of it.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::{Load, Outcome, PORT, Server, Swarm, haproxy};
use skep_lab::Families;

/// How long the client watches before something happens, and after.
const CALM: Duration = Duration::from_secs(3);

/// What any HAProxy needs beside what the README has.
const FRAME: &str = "
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    option redispatch 1
    retries 3

frontend all
    bind :80
    default_backend web
";

/// A section of the README by its first line, with the addresses of the lab in place of those there.
fn readme(first: &str, swarm: &Swarm) -> String {
    let readme = include_str!("../../README.md");
    let from = readme.find(first).unwrap_or_else(|| panic!("the README has no {first:?}"));
    let text = readme[from..].split("```").next().unwrap_or_default();
    (1..=2)
        .fold(text.to_owned(), |text, n| text.replace(&format!("192.0.2.{n}:"), &format!("{}:", swarm.lab.address(n))))
}

/// Scales `web` from two tasks to eight and to one, and rolls it, while a client asks the balancer: it notices nothing.
fn scaled_and_rolled(swarm: &Swarm, balancer: Vec<SocketAddr>, story: &str) {
    let load = Load::at(swarm, Server::Balanced, balancer);
    thread::sleep(CALM);
    let event = Instant::now();
    let tasks = |count: usize| swarm.until("the tasks", || swarm.running("web").len() == count);
    for count in [8, 1, 3] {
        swarm.must(1, &["service", "scale", "-d", &format!("web={count}")]);
        tasks(count);
        thread::sleep(CALM);
    }
    for order in ["stop-first", "start-first"] {
        let update = ["service", "update", "--quiet", "--detach=false", "--update-order", order];
        swarm.must(1, &[&update[..], &["--update-monitor", "1s", "--update-delay", "2s", "--force", "web"]].concat());
        tasks(3);
    }
    thread::sleep(CALM);
    let report = load.end();
    report.print(story, event);
    let bad: Vec<_> = report.asked.iter().filter(|attempt| attempt.outcome != Outcome::Ok).take(20).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}", swarm.words());
    assert!(report.asked.len() > 1000, "{} requests", report.asked.len());
}

#[test]
fn a_balancer_that_is_a_service_follows_another_one_by_name() {
    let swarm = Swarm::start("balancer-in");
    let image = swarm.lab.dir().join("haproxy.tar");
    haproxy(&image, &format!("{FRAME}{}", readme("resolvers docker", &swarm)));
    swarm.load(&image);
    swarm.must(1, &["network", "create", "-d", "overlay", "app"]);
    swarm.must(1, &["service", "create", "-d", "--name", "web", "--network", "app", "--replicas", "2", "nginx"]);
    swarm.until("web", || swarm.running("web").len() == 2);
    swarm.serve(PORT, &["--name", "lb", "--network", "app", "-p", &format!("{PORT}:80"), "haproxy"]);
    let nodes = (1..=3).map(|n| SocketAddr::from((swarm.lab.address(n), PORT))).collect();
    scaled_and_rolled(&swarm, nodes, "HAProxy as a service");
}

/// A program that ends with the story.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_balancer_outside_follows_a_service_by_nodes_and_ports() {
    let swarm = Swarm::start_with("balancer-out", Families::Both, &["--dns-listen", "{address}"]);
    let mode = ["--endpoint-mode", "dnsrr", "--publish", "mode=host,target=80"];
    swarm.must(1, &[&["service", "create", "-d", "--name", "web", "--replicas", "2"], &mode[..], &["nginx"]].concat());
    swarm.until("web", || swarm.running("web").len() == 2);
    let config = swarm.lab.dir().join("haproxy.cfg");
    std::fs::write(&config, format!("{FRAME}{}", readme("resolvers skep", &swarm))).expect("written");
    let argv = ["haproxy", "-db", "-f", &config.to_string_lossy()].map(str::to_owned);
    let mut command = swarm.lab.exec("client", &argv).expect("a place");
    let _running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("haproxy runs"));
    let balancer = SocketAddr::from((swarm.lab.client_address(), 80));
    swarm.until("the balancer", || swarm.get("client", &format!("http://{balancer}/hostname")).is_ok());
    scaled_and_rolled(&swarm, vec![balancer], "HAProxy outside");
}
