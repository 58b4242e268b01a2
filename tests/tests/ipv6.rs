//! The same service by IPv6: for clients, for tasks, and between nodes.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep_e2e::{Said, Swarm, busybox};
use skep_lab::Families;

fn url(address: Ipv6Addr, port: u16, page: &str) -> String {
    format!("http://{}/{page}", SocketAddr::new(address.into(), port))
}

/// What a shell says that runs in a place.
fn shell(swarm: &Swarm, place: &str, script: &str) -> Said {
    let argv = ["bash", "-c", script].map(str::to_owned);
    swarm.lab.exec(place, &argv).expect("a place").output().expect("bash runs").into()
}

#[test]
fn every_ipv6_address_of_every_node_answers_and_the_task_sees_the_client() {
    let swarm = Swarm::start("ipv6");
    swarm.serve(8080, &["--name", "web", "--publish", "published=8080,target=80", "--replicas", "2", "nginx"]);
    let outside = swarm.lab.client_ipv6().to_string();
    let ask = |place: &str, address: Ipv6Addr, page: &str| {
        let url = url(address, 8080, page);
        swarm.get(place, &url).unwrap_or_else(|e| panic!("{place} asks {url}: {e}"))
    };
    for node in 1..=3 {
        let [first, second] = swarm.lab.ipv6(node);
        assert_eq!(ask("client", first, "client"), outside);
        assert!(ask("client", second, "client").ends_with("::100"), "by the second interface");
        let place = format!("node{node}");
        for own in [Ipv6Addr::LOCALHOST, first, second] {
            ask(&place, own, "hostname");
        }
        // A node is a client of the others, too.
        let other = swarm.lab.ipv6(node % 3 + 1)[0];
        assert_eq!(ask(&place, other, "client"), first.to_string());
    }
    let (node, pid) = some_task(&swarm);
    swarm.lab.ipv6(node).into_iter().for_each(|own| task_asks(&pid, own));
    an_address_comes_and_goes(&swarm);
}

/// A node that runs a task, and the process of one.
fn some_task(swarm: &Swarm) -> (u8, String) {
    let found = (1..=3).find_map(|n| Some((n, swarm.must(n, &["ps", "-q"]).lines().next()?.to_owned())));
    let (node, id) = found.expect("a container runs somewhere");
    (node, swarm.must(node, &["inspect", "--format", "{{.State.Pid}}", &id]))
}

fn task_asks(pid: &str, address: Ipv6Addr) {
    let url = url(address, 8080, "hostname");
    let inside = Command::new("nsenter").args(["-t", pid, "-n", "curl", "-sS", "--max-time", "3", &url]).output();
    let inside = Said::from(inside.expect("nsenter runs"));
    assert!(inside.ok, "a task asks {url}: {}", inside.err);
}

fn an_address_comes_and_goes(swarm: &Swarm) {
    let mut added = swarm.lab.ipv6(2)[0].segments();
    added[7] = 0x777;
    let added = Ipv6Addr::from(added);
    let ip = |verb: &str| {
        let said = shell(swarm, "node2", &format!("ip -6 addr {verb} {added}/64 dev eth0"));
        assert!(said.ok, "{}", said.err);
    };
    let answers = || swarm.get("client", &url(added, 8080, "hostname")).is_ok();
    assert!(!answers());
    ip("add");
    swarm.until("the new address", answers);
    ip("del");
    swarm.until("the address to be gone", || !answers());
}

