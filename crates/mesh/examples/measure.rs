//! Measures the data plane against plain routing, with `wrk` and `iperf3` between namespaces of this machine (root; a minute or so):
//! `cargo xtask bench mesh`. The paths take turns in every round, so that other load hits all of them; medians are shown.
//!
//! *direct* is the client sending to the task's own address, routed by the kernel of the task's node, without any load balancer.

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::fmt::Write as _;

use lab::{Attach, Lab, Netns, ingress, serve};
use skep_mesh::{Datapath, MapSizes};
use skep_model::Protocol;

/// A port of the task that is not published, for the direct path.
const DIRECT: u16 = 8000;
const ROUNDS: usize = 3;

fn main() {
    let mut lab = Lab::sized(2, Attach::Best, MapSizes::default());
    lab.service(&[ingress(Protocol::Tcp, 8080, 80), ingress(Protocol::Tcp, 5201, 5201)], &[1]);
    let task = &lab.tasks[0];
    serve(&task.ns, task.addr, DIRECT);
    lab.nodes[1].ns.sysctl("net/ipv4/ip_forward", "1");
    // A client for each path: what a task's kernel remembers of one path's connections must not slow another down.
    let clients = [101, 102, 103].map(|n| lab.another_client(n));
    clients[0].ip(&format!("route add {}/32 via {}", task.addr, lab.nodes[1].underlay));
    let paths = [
        ("direct", format!("{}:{DIRECT}", task.addr), format!("{} -p 5202", task.addr)),
        ("remote", format!("{}:8080", lab.nodes[0].underlay), format!("{} -p 5201", lab.nodes[0].underlay)),
        ("local", format!("{}:8080", lab.nodes[1].underlay), format!("{} -p 5201", lab.nodes[1].underlay)),
    ];
    let mut results = vec![vec![]; paths.len()];
    for _ in 0..ROUNDS {
        for ((path, client), result) in paths.iter().zip(&clients).zip(&mut results) {
            result.push([
                wrk(client, &path.1, &["-c32"]),
                wrk(client, &path.1, &["-c32", "-H", "Connection: close"]),
                wrk(client, &path.1, &["-c1"]),
                iperf3(&lab, client, &path.2, ""),
                iperf3(&lab, client, &path.2, "-R"),
            ]);
        }
    }
    for node in &lab.nodes {
        println!("{}: {:?}", node.underlay, node.bpf().counters().unwrap().drops);
    }
    println!("{}", table(&paths.map(|p| p.0), &results));
}

fn wrk(client: &Netns, to: &str, options: &[&str]) -> f64 {
    let mut wrk = client.command("wrk -t1 -d2");
    let output = wrk.args(options).arg(format!("http://{to}/")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("Requests/sec")).unwrap_or_else(|| panic!("{to}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// One stream for two seconds, in Gbit/s.
fn iperf3(lab: &Lab, client: &Netns, to: &str, more: &str) -> f64 {
    let port = to.rsplit(' ').next().unwrap();
    let mut server = lab.tasks[0]
        .ns
        .command(&format!("iperf3 -s -1 -p {port}"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let asked = || client.command(&format!("iperf3 -t 2 -f g {more} -c {to}")).output().unwrap();
    // Until the server listens.
    let output = (0..50).map(|_| asked()).find(|output| output.status.success()).expect("iperf3");
    server.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with("receiver")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|w| *w == "Gbits/sec").unwrap();
    words[unit - 1].parse().unwrap()
}

/// Per path and figure: the median, its share of the direct path's, and the lowest and highest of the rounds.
fn table(names: &[&str; 3], results: &[Vec<[f64; 5]>]) -> String {
    const FIGURES: [(&str, usize); 5] = [
        ("keep-alive requests/s", 0),
        ("new connections/s", 0),
        ("requests/s, 1 connection", 0),
        ("Gbit/s to the task", 1),
        ("Gbit/s from the task", 1),
    ];
    let sorted = |path: usize, column: usize| {
        let mut values: Vec<f64> = results[path].iter().map(|r| r[column]).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let mut text = String::new();
    for (column, (figure, digits)) in FIGURES.into_iter().enumerate() {
        let base = sorted(0, column)[ROUNDS / 2];
        for (path, name) in names.iter().enumerate() {
            let values = sorted(path, column);
            let (median, low, high) = (values[ROUNDS / 2], values[0], values[ROUNDS - 1]);
            let share = median / base;
            writeln!(text, "{figure:25} {name:7} {median:8.digits$} ({share:.2})  {low:.digits$} to {high:.digits$}")
                .unwrap();
        }
    }
    text
}
