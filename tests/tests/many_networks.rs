//! A hundred services on twenty networks over five nodes: everybody finds and reaches those on its networks, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use skep_e2e::{Swarm, busybox};

const NETWORKS: usize = 20;
const SERVICES: usize = 100;
const NODES: u8 = 5;
/// How many services are looked out of, and how many others each of them tries to reach.
const CLIENTS: usize = 12;
const REACHED: usize = 10;

/// A service: its networks in the order of its spec, with its own address and its task's on each.
struct Service {
    name: String,
    node: u8,
    on: Vec<Place>,
}

struct Place {
    network: String,
    own: String,
    task: String,
}

impl Service {
    /// Where it finds `other`: on the first of its networks that both are on.
    fn finds<'a>(&self, other: &'a Self) -> Option<&'a Place> {
        self.on.iter().find_map(|here| other.on.iter().find(|there| there.network == here.network))
    }
}

/// The networks of a service: every fifth is on two.
fn networks_of(service: usize) -> Vec<String> {
    let second = service.is_multiple_of(5).then_some((service * 7 + 3) % NETWORKS).filter(|n| *n != service % NETWORKS);
    [Some(service % NETWORKS), second].into_iter().flatten().map(|n| format!("net{n}")).collect()
}

fn start() -> Swarm {
    let swarm = Swarm::managed("many", NODES, 1);
    swarm.load(&busybox());
    for network in 0..NETWORKS {
        swarm.must(1, &["network", "create", "-d", "overlay", &format!("net{network}")]);
    }
    for service in 0..SERVICES {
        let name = format!("s{service}");
        let networks = networks_of(service);
        let on: Vec<_> = networks.iter().flat_map(|network| ["--network", network]).collect();
        let create = ["service", "create", "-d", "--no-resolve-image", "--name", &name];
        swarm.must(1, &[&create[..], &on, &["box"]].concat());
        // So many at a time as a small machine starts within the patience of a story.
        if service % 20 == 19 {
            swarm.until("twenty more tasks", || running(&swarm).len() > service);
        }
    }
    swarm
}

fn running(swarm: &Swarm) -> Vec<Value> {
    let mut tasks = swarm.api(1, "/tasks").as_array().cloned().unwrap_or_default();
    tasks.retain(|task| task["Status"]["State"] == "running");
    tasks
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The address without the length of its prefix.
fn bare(address: &Value) -> String {
    text(address).split('/').next().unwrap_or_default().to_owned()
}

/// What the API says of every service.
fn services(swarm: &Swarm) -> Vec<Service> {
    let all = |path: &str| swarm.api(1, path).as_array().cloned().expect("a list");
    let named: BTreeMap<_, _> = all("/networks").iter().map(|n| (text(&n["Id"]), text(&n["Name"]))).collect();
    let nodes: BTreeMap<_, _> = all("/nodes")
        .iter()
        .map(|n| (text(&n["ID"]), text(&n["Description"]["Hostname"]).trim_start_matches("node").parse().expect("n")))
        .collect();
    let tasks: BTreeMap<_, _> = running(swarm).into_iter().map(|task| (text(&task["ServiceID"]), task)).collect();
    let one = |service: &Value| {
        let task = &tasks[&text(&service["ID"])];
        let on = task["NetworksAttachments"].as_array().expect("places").iter().skip(1).map(|at| {
            let id = text(&at["Network"]["ID"]);
            let vips = service["Endpoint"]["VirtualIPs"].as_array().expect("addresses");
            let own = bare(&vips.iter().find(|vip| vip["NetworkID"] == id.as_str()).expect("one there")["Addr"]);
            Place { network: named[&id].clone(), own, task: bare(&at["Addresses"][0]) }
        });
        Service { name: text(&service["Spec"]["Name"]), node: nodes[&text(&task["NodeID"])], on: on.collect() }
    };
    all("/services").iter().map(one).collect()
}

/// The addresses that all these names lead to, asked in the namespace of a service's task.
fn look_up(swarm: &Swarm, from: &Service, names: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let inside = format!("--net={}", swarm.namespace(from.node, &from.name).display());
    let options = ["+noall", "+answer", "+time=5", "+tries=1"];
    let questions = names.iter().flat_map(|name| ["-t", "A", "-q", name]);
    let said = Command::new("nsenter").args([&inside, "dig", "@127.0.0.11"]).args(options).args(questions).output();
    let said = String::from_utf8_lossy(&said.expect("dig runs").stdout).into_owned();
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in said.lines().filter(|line| !line.starts_with(';')) {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let [name, .., "A", address] = fields[..] {
            found.entry(name.trim_end_matches('.').to_owned()).or_default().insert(address.to_owned());
        }
    }
    found
}

/// Which of these addresses answer a service's task.
fn reach(swarm: &Swarm, from: &Service, addresses: &BTreeSet<&str>) -> BTreeSet<String> {
    let ask = "for at in $0 $@; do timeout 4 wget -q -O - http://$at/client >/dev/null 2>&1 && echo $at; done; true";
    let all: Vec<_> = addresses.iter().copied().collect();
    let said = swarm.inside(from.node, &from.name, &[&["sh", "-c", ask], &all[..]].concat());
    said.expect("it runs").lines().map(str::to_owned).collect()
}

#[test]
fn a_hundred_services_on_twenty_networks_find_and_reach_those_on_their_own() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let swarm = start();
    let services = services(&swarm);
    assert_eq!(services.len(), SERVICES);
    let is_told = |from: &Service| {
        let names: Vec<_> = services.iter().flat_map(|s| [s.name.clone(), format!("tasks.{}", s.name)]).collect();
        let expected: BTreeMap<_, _> = services
            .iter()
            .filter_map(|s| Some((s, from.finds(s)?)))
            .flat_map(|(s, at)| [(s.name.clone(), at.own.clone()), (format!("tasks.{}", s.name), at.task.clone())])
            .map(|(name, address)| (name, BTreeSet::from([address])))
            .collect();
        let found = look_up(&swarm, from, &names);
        if found != expected {
            println!("{}: {found:?} is to be {expected:?}", from.name);
        }
        found == expected
    };
    for from in services.choose_multiple(&mut rng, CLIENTS) {
        swarm.until("its names", || is_told(from));
        // One of those on its networks for certain, others by chance.
        let near = services.iter().find(|s| s.name != from.name && from.finds(s).is_some());
        let others = services.choose_multiple(&mut rng, REACHED).chain(near);
        let places: Vec<_> = others.flat_map(|s| &s.on).collect();
        let addresses = places.iter().flat_map(|at| [at.own.as_str(), at.task.as_str()]).collect();
        let here: BTreeSet<_> = from.on.iter().map(|at| &at.network).collect();
        let near = places.iter().filter(|at| here.contains(&at.network));
        let expected: BTreeSet<_> = near.flat_map(|at| [at.own.clone(), at.task.clone()]).collect();
        assert_eq!(reach(&swarm, from, &addresses), expected, "{} on {here:?}", from.name);
    }
}
