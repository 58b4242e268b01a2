//! Networks, and services on them, as clients ask for them.

mod support;

use serde_json::{Value, json};
use support::{Node, has_docker};

fn network(more: &Value) -> String {
    let mut request = json!({
        "Name": "net", "Driver": "overlay", "Scope": "", "IPAM": { "Driver": "default", "Options": {}, "Config": [] },
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {},
        "Labels": {}, "CheckDuplicate": true,
    });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request.to_string()
}

fn service(name: &str, networks: &Value) -> Value {
    json!({
        "Name": name, "TaskTemplate": { "ContainerSpec": { "Image": "web:1" }, "Networks": networks },
        "EndpointSpec": { "Mode": "vip" },
    })
}

#[tokio::test]
async fn a_network_is_shown_as_it_was_asked_for_and_with_what_is_on_it() {
    let node = Node::manager().await;
    let asked = json!({
        "IPAM": { "Config": [{ "Subnet": "10.50.0.0/16", "Gateway": "10.50.0.9", "IPRange": "10.50.1.0/24" }] },
        "Internal": true, "Attachable": true, "EnableIPv6": true, "Labels": { "a": "b" },
        "Options": { "com.docker.network.driver.mtu": "1200" },
    });
    let created = node.request("POST", "/v1.43/networks/create", &network(&asked)).await;
    assert_eq!((created.status, created.json()["Warning"].clone()), (201, json!("")), "{created:?}");
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    // As stack files send it.
    let bare = json!({ "Name": "st_default", "IPAM": null, "Options": null, "Labels": { "com.docker.stack.namespace": "st" } });
    assert_eq!(node.request("POST", "/networks/create", &network(&bare)).await.status, 201);

    let shown = node.get("/networks/net").await.json();
    assert_eq!(shown["Id"], json!(id));
    let config = json!([{ "Subnet": "10.50.0.0/16", "IPRange": "10.50.1.0/24", "Gateway": "10.50.0.9" }]);
    assert_eq!(shown["IPAM"]["Config"], config);
    for (field, value) in
        [("Internal", json!(true)), ("Attachable", json!(true)), ("EnableIPv6", json!(true)), ("Ingress", json!(false))]
    {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(
        (&shown["Labels"], &shown["Options"]["com.docker.network.driver.mtu"]),
        (&json!({ "a": "b" }), &json!("1200"))
    );
    assert!(shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"].is_string());
    assert_eq!((shown["Containers"].clone(), shown.get("Peers"), shown.get("Services")), (json!({}), None, None));

    let on = json!([{ "Target": "net", "Aliases": ["web", "web"] }, { "Target": "st_default" }]);
    assert_eq!(node.request("POST", "/services/create", &service("web", &on).to_string()).await.status, 201);
    let spec = node.get("/services/web").await.json();
    let stored = &spec["Spec"]["TaskTemplate"]["Networks"];
    assert_eq!(
        (&stored[0]["Target"], &stored[0]["Aliases"], stored[1].get("Aliases")),
        (&json!(id), &json!(["web"]), None)
    );
    assert_eq!(spec["Endpoint"]["VirtualIPs"].as_array().unwrap().len(), 2);
    assert_eq!(spec["Endpoint"]["Spec"]["Mode"], json!("vip"));
    let shown = node.get(&format!("/networks/{}?verbose=true", &id[..12])).await.json();
    assert_eq!(shown["Containers"].as_object().unwrap().len(), 1);
    assert_eq!(shown["Peers"].as_array().unwrap().len(), 1);
    let there = &shown["Services"]["web"];
    assert!(there["VIP"].is_string() && there["Tasks"][0]["Name"].as_str().unwrap().starts_with("web.1."), "{there}");
    let container = shown["Containers"].as_object().unwrap().values().next().unwrap();
    assert!(container["IPv6Address"].as_str().unwrap().starts_with("fd73:6b65:7000::"), "{container}");
    let tasks = node.get("/tasks").await.json();
    assert_eq!(tasks[0]["NetworksAttachments"][1]["Network"]["Spec"]["Name"], json!("net"));
    node.stop().await;
}

#[tokio::test]
async fn an_ipv6_subnet_of_its_own_is_shown_wherever_addresses_are() {
    let node = Node::manager().await;
    let asked = json!({
        "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }, { "Subnet": "2001:db8:9::/64", "Gateway": "2001:db8:9::1" }] },
        "EnableIPv6": true,
    });
    assert_eq!(node.request("POST", "/networks/create", &network(&asked)).await.status, 201);
    let on = json!([{ "Target": "net" }]);
    assert_eq!(node.request("POST", "/services/create", &service("web", &on).to_string()).await.status, 201);
    let shown = node.get("/networks/net").await.json();
    let config = json!([
        { "Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1" },
        { "Subnet": "2001:db8:9::/64", "Gateway": "2001:db8:9::1" },
    ]);
    assert_eq!((&shown["IPAM"]["Config"], &shown["EnableIPv6"]), (&config, &json!(true)));
    let (id, there) = shown["Containers"].as_object().unwrap().iter().next().unwrap();
    let own = there["IPv6Address"].as_str().unwrap().strip_suffix("/64").unwrap();
    assert!(own.starts_with("2001:db8:9::a00:"), "{there}: what goes with the IPv4 one");
    let container = node.get(&format!("/containers/{id}/json")).await.json();
    let there = &container["NetworkSettings"]["Networks"]["net"];
    assert_eq!((&there["GlobalIPv6Address"], &there["GlobalIPv6PrefixLen"]), (&json!(own), &json!(64)));
    let ingress = &container["NetworkSettings"]["Networks"]["ingress"];
    assert_eq!((&ingress["GlobalIPv6Address"], &ingress["GlobalIPv6PrefixLen"]), (&json!(""), &json!(0)));
    let tasks = node.get("/tasks").await.json();
    let attached = tasks[0]["NetworksAttachments"].as_array().unwrap();
    let there = attached.iter().find(|a| a["Network"]["Spec"]["Name"] == "net").unwrap();
    assert_eq!(
        (there["Addresses"].as_array().unwrap().len(), &there["Addresses"][1]),
        (2, &json!(format!("{own}/64")))
    );
    assert_eq!(there["Network"]["IPAMOptions"]["Configs"], config);
    node.stop().await;
}

#[tokio::test]
async fn where_old_clients_put_networks_counts_when_they_are_nowhere_else() {
    let node = Node::manager().await;
    for name in ["a", "b"] {
        assert_eq!(node.request("POST", "/networks/create", &network(&json!({ "Name": name }))).await.status, 201);
    }
    let id = |name: &'static str| {
        let node = &node;
        async move { node.get(&format!("/networks/{name}")).await.json()["Id"].clone() }
    };
    let (a, b) = (id("a").await, id("b").await);
    let mut spec = service("old", &Value::Null);
    spec["Networks"] = json!([{ "Target": "a" }]);
    assert_eq!(node.request("POST", "/services/create", &spec.to_string()).await.status, 201);
    let shown = node.get("/services/old").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{ "Target": a }]));
    let mut both = service("both", &json!([{ "Target": b }]));
    both["Networks"] = json!([{ "Target": "a" }]);
    assert_eq!(node.request("POST", "/services/create", &both.to_string()).await.status, 201);
    let shown = node.get("/services/both").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{ "Target": b }]));
    node.stop().await;
}