#[test]
fn datagrams_come_back_and_a_task_that_listens_by_ipv4_alone_refuses_at_once() {
    let swarm = Swarm::start("ipv6-echo");
    let ports = ["-p", "53:53", "--publish", "published=53,target=53,protocol=udp"];
    let create = ["service", "create", "-d", "--name", "echo"];
    swarm.must(1, &[create.as_slice(), &ports, &["echo"]].concat());
    for node in 1..=3 {
        let (ipv4, ipv6) = (swarm.lab.address(node), swarm.lab.ipv6(node)[0]);
        let tcp = format!("exec 3<>/dev/tcp/{ipv4}/53; timeout 2 head -n 1 <&3");
        swarm.until("tcp by IPv4", || shell(&swarm, "client", &tcp).out == "tcp");
        let udp = format!("exec 3<>/dev/udp/{ipv6}/53; echo hello >&3; timeout 2 head -n 1 <&3");
        swarm.until("udp by IPv6", || shell(&swarm, "client", &udp).out == "hello");
        let began = Instant::now();
        let refused = swarm.get("client", &url(ipv6, 53, "")).unwrap_err();
        assert!(
            refused.contains("curl: (7)") && began.elapsed() < Duration::from_secs(1),
            "not left hanging: {refused}"
        );
    }
}

#[test]
fn a_swarm_whose_nodes_have_ipv6_alone() {
    let swarm = Swarm::start_with("ipv6-only", Families::Ipv6, &[]);
    for node in 1..=3 {
        let address = swarm.must(1, &["node", "inspect", "--format", "{{.Status.Addr}}", &format!("node{node}")]);
        assert_eq!(address, swarm.lab.ipv6(node)[0].to_string());
        assert_eq!(swarm.must(node, &["info", "--format", "{{.Swarm.NodeAddr}}"]), address);
    }
    let manager = swarm.must(2, &["info", "--format", "{{(index .Swarm.RemoteManagers 0).Addr}}"]);
    assert_eq!(manager, SocketAddr::new(swarm.lab.address(1), 2377).to_string());
    // One task: two of three nodes pass the packets on.
    swarm.serve(8080, &["--name", "web", "--publish", "published=8080,target=80", "nginx"]);
    let outside = swarm.lab.client_address().to_string();
    for node in 1..=3 {
        assert_eq!(swarm.client(node, 8080).as_deref(), Ok(outside.as_str()), "node{node}");
        swarm.get(&format!("node{node}"), "http://[::1]:8080/hostname").expect("a node reaches itself by ::1");
        swarm.get(&format!("node{node}"), "http://127.0.0.1:8080/hostname").expect("and by 127.0.0.1");
    }
    let (_, pid) = some_task(&swarm);
    (1..=3).for_each(|node| task_asks(&pid, swarm.lab.ipv6(node)[0]));
}

/// The IPv6 addresses of a service's running tasks on a network, as the API shows them.
fn addresses(swarm: &Swarm, service: &str, network: &str) -> BTreeSet<String> {
    let running = swarm.running(service);
    let tasks = swarm.api(1, "/tasks");
    let of = tasks.as_array().into_iter().flatten().filter(|task| running.iter().any(|id| task["ID"] == json!(id)));
    let on = of.flat_map(|task| task["NetworksAttachments"].as_array().into_iter().flatten());
    let there = on.filter(|at| at["Network"]["Spec"]["Name"] == network);
    there
        .map(|at| at["Addresses"][1].as_str().and_then(|a| a.split('/').next()).expect("one of IPv6").to_owned())
        .collect()
}

/// What the task of `cli` is told about a name: addresses, or names.
fn told(swarm: &Swarm, question: &[&str]) -> BTreeSet<String> {
    let said = swarm.inside(2, "cli", &[&["nslookup"], question].concat()).unwrap_or_default();
    let values = said
        .lines()
        .skip_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Address: ").or_else(|| line.split_once("name = ").map(|(_, name)| name)));
    values.map(str::to_owned).collect()
}

/// The words that make a network with IPv6.
fn network<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["network", "create", "-d", "overlay", "--ipv6"], more, &[name]].concat()
}

