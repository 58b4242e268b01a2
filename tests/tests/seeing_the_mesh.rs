//! What nodes say of their mesh is what it does: predictions come true, what is counted was there, and counters outlive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Child, Stdio};

use skep_e2e::Swarm;
use skep_lab::Families;

/// What a node serves to Prometheus, asked from outside: series to value.
fn scrape(swarm: &Swarm, node: u8) -> BTreeMap<String, f64> {
    let page = swarm.get("client", &format!("http://{}:9323/metrics", swarm.lab.address(node))).expect("metrics");
    let series = page.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(s, v)| (s.to_owned(), v.parse().unwrap()))
        .collect()
}

/// The sum of all series of a metric that say `what` of their labels.
fn sum(page: &BTreeMap<String, f64>, metric: &str, what: &str) -> f64 {
    page.iter().filter(|(s, _)| s.starts_with(&format!("{metric}{{")) && s.contains(what)).map(|(_, v)| v).sum()
}

fn skep(swarm: &Swarm, node: u8, args: &[&str]) -> String {
    let said = swarm.skep(node, args);
    assert!(said.ok, "node{node}: skep {}: {} {}\n{}", args.join(" "), said.out, said.err, swarm.words());
    said.out
}

/// Asks a node from a port of the client's own, and returns the host name of the container that answered.
fn ask_from(swarm: &Swarm, node: u8, port: u16) -> String {
    let url = format!("http://{}:8080/hostname", swarm.lab.address(node));
    let local = port.to_string();
    let argv = ["curl", "-sS", "--fail", "--max-time", "3", "--local-port", &local, &url].map(str::to_owned);
    let said = swarm.lab.exec("client", &argv).expect("a place").output().expect("curl runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// The task of each container of the swarm, by the container's host name.
fn tasks(swarm: &Swarm) -> BTreeMap<String, String> {
    let listed =
        (1..=3).map(|n| skep(swarm, n, &["ps", "--format", "{{.ID}} {{.Names}}"])).collect::<Vec<_>>().join("\n");
    let task = |name: &str| name.rsplit('.').next().map(str::to_owned);
    listed
        .lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(id, name)| Some((id.to_owned(), task(name)?)))
        .collect()
}

/// Three tasks of "web" at 8080, known to all nodes.
fn three(story: &str) -> Swarm {
    let swarm = Swarm::start(story);
    swarm.serve(8080, &["--name", "web", "-p", "8080:80", "--replicas", "3", "nginx"]);
    let ready = |node| skep(&swarm, node, &["mesh", "ls", "--format", "{{.Port}} {{.Service}} {{.Ready}} {{.State}}"]);
    swarm.until("all nodes to know all tasks", || (1..=3).all(|node| ready(node) == "8080/tcp web 3 serving"));
    swarm
}

#[test]
fn what_a_trace_says_comes_true() {
    let swarm = three("trace");
    let tasks = tasks(&swarm);
    let mut seen = BTreeSet::new();
    for port in 41000..41008 {
        let from = format!("{}:{port}", swarm.lab.client_address());
        let trace = |node, format| skep(&swarm, node, &["mesh", "trace", "8080", "--from", &from, "--format", format]);
        let said: Vec<_> = (1..=3).map(|node| trace(node, "{{.Backend.Task}}")).collect();
        assert!(said.iter().all(|task| *task == said[0]), "nodes differ for {from}: {said:?}");
        let answered = ask_from(&swarm, 2, port);
        assert_eq!(tasks.get(&answered), Some(&said[0]), "{}", trace(2, "pretty"));
        seen.insert(answered);
    }
    assert!(seen.len() > 1, "eight clients, one task: {seen:?}");
    let none = skep(&swarm, 1, &["mesh", "trace", "8081"]);
    assert!(none.contains("8081/tcp is not published here; what is: 8080/tcp"), "{none}");
}

#[test]
fn what_is_counted_is_what_was_asked_and_outlives_the_daemon() {
    let swarm = three("metrics");
    let flows = |page: &BTreeMap<String, f64>| sum(page, "skep_mesh_port_flows_total", "port=\"8080\"");
    let before = scrape(&swarm, 1);
    assert_eq!(sum(&before, "skep_mesh_port_backends", "state=\"ready\""), 3.0);
    (41100..41110).for_each(|port| drop(ask_from(&swarm, 1, port)));
    let after = scrape(&swarm, 1);
    assert_eq!(flows(&after) - flows(&before), 10.0);
    assert_eq!(
        sum(&after, "skep_mesh_backend_flows_total", "") - sum(&before, "skep_mesh_backend_flows_total", ""),
        10.0
    );
    let bytes = sum(&after, "skep_mesh_port_bytes_total", "direction=\"out\"")
        - sum(&before, "skep_mesh_port_bytes_total", "direction=\"out\"");
    assert!(bytes > 10.0 * 200.0, "{bytes} bytes of ten answers");
    let fingerprints: Vec<_> = (1..=3).map(|n| sum(&scrape(&swarm, n), "skep_mesh_table_fingerprint", "")).collect();
    assert!(fingerprints.iter().all(|f| *f == fingerprints[0]), "{fingerprints:?}");

    let top = skep(&swarm, 1, &["mesh", "top", "--once", "--interval", "200ms"]);
    assert!(top.contains("3 members alive, 0 down") && top.contains("8080/tcp"), "{top}");

    for kill in [false, true] {
        if kill { swarm.lab.kill_daemon(1) } else { swarm.lab.stop_daemon(1) }.expect("the daemon ends");
        let refused = swarm.skep(1, &["mesh", "ls"]);
        assert!(refused.err.contains("start it with `skep daemon`"), "{}", refused.err);
        ask_from(&swarm, 1, 41120 + u16::from(kill));
        swarm.lab.start_daemon(1).expect("the daemon starts");
        let up = || scrape(&swarm, 1).get("skep_mesh_up") == Some(&1.0) && flows(&scrape(&swarm, 1)) > 0.0;
        swarm.until("the mesh to be seen again", up);
        let now = scrape(&swarm, 1);
        for (series, count) in
            after.iter().filter(|(series, _)| series.starts_with("skep_") && series.contains("_total"))
        {
            assert!(now.get(series).is_some_and(|now| now >= count), "{series} was {count}, is {:?}", now.get(series));
        }
        assert_eq!(flows(&now) - flows(&after), 1.0 + f64::from(u8::from(kill)), "asked while no daemon ran");
    }

    let (before, old) = (scrape(&swarm, 1), swarm.running("web"));
    swarm.must(1, &["service", "update", "-d", "--force", "--update-parallelism", "0", "web"]);
    let new = |tasks: &[String]| tasks.len() == 3 && tasks.iter().all(|task| !old.contains(task));
    swarm.until("other tasks", || new(&swarm.running("web")));
    swarm.until("all nodes to know them", || {
        (1..=3).all(|node| sum(&scrape(&swarm, node), "skep_mesh_port_backends", "state=\"ready\"") == 3.0)
    });
    assert!(flows(&scrape(&swarm, 1)) >= flows(&before), "a port's counters are its own, not its tasks'");
}

/// A connection that the client holds, from a port of its own, until it is dropped.
struct Held(Child);

impl Held {
    fn open(swarm: &Swarm, node: u8, port: u16) -> Self {
        let program = "import socket, sys\n\
             s = socket.create_connection((sys.argv[1], 8080), 3, ('', int(sys.argv[2])))\n\
             print('open', flush=True)\n\
             sys.stdin.read()\n";
        let argv =
            ["python3", "-c", program, &swarm.lab.address(node).to_string(), &port.to_string()].map(str::to_owned);
        let mut command = swarm.lab.exec("client", &argv).expect("a place");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut word = [0; 4];
        child.stdout.as_mut().expect("piped").read_exact(&mut word).expect("the connection opens");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_flow_is_listed_on_the_node_that_was_asked_and_on_the_one_that_serves() {
    let swarm = three("flows");
    let held = Held::open(&swarm, 1, 41200);
    let client = format!("{}:41200", swarm.lab.client_address());
    let flows = |node, more: &[&str]| {
        let format = ["--format", "{{.Protocol}} {{.Asked}} {{.Service}} {{.Node}} {{.Role}} {{.State}}"];
        skep(&swarm, node, &[&["mesh", "flows", "--client", &client], more, &format].concat())
    };
    let seen = flows(1, &[]);
    let owner = seen.split(' ').nth(3).and_then(|n| n.strip_prefix("node")).and_then(|n| n.parse().ok()).unwrap_or(0);
    let asked = format!("tcp {}:8080 web node{owner}", swarm.lab.address(1));
    assert_eq!(seen, format!("{asked} asked open"));
    for node in 2..=3 {
        let served = if node == owner { format!("{asked} served open") } else { String::new() };
        assert_eq!(flows(node, &[]), served, "node{node}");
    }
    let trace = skep(&swarm, 1, &["mesh", "trace", "8080", "--from", &client]);
    assert!(trace.contains("-> the flow goes on: task"), "{trace}");
    swarm.until("the flow to be counted", || skep(&swarm, 1, &["mesh", "ls", "--format", "{{.Flows}}"]) == "1");
    assert_eq!(sum(&scrape(&swarm, 1), "skep_mesh_port_open_flows", "8080"), 1.0);
    assert!(sum(&scrape(&swarm, 1), "skep_mesh_map_entries", "map=\"flows\"") >= 1.0);

    drop(held);
    swarm.until("the flow to end", || flows(1, &["--state", "open"]).is_empty());
    swarm.until("it to be counted", || skep(&swarm, 1, &["mesh", "ls", "--format", "{{.Flows}}"]) == "0");
}

#[test]
fn a_node_in_no_swarm_says_so() {
    let swarm = Swarm::nodes("no-mesh");
    let said = swarm.skep(1, &["mesh", "ls"]);
    assert!(!said.ok && said.err.contains("skep swarm init"), "{}", said.err);
    assert_eq!(scrape(&swarm, 1)["skep_mesh_up"], 0.0);
}

/// Answers go past the node that was asked as soon as the probe between the nodes has come through, and the client sees no difference.
#[test]
fn with_reply_direct_answers_do_not_pass_the_node_that_was_asked() {
    let swarm = Swarm::start_with("direct", Families::Both, &["--reply", "direct"]);
    swarm.serve(8080, &["--name", "web", "--constraint", "node.hostname==node3", "-p", "8080:80", "nginx"]);
    let passed = |direction: &str| {
        let page = scrape(&swarm, 1);
        sum(&page, "skep_mesh_port_packets_total", &format!("direction=\"{direction}\""))
    };
    let outside = swarm.lab.client_address().to_string();
    let ask = || (0..10).for_each(|_| assert_eq!(swarm.client(1, 8080).as_deref(), Ok(outside.as_str())));
    swarm.until("answers to go past node1", || {
        let before = passed("out");
        ask();
        passed("out") == before
    });
    let (asked, answered) = (passed("in"), passed("out"));
    ask();
    assert!(passed("in") >= asked + 30.0, "a connection is three packets of the client's and more");
    assert_eq!(passed("out"), answered, "all answers go past it");
}