#[tokio::test]
async fn addresses_that_cannot_be_say_what_to_do() {
    let node = Node::manager().await;
    let two = |other: &str| json!({ "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24" }, { "Subnet": other }] } });
    for (more, status, fragment) in [
        (two("10.8.0.0/24"), 400, "one IPv4 subnet"),
        (
            json!({ "IPAM": { "Config": [{ "Subnet": "fd00::/64" }, { "Subnet": "fd01::/64" }] } }),
            400,
            "one IPv6 subnet: leave the others out",
        ),
        (
            json!({ "IPAM": { "Config": [{ "Subnet": "fd00::/64", "IPRange": "fd00::/80" }] } }),
            501,
            "give --ip-range a part of the IPv4 subnet",
        ),
        (
            json!({ "IPAM": { "Config": [{ "Subnet": "fd00::/64", "Gateway": "10.9.0.1" }] } }),
            400,
            "10.9.0.1 is no address of the subnet fd00::/64",
        ),
        (json!({ "IPAM": { "Config": [{ "Subnet": "x" }] } }), 400, "a network, like 10.9.0.0/24 or 2001:db8:9::/64"),
        (
            json!({ "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24", "Gateway": "x" }] } }),
            400,
            "an address, like 10.9.0.1 or 2001:db8:9::1",
        ),
        (
            json!({ "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24", "AuxiliaryAddresses": { "a": "10.9.0.5" } }] } }),
            501,
            "--ip-range",
        ),
    ] {
        let answer = node.request("POST", "/networks/create", &network(&more)).await;
        assert_eq!(answer.status, status, "{more}: {}", answer.message());
        assert!(answer.message().contains(fragment), "{more}: {}", answer.message());
    }
    node.stop().await;
}