#[test]
fn a_network_may_have_an_ipv6_subnet_of_its_own() {
    let swarm = Swarm::managed("own6", 3, 1);
    swarm.load(&busybox());
    let own = ["--subnet", "10.9.0.0/24", "--subnet", "2001:db8:9::/64", "--gateway", "2001:db8:9::1"];
    swarm.must(1, &network("app", &own));
    swarm.must(1, &network("other", &["--subnet", "fd00:5::/48"]));
    swarm.refused(1, &network("x", &["--subnet", "2001:db8::/32"]), "the network app (2001:db8:9::/64)");
    swarm.refused(1, &network("x", &["--subnet", "fd00::/100"]), "choose a /96 or larger");
    // Where the nodes themselves are.
    let [a, b, c, d, ..] = swarm.lab.ipv6(3)[0].segments();
    let lab = format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0));
    swarm.refused(1, &network("x", &["--subnet", &lab]), "of node node");
    let shown = swarm.api(1, "/networks/app");
    let configs: Vec<_> =
        shown["IPAM"]["Config"].as_array().into_iter().flatten().map(|c| c["Subnet"].clone()).collect();
    assert_eq!(
        (configs, &shown["EnableIPv6"]),
        (vec![json!("10.9.0.0/24"), json!("2001:db8:9::/64")], &Value::Bool(true))
    );

    let serve = |name: &str, more: &[&str]| {
        let create = ["service", "create", "-d", "--no-resolve-image", "--name", name];
        swarm.must(1, &[&create[..], more, &["box"]].concat());
    };
    serve("web", &["--network", "app", "--mode", "global"]);
    serve("db", &["--network", "other"]);
    serve("cli", &["--network", "app", "--constraint", "node.hostname==node2"]);
    let all = [("web", 3), ("db", 1), ("cli", 1)];
    swarm.until("all tasks", || all.iter().all(|(name, tasks)| swarm.running(name).len() == *tasks));

    // Names lead there, and back.
    let tasks = addresses(&swarm, "web", "app");
    assert!(tasks.len() == 3 && tasks.iter().all(|address| address.starts_with("2001:db8:9::a09:")), "{tasks:?}");
    swarm.until("their names", || told(&swarm, &["-type=aaaa", "tasks.web"]) == tasks);
    let vip = told(&swarm, &["-type=aaaa", "web"]);
    let vip = vip.first().filter(|vip| vip.starts_with("2001:db8:9::a09:") && !tasks.contains(*vip)).expect("its own");
    assert_eq!(told(&swarm, &[vip]), ["web.app".to_owned()].into());
    for task in &tasks {
        let name = told(&swarm, &[task]);
        assert!(
            name.first().is_some_and(|name| name.starts_with("web.") && name.ends_with(".app")),
            "{task}: {name:?}"
        );
    }

    // Tasks on this node and on others, the service, and one's own end of it.
    let asks = |address: &str| {
        let ask = format!("printf 'GET /client HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80");
        swarm.exec(2, "cli", &["sh", "-c", &ask])
    };
    for address in tasks.iter().chain([vip]) {
        let said = asks(address);
        assert!(said.ok && said.out.ends_with("up"), "{address}: {said:?}");
    }
    let pings = |address: &str| swarm.exec(2, "cli", &["ping", "-c", "1", "-W", "3", address]).ok;
    assert!(pings(vip) && tasks.iter().all(|task| pings(task)));

    // The world outside, by the node's address, also when the task insists on its own.
    let outside = swarm.lab.client_ipv6().to_string();
    let cli = addresses(&swarm, "cli", "app").first().expect("an address").clone();
    assert!(swarm.exec(2, "cli", &["ping", "-c", "1", "-W", "3", "-I", &cli, &outside]).ok, "by {cli} to {outside}");

    // And nobody else: neither of another network, nor where this one's tasks would be without a subnet.
    let db = addresses(&swarm, "db", "other");
    let db = db.first().filter(|db| db.starts_with("fd00:5::")).expect("an address");
    let first = tasks.first().and_then(|task| task.rsplit_once("::")).expect("an address").1;
    for stranger in [db, &format!("fd73:6b65:7000::{first}"), "2001:db8:9::1", "2001:db8:9::1:2:3"] {
        let began = Instant::now();
        assert!(!asks(stranger).ok && !pings(stranger), "{stranger}");
        assert!(began.elapsed() < Duration::from_secs(5), "{stranger}: refused at once");
    }
}
