//! Networks of one's own: names, addresses, stacks.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skep_e2e::{Swarm, nginx};

/// Three nodes, of which two manage, with nginx on each.
fn start(story: &str) -> Swarm {
    let swarm = Swarm::managed(story, 3, 2);
    let image = nginx().to_string_lossy().into_owned();
    (1..=3).for_each(|node| drop(swarm.must(node, &["load", "-i", &image])));
    swarm
}

/// The running tasks of a service.
fn tasks(swarm: &Swarm, service: &str) -> Vec<Value> {
    let running = swarm.running(service);
    let all = swarm.api(1, "/tasks");
    let mut tasks = all.as_array().cloned().unwrap_or_default();
    tasks.retain(|task| running.iter().any(|id| task["ID"] == json!(id)));
    tasks
}

/// The networks of a task, and its address on each.
fn places(task: &Value) -> Vec<(String, String)> {
    let place = |at: &Value| {
        let address = at["Addresses"][0].as_str().expect("an address").to_owned();
        (at["Network"]["Spec"]["Name"].as_str().expect("a name").to_owned(), address)
    };
    task["NetworksAttachments"].as_array().into_iter().flatten().map(place).collect()
}

/// The ingress network comes first, the others as whoever asked for them put them: the docker CLI does by their random ids.
fn names(task: &Value) -> Vec<String> {
    let mut names: Vec<_> = places(task).into_iter().map(|(network, _)| network).collect();
    names[1..].sort();
    names
}

#[test]
fn services_get_addresses_on_their_networks_and_networks_go_when_nobody_is_on_them() {
    let swarm = start("networks");
    // Whichever manager is asked; the second one does not lead.
    swarm.must(2, &["network", "create", "-d", "overlay", "--label", "a=b", "back"]);
    swarm.must(1, &["network", "create", "-d", "overlay", "--subnet", "10.9.0.0/24", "--internal", "data"]);
    swarm.refused(3, &["network", "create", "-d", "overlay", "x"], "from a worker node");
    swarm.refused(1, &["network", "create", "-d", "overlay", "back"], "network with name back already exists");
    swarm.refused(
        2,
        &["network", "create", "-d", "overlay", "--subnet", "10.9.0.128/25", "x"],
        "the network data (10.9.0.0/24)",
    );
    // Where the nodes themselves are.
    let lab = swarm.lab.address(3).to_string();
    let lab = lab.rsplit_once('.').map(|(net, _)| format!("{net}.0/24")).expect("an address");
    swarm.refused(2, &["network", "create", "-d", "overlay", "--subnet", &lab, "x"], "of node node");
    swarm.refused(1, &["network", "create", "-d", "overlay", "--opt", "encrypted", "x"], "leave --opt encrypted out");

    let on = ["--network", "back", "--network", "name=data,alias=store", "--replicas", "3"];
    let update = ["--update-parallelism", "0", "--update-monitor", "1s"];
    swarm.serve(8080, &[&["--name", "web", "-p", "8080:80"][..], &on, &update, &["nginx"]].concat());
    swarm.until("three tasks", || swarm.running("web").len() == 3);
    let running = tasks(&swarm, "web");
    assert!(running.iter().all(|task| names(task) == ["ingress", "back", "data"]), "{running:?}");
    let service = swarm.api(2, "/services/web");
    let vips = service["Endpoint"]["VirtualIPs"].as_array().expect("addresses").clone();
    let mut addresses: Vec<String> = running.iter().flat_map(places).map(|(_, address)| address).collect();
    addresses.extend(vips.iter().filter_map(|vip| vip["Addr"].as_str()).map(str::to_owned));
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 12, "{addresses:?}");
    assert_eq!(addresses.iter().filter(|address| address.starts_with("10.9.0.")).count(), 4, "{addresses:?}");

    // Each node shows its own containers, whoever leads; all show who else is there.
    for node in 1..=3 {
        let shown = swarm.request(node, "GET", "/networks/back", &Value::Null);
        let containers: Vec<_> = shown["Containers"].as_object().expect("containers").keys().cloned().collect();
        let own = swarm.must(node, &["ps", "-q", "--no-trunc"]);
        assert_eq!(containers, own.lines().map(str::to_owned).collect::<Vec<_>>(), "node{node}: {shown}");
    }
    let verbose = swarm.must(2, &["network", "inspect", "-v", "back"]);
    assert!(verbose.matches("\"EndpointIP\"").count() == 3 && verbose.contains("\"web\""), "{verbose}");
    assert_eq!(swarm.must(3, &["network", "ls", "--format", "{{.Name}}"]), "back\ndata\ningress");

    swarm.refused(2, &["network", "rm", "data"], "is in use by service");
    let before: BTreeSet<_> = swarm.running("web").into_iter().collect();
    swarm.must(1, &["service", "update", "-d", "--network-rm", "data", "web"]);
    swarm.until("tasks without it", || {
        let now = tasks(&swarm, "web");
        now.len() == 3 && now.iter().all(|task| names(task) == ["ingress", "back"])
    });
    assert!(swarm.running("web").iter().all(|task| !before.contains(task)));
    let service = swarm.api(1, "/services/web");
    let data = swarm.api(1, "/networks/data")["Id"].clone();
    let left: Vec<_> = vips.into_iter().filter(|vip| vip["NetworkID"] != data).collect();
    assert_eq!(service["Endpoint"]["VirtualIPs"], json!(left), "what is left stays");
    swarm.until("all nodes to answer", || (1..=3).all(|node| swarm.client(node, 8080).is_ok()));

    // Nothing of a task depends on how names lead to it.
    let before: BTreeSet<_> = swarm.running("web").into_iter().collect();
    swarm.must(1, &["service", "update", "-d", "--publish-rm", "80", "web"]);
    swarm.must(1, &["service", "update", "-d", "--endpoint-mode", "dnsrr", "web"]);
    assert_eq!(before, swarm.running("web").into_iter().collect());

    swarm.must(2, &["network", "rm", "data"]);
    swarm.must(1, &["service", "rm", "web"]);
    assert!(swarm.must(2, &["network", "prune", "-f"]).contains("back"));
    assert_eq!(swarm.must(1, &["network", "ls", "--format", "{{.Name}}"]), "ingress");
}