#[tokio::test]
async fn networks_that_cannot_be_say_what_to_do() {
    let node = Node::manager().await;
    for (more, status, fragment) in [
        (json!({ "Name": "" }), 400, "needs a name"),
        (json!({ "Driver": "bridge" }), 501, "--driver overlay"),
        (json!({ "Driver": "macvlan" }), 501, "not \"macvlan\""),
        (json!({ "Scope": "local" }), 400, "leave --scope local out"),
        (json!({ "ConfigOnly": true }), 501, "ConfigOnly"),
        (json!({ "ConfigFrom": { "Network": "x" } }), 501, "give the options with the network itself"),
        (json!({ "Options": { "encrypted": "" } }), 501, "leave --opt encrypted out"),
        (
            json!({ "Options": { "com.docker.network.driver.overlay.vxlanid_list": "5000" } }),
            501,
            "numbers its networks itself",
        ),
        (json!({ "IPAM": { "Driver": "dhcp" } }), 501, "leave --ipam-driver and --ipam-opt out"),
        (json!({ "Options": { "com.docker.network.driver.mtu": "100" } }), 400, "no size of a packet in bytes"),
        (json!({ "Ingress": true, "Internal": true }), 400, "neither internal nor attachable"),
        (json!({ "Name": "second", "Ingress": true }), 409, "is already present"),
        (json!({ "Name": "ingress" }), 409, "network with name ingress already exists"),
    ] {
        let answer = node.request("POST", "/networks/create", &network(&more)).await;
        assert_eq!(answer.status, status, "{more}: {}", answer.message());
        assert!(answer.message().contains(fragment), "{more}: {}", answer.message());
    }
    for (networks, status, fragment) in [
        (json!([{ "Target": "nope" }]), 500, "network nope not found"),
        (json!([{ "Target": "ingress" }]), 400, "publish a port instead"),
        (json!([{ "Target": "host" }]), 501, "--publish mode=host"),
    ] {
        let answer = node.request("POST", "/services/create", &service("web", &networks).to_string()).await;
        assert_eq!(
            (answer.status, answer.message().contains(fragment)),
            (status, true),
            "{networks}: {}",
            answer.message()
        );
    }
    assert_eq!(node.get("/networks").await.json().as_array().unwrap().len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn only_managers_make_networks() {
    let node = Node::start().await;
    let answer = node.request("POST", "/networks/create", &network(&json!({}))).await;
    assert_eq!((answer.status, answer.message().contains("not a swarm manager")), (500, true));
    node.backend.make_worker();
    let answer = node.request("POST", "/networks/create", &network(&json!({}))).await;
    assert_eq!((answer.status, answer.message().contains("from a worker node")), (403, true));
    assert_eq!(node.get("/networks").await.json(), json!([]));
    assert_eq!(node.get("/networks/net").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn networks_are_removed_pruned_and_told_of() {
    let node = Node::manager().await;
    for (name, label) in [("used", "x"), ("free", "x"), ("kept", "keep")] {
        let more = json!({ "Name": name, "Labels": { label: "1" } });
        assert_eq!(node.request("POST", "/networks/create", &network(&more)).await.status, 201);
    }
    let on = service("web", &json!([{ "Target": "used" }]));
    assert_eq!(node.request("POST", "/services/create", &on.to_string()).await.status, 201);
    let refused = node.request("DELETE", "/networks/used", "").await;
    assert_eq!((refused.status, refused.message().contains("code = FailedPrecondition desc = network")), (400, true));
    assert!(refused.message().contains("is in use by service"), "{}", refused.message());
    let names = async |filters: &str| -> Vec<String> {
        let listed = node.get(&format!("/networks?filters={filters}")).await.json();
        let mut names: Vec<_> =
            listed.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names("%7B%22dangling%22:%5B%22true%22%5D%7D").await, ["free", "kept"]);
    assert_eq!(names("%7B%22label%22:%5B%22x=1%22%5D%7D").await, ["free", "used"]);
    let nothing = node.request("POST", "/networks/prune?filters=%7B%22until%22:%5B%221h%22%5D%7D", "").await;
    assert_eq!(nothing.json(), json!({ "NetworksDeleted": null }));
    let pruned = node.request("POST", "/networks/prune?filters=%7B%22label!%22:%5B%22keep%22%5D%7D", "").await;
    assert_eq!(pruned.json(), json!({ "NetworksDeleted": ["free"] }));
    assert_eq!(node.request("DELETE", "/networks/kept", "").await.status, 204);
    assert_eq!(node.request("DELETE", "/networks/kept", "").await.status, 404);
    assert_eq!(names("").await, ["ingress", "used"]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let events = node.get(&format!("/events?since=1&until={now}")).await;
    let text = String::from_utf8_lossy(&events.body).into_owned();
    let told = |action: &str| text.lines().filter(|l| l.contains(r#""Type":"network""#) && l.contains(action)).count();
    assert_eq!(
        (told(r#""Action":"create""#), told(r#""Action":"remove""#), told(r#""Action":"update""#)),
        (3, 2, 0),
        "{text}"
    );
    node.stop().await;
}

#[tokio::test]
async fn the_docker_cli_makes_networks_and_puts_services_on_them() {
    if !has_docker() {
        return over_http().await;
    }
    let node = Node::manager().await;
    node.ok(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        "--subnet",
        "10.9.0.0/24",
        "--label",
        "a=b",
        "front",
    ])
    .await;
    node.ok(&["network", "create", "-d", "overlay", "--scope", "swarm", "--ipv6", "back"]).await;
    assert!(node.fails(&["network", "create", "plain"]).await.contains("--driver overlay"));
    let ls = node.ok(&["network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}"]).await;
    assert_eq!(ls, "back\nfront\ningress\n");
    let create = ["service", "create", "-d", "--name", "web", "--network", "front", "--network", "name=back,alias=w"];
    node.ok(&[&create[..], &["nginx"]].concat()).await;
    let targets = ["service", "inspect", "--format", "{{range .Spec.TaskTemplate.Networks}}{{.Aliases}}{{end}}", "web"];
    // The docker CLI puts them in the order of their ids.
    assert!(["[][w]\n", "[w][]\n"].contains(&node.ok(&targets).await.as_str()));
    assert!(node.ok(&["service", "inspect", "--pretty", "web"]).await.contains("Networks:"));
    node.ok(&["service", "update", "-d", "--network-rm", "front", "web"]).await;
    assert_eq!(node.ok(&targets).await, "[w]\n");
    node.ok(&["service", "update", "-d", "--network-add", "name=front,alias=f", "web"]).await;
    assert!(node.fails(&["network", "rm", "back"]).await.contains("is in use by service"));
    assert!(node.fails(&["service", "create", "--network", "nope", "nginx"]).await.contains("network nope not found"));
    let verbose = node.ok(&["network", "inspect", "-v", "front"]).await;
    assert!(verbose.contains("\"Services\"") && verbose.contains("web.1."), "{verbose}");
    node.ok(&["service", "rm", "web"]).await;
    let pruned = node.ok(&["network", "prune", "-f"]).await;
    assert!(pruned.contains("front") && pruned.contains("back"), "{pruned}");
    node.stop().await;
}

/// The same, where there is no CLI.
async fn over_http() {
    let node = Node::manager().await;
    assert_eq!(node.request("POST", "/networks/create", &network(&json!({}))).await.status, 201);
    let on = service("web", &json!([{ "Target": "net" }]));
    assert_eq!(node.request("POST", "/services/create", &on.to_string()).await.status, 201);
    assert_eq!(node.request("DELETE", "/networks/net", "").await.status, 400);
    assert_eq!(node.request("DELETE", "/services/web", "").await.status, 200);
    assert_eq!(node.request("DELETE", "/networks/net", "").await.status, 204);
    node.stop().await;
}