const STACK: &str = "
services:
  web:
    image: nginx
    ports: ['8080:80']
    networks:
      front:
      back:
        aliases: [www, shop.internal]
  store:
    image: nginx
    networks: [back]
    deploy: { endpoint_mode: dnsrr, replicas: 2 }
  lone:
    image: nginx
networks:
  front:
  back:
    driver_opts: { com.docker.network.driver.mtu: '1400' }
";

/// Deploys the stack: with the docker CLI, or by the requests that it sends where there is none.
fn deploy(swarm: &Swarm) {
    let file = swarm.lab.dir().join("compose.yml");
    std::fs::write(&file, STACK).expect("written");
    if swarm.docker(1, &["stack", "ls"]).ok {
        swarm.must(
            1,
            &["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", &file.to_string_lossy(), "shop"],
        );
        return;
    }
    let label = json!({ "com.docker.stack.namespace": "shop" });
    for network in ["front", "back", "default"] {
        let request = json!({ "Driver": "overlay", "IPAM": null, "Options": null, "Labels": label, "Name": format!("shop_{network}") });
        swarm.request(1, "POST", "/networks/create", &request);
    }
    for (name, on, endpoint, replicas) in [
        (
            "web",
            json!([{ "Target": "shop_back", "Aliases": ["www", "shop.internal", "web"] }, { "Target": "shop_front", "Aliases": ["web"] }]),
            json!({ "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress" }] }),
            1,
        ),
        ("store", json!([{ "Target": "shop_back", "Aliases": ["store"] }]), json!({ "Mode": "dnsrr" }), 2),
        ("lone", json!([{ "Target": "shop_default", "Aliases": ["lone"] }]), json!({}), 1),
    ] {
        let spec = json!({
            "Name": format!("shop_{name}"), "Labels": label, "EndpointSpec": endpoint,
            "Mode": { "Replicated": { "Replicas": replicas } },
            "TaskTemplate": { "ContainerSpec": { "Image": "nginx", "Labels": label }, "Networks": on },
        });
        let known = swarm.api(1, &format!("/services/shop_{name}"));
        match known["Version"]["Index"].as_u64() {
            Some(version) => {
                swarm.request(1, "POST", &format!("/services/shop_{name}/update?version={version}"), &spec)
            }
            None => swarm.request(1, "POST", "/services/create", &spec),
        };
    }
}

fn remove(swarm: &Swarm) {
    if swarm.docker(1, &["stack", "ls"]).ok {
        swarm.must(1, &["stack", "rm", "shop"]);
        return;
    }
    for name in ["web", "store", "lone"] {
        swarm.request(1, "DELETE", &format!("/services/shop_{name}"), &Value::Null);
    }
    for network in ["front", "back", "default"] {
        swarm.request(1, "DELETE", &format!("/networks/shop_{network}"), &Value::Null);
    }
}

#[test]
fn a_stack_makes_its_networks_and_takes_them_with_it() {
    let swarm = start("stack");
    deploy(&swarm);
    let all = ["shop_web", "shop_store", "shop_lone"];
    let running = || all.iter().map(|name| swarm.running(name).len()).sum::<usize>();
    swarm.until("all tasks", || running() == 4);
    let on = |service: &str| names(&tasks(&swarm, service)[0]);
    assert_eq!(on("shop_web"), ["ingress", "shop_back", "shop_front"]);
    assert_eq!(on("shop_store"), ["ingress", "shop_back"]);
    assert_eq!(on("shop_lone"), ["ingress", "shop_default"]);
    let vips = |service: &str| {
        let service = swarm.api(1, &format!("/services/{service}"));
        service["Endpoint"]["VirtualIPs"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((vips("shop_web"), vips("shop_store"), vips("shop_lone")), (3, 0, 1));
    let web = swarm.api(1, "/services/shop_web");
    let aliases = web["Spec"]["TaskTemplate"]["Networks"].to_string();
    assert!(aliases.contains("shop.internal") && aliases.contains("www"), "{aliases}");
    swarm.until("all nodes to answer", || (1..=3).all(|node| swarm.client(node, 8080).is_ok()));

    // What has not changed is not replaced.
    let before: BTreeSet<_> = all.iter().flat_map(|name| swarm.running(name)).collect();
    deploy(&swarm);
    assert_eq!(before, all.iter().flat_map(|name| swarm.running(name)).collect());
    let listed =
        swarm.must(1, &["network", "ls", "--filter", "label=com.docker.stack.namespace=shop", "--format", "{{.Name}}"]);
    assert_eq!(listed, "shop_back\nshop_default\nshop_front");
    remove(&swarm);
    assert_eq!(swarm.must(1, &["network", "ls", "--format", "{{.Name}}"]), "ingress");
    swarm.until("all containers to be gone", || (1..=3).all(|node| swarm.must(node, &["ps", "-q"]).is_empty()));
}
