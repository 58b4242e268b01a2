//! The API over plain HTTP: what every client relies on.

mod support;

use serde_json::{Value, json};
use skep_engine::{Listeners, ServeError, Server};
use support::Node;

fn web(name: &str, port: u32) -> String {
    json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": "nginx" } },
        "Mode": { "Replicated": { "Replicas": 2 } },
        "EndpointSpec": { "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": port }] },
    })
    .to_string()
}

#[tokio::test]
async fn ping_says_what_clients_negotiate_by() {
    let node = Node::start().await;
    for (method, length) in [("GET", 2), ("HEAD", 0)] {
        let answer = node.request(method, "/_ping", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.len(), length);
        for header in [
            "api-version: 1.47",
            "docker-experimental: false",
            "ostype: linux",
            "server: skep/",
            "swarm: inactive",
            "builder-version: 2",
            "cache-control: no-cache, no-store, must-revalidate",
        ] {
            assert!(answer.headers.contains(header), "{header} is not in {}", answer.headers);
        }
        assert_eq!(answer.headers.matches("content-length").count(), 1, "{}", answer.headers);
    }
    node.stop().await;
}

#[tokio::test]
async fn versions_and_paths_that_are_not_there() {
    let node = Node::start().await;
    let answer = node.get("/v1.99/services").await;
    assert_eq!((answer.status, answer.message().contains("client version 1.99 is too new")), (400, true));
    let answer = node.get("/v1.1/services").await;
    assert_eq!(answer.status, 400);
    assert!(answer.headers.contains("text/plain"));
    assert!(String::from_utf8_lossy(&answer.body).contains("client version 1.1 is too old"));
    for (method, path) in [("GET", "/v1.41/nosuch"), ("PUT", "/v1.41/services")] {
        let answer = node.request(method, path, "").await;
        assert_eq!((answer.status, answer.message()), (404, "page not found".to_owned()));
    }
    node.stop().await;
}

#[tokio::test]
async fn without_a_swarm_managers_calls_are_refused_as_recorded() {
    let node = Node::start().await;
    let none = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    for path in ["/nodes", "/services", "/swarm", "/swarm/unlockkey", "/tasks", "/secrets"] {
        let answer = node.get(path).await;
        assert_eq!((answer.status, answer.message()), (503, none.to_owned()), "{path}");
    }
    node.backend.make_worker();
    let answer = node.request("POST", "/services/create", &web("x", 8080)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("Worker nodes can't be used to view or modify cluster state"));
    node.stop().await;
}

#[tokio::test]
async fn a_service_is_created_found_updated_and_removed() {
    let node = Node::manager().await;
    let created = node.request("POST", "/v1.41/services/create", &web("web", 8080)).await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.json()["ID"].as_str().unwrap().to_owned();
    for name in [id.as_str(), "web", &id[..6]] {
        assert_eq!(node.get(&format!("/services/{name}")).await.json()["ID"], json!(id));
    }
    assert_eq!(node.get("/services/we").await.status, 404, "names are not found by their beginnings");

    let service = node.get("/services/web").await.json();
    assert_eq!(service["Endpoint"]["Ports"][0]["PublishedPort"], json!(8080));
    assert_eq!(service["Spec"]["TaskTemplate"].get("RestartPolicy"), None);
    let full = node.get("/services/web?insertDefaults=true").await.json();
    assert_eq!(full["Spec"]["TaskTemplate"]["RestartPolicy"]["Delay"], json!(5_000_000_000_u64));

    let mut spec = service["Spec"].clone();
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let version = service["Version"]["Index"].as_u64().unwrap();
    let update = format!("/services/{id}/update?version=");
    let updated = node.request("POST", &format!("{update}{version}"), &spec.to_string()).await;
    assert_eq!((updated.status, updated.json()), (200, json!({ "Warnings": null })));
    let stale = node.request("POST", &format!("{update}{version}"), &spec.to_string()).await;
    assert_eq!(
        (stale.status, stale.message()),
        (500, "rpc error: code = Unknown desc = update out of sequence".to_owned())
    );
    assert_eq!(node.request("POST", &update, &spec.to_string()).await.status, 400);

    let current = |flag: &str| {
        format!("/tasks?filters=%7B%22_up-to-date%22%3A%5B%22{flag}%22%5D%2C%22service%22%3A%7B%22{id}%22%3Atrue%7D%7D")
    };
    assert_eq!(node.get(&current("true")).await.json().as_array().unwrap().len(), 2);
    assert_eq!(node.get(&current("false")).await.json().as_array().unwrap().len(), 2);

    assert_eq!(node.request("DELETE", "/services/web", "").await.status, 200);
    let gone = node.get("/services/web").await;
    assert_eq!((gone.status, gone.message()), (404, "service web not found".to_owned()));
    node.stop().await;
}

#[tokio::test]
async fn options_stay_labels_and_an_address_becomes_one() {
    let node = Node::manager().await;
    let mut spec: Value = serde_json::from_str(&web("web", 8080)).unwrap();
    spec["EndpointSpec"]["Ports"][0]["Protocol"] = json!("sctp");
    spec["EndpointSpec"]["Ports"][0]["HostIp"] = json!("127.0.0.1");
    spec["Labels"] = json!({ "skep.publish.8080.idle-timeout": "1h", "other": "x" });
    let created = node.request("POST", "/services/create", &spec.to_string()).await;
    assert_eq!(created.status, 201, "{created:?}");
    let shown = node.get("/services/web").await.json();
    let labels =
        json!({ "skep.publish.8080.idle-timeout": "1h", "skep.publish.8080/sctp.addr": "127.0.0.1", "other": "x" });
    assert_eq!(shown["Spec"]["Labels"], labels);
    assert_eq!(shown["Spec"]["EndpointSpec"]["Ports"][0].get("HostIP"), None);
    // What was shown is taken back as it is, but not without the port that the labels are about.
    let update = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    let mut spec = shown["Spec"].clone();
    spec["EndpointSpec"]["Ports"] = json!([]);
    let refused = node.request("POST", &update, &spec.to_string()).await;
    assert_eq!((refused.status, refused.message().contains("--label-rm")), (400, true), "{refused:?}");
    assert_eq!(node.request("POST", &update, &shown["Spec"].to_string()).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_port_that_a_node_leaves_to_its_process_is_told_where_people_look() {
    let node = Node::manager().await;
    let created = node.request("POST", "/services/create", &web("web", 8080)).await;
    assert_eq!((created.status, created.json().get("Warnings")), (201, None));
    node.request("POST", "/services/create", &web("other", 9090)).await;
    let conflict = |port: u16| skep_model::PortConflict {
        protocol: skep_model::Protocol::Tcp,
        port: port.try_into().unwrap(),
        holder: "nginx (process 812)".to_owned(),
    };
    node.backend.set_port_conflicts(&[conflict(8080)]);
    let told = "port 8080/tcp is taken by nginx (process 812)";
    let nodes = node.get("/nodes").await.json();
    assert_eq!(nodes[0]["Status"]["Message"], json!(format!("published {told}: this node does not answer on it")));
    let errors = async |service: &str| {
        let filters =
            json!({ "service": [service] }).to_string().replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let tasks = node.get(&format!("/tasks?filters={filters}")).await.json();
        tasks.as_array().unwrap().iter().map(|t| t["Status"]["Err"].clone()).collect::<Vec<_>>()
    };
    let there = json!(format!("{told} on node1, which does not answer on it"));
    assert_eq!(errors("web").await, [there.clone(), there.clone()]);
    assert!(errors("other").await.iter().all(Value::is_null));
    let shown = node.get("/services/web").await.json();
    let update = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    let updated = node.request("POST", &update, &shown["Spec"].to_string()).await;
    assert_eq!(updated.json()["Warnings"], json!([there]));
    let created = node.request("POST", "/services/create", &web("third", 0)).await;
    assert_eq!(created.json().get("Warnings"), None);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let events = node.get(&format!("/events?since=1&until={now}")).await;
    assert!(String::from_utf8_lossy(&events.body).contains(r#""taken.new":"8080/tcp""#), "{events:?}");

    node.backend.set_port_conflicts(&[]);
    assert_eq!(node.get("/nodes").await.json()[0]["Status"].get("Message"), None);
    assert!(errors("web").await.iter().all(Value::is_null));
    node.stop().await;
}

/// Changes a well-formed request so that it makes no sense, or asks for what is not there.
fn spoilt(path: &str, value: Value) -> String {
    let mut spec: Value = serde_json::from_str(&web("web", 8080)).unwrap();
    let mut at = &mut spec;
    for key in path.split('/') {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        };
    }
    *at = value;
    spec.to_string()
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_change_nothing() {
    let node = Node::manager().await;
    let container = "TaskTemplate/ContainerSpec";
    for (path, value, status, fragment) in [
        ("EndpointSpec/Ports/0/TargetPort", json!(0), 400, "TargetPort is missing"),
        ("EndpointSpec/Ports/0/TargetPort", json!(70000), 400, "TargetPort 70000 is no port"),
        ("EndpointSpec/Ports/0/PublishedPort", json!(70000), 400, "PublishedPort 70000 is no port"),
        ("EndpointSpec/Ports/0/PublishedPort", json!(-1), 400, "PublishedPort -1 is no port"),
        ("EndpointSpec/Ports/0/Protocol", json!("foo"), 400, "unknown protocol \"foo\""),
        ("EndpointSpec/Ports/0/HostIP", json!("eth0"), 400, "set the service label skep.publish.<port>.addr"),
        ("EndpointSpec/Ports/0/PublishMode", json!("bogus"), 400, "unknown publish mode \"bogus\""),
        ("EndpointSpec/Mode", json!("bogus"), 400, "invalid resolution mode"),
        ("EndpointSpec/Mode", json!("dnsrr"), 400, "can't be used with dnsrr mode"),
        ("Name", json!("a b"), 400, "name must be valid as a DNS name component"),
        ("Name", json!("a".repeat(64)), 400, "63 characters or fewer"),
        ("Name", json!(""), 400, "name must be valid"),
        ("Mode/Replicated/Replicas", json!(-1), 400, "Mode.Replicated.Replicas"),
        ("Labels", json!({ "skep.publish.80.lb": "maglev" }), 400, "does not publish port 80, but 8080/tcp"),
        ("Labels", json!({ "skep.publish.8080.lb": "random" }), 400, "maglev, local-first"),
        ("Labels", json!({ "skep.publish.8080.colour": "red" }), 400, "idle-timeout or drain"),
        ("Labels", json!({ "skep.debug": "1" }), 400, "label \"skep.debug\" means nothing"),
        ("Mode/GlobalJob", json!({}), 501, "jobs"),
        ("TaskTemplate/ContainerSpec/Image", json!("WEB:1"), 400, "must be lowercase"),
        ("TaskTemplate/ContainerSpec/Image", json!("web:1:2"), 400, "is not a valid repository/tag"),
        ("TaskTemplate/ContainerSpec/Image", json!(""), 400, "image reference must be provided"),
        ("TaskTemplate/ContainerSpec/Secrets", json!([{ "SecretName": "x" }]), 400, "ContainerSpec.Secrets"),
        (
            "TaskTemplate/ContainerSpec/Configs",
            json!([{ "ConfigName": "x", "Runtime": {} }]),
            501,
            "ContainerSpec.Configs",
        ),
        ("TaskTemplate/ContainerSpec/healthcheck", json!({ "Test": ["CURL", "x"] }), 400, "ContainerSpec.Healthcheck"),
        ("TaskTemplate/ContainerSpec/Healthcheck", json!({ "Interval": 5 }), 400, "cannot be less than 1ms"),
        ("TaskTemplate/ContainerSpec/StopGracePeriod", json!(-1), 400, "StopGracePeriod"),
        (
            "TaskTemplate/ContainerSpec/Mounts",
            json!([{ "Type": "bind", "Source": "x", "Target": "/a" }]),
            400,
            "absolute path of the node",
        ),
        ("TaskTemplate/Placement", json!({ "Constraints": ["node.role"] }), 400, "expected one operator"),
        ("TaskTemplate/RestartPolicy", json!({ "Condition": "sometimes" }), 400, "invalid RestartCondition"),
        ("TaskTemplate/Resources", json!({ "Limits": { "MemoryBytes": 1000 } }), 400, "Must be at least 4MiB"),
        ("TaskTemplate/Networks", json!([{ "Target": "nope" }]), 500, "network nope not found"),
        ("UpdateConfig", json!({ "FailureAction": "explode" }), 400, "unrecognized update failure action explode"),
        ("UpdateConfig", json!({ "Order": "sideways" }), 400, "unrecognized update order sideways"),
        ("UpdateConfig", json!({ "MaxFailureRatio": 2.0 }), 400, "update-maxfailureratio"),
    ] {
        assert!(path.starts_with("TaskTemplate") || !path.starts_with(container));
        let answer = node.request("POST", "/services/create", &spoilt(path, value.clone())).await;
        assert_eq!(answer.status, status, "{path} = {value}: {}", answer.message());
        assert!(answer.message().contains(fragment), "{path} = {value}: {}", answer.message());
    }
    assert_eq!(node.request("POST", "/services/create", "{bad").await.status, 400);
    assert_eq!(node.get("/services").await.json(), json!([]));
    node.stop().await;
}

#[tokio::test]
async fn secrets_and_configs_are_kept_and_secrets_never_shown() {
    let node = Node::manager().await;
    for (kind, shows) in [("secrets", false), ("configs", true)] {
        let spec = json!({ "Name": "key", "Labels": { "a": "b" }, "Data": "czNjcmV0" });
        let made = node.request("POST", &format!("/{kind}/create"), &spec.to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["ID"].as_str().expect("an id").to_owned();
        assert_eq!(node.request("POST", &format!("/{kind}/create"), &spec.to_string()).await.status, 409);
        for name in ["key", id.as_str(), &id[..20]] {
            let shown = node.get(&format!("/{kind}/{name}")).await.json();
            assert_eq!((&shown["ID"], &shown["Spec"]["Labels"]["a"]), (&json!(id), &json!("b")));
            assert_eq!(shown["Spec"].get("Data").is_some(), shows);
        }
        for (filter, found) in
            [("", 1), (r#"{"name":["ke"]}"#, 1), (r#"{"names":["ke"]}"#, 0), (r#"{"label":["a=c"]}"#, 0)]
        {
            let listed = node.get(&format!("/{kind}?filters={}", filter.replace('"', "%22"))).await.json();
            assert_eq!(listed.as_array().map(Vec::len), Some(found), "{filter}");
        }
        let version = node.get(&format!("/{kind}/key")).await.json()["Version"]["Index"].clone();
        let other = json!({ "Name": "key", "Labels": { "a": "c" } }).to_string();
        assert_eq!(node.request("POST", &format!("/{kind}/key/update?version={version}"), &other).await.status, 200);
        assert_eq!(node.request("POST", &format!("/{kind}/key/update?version={version}"), &other).await.status, 500);
        for bad in [json!({ "Name": "a b", "Data": "eA==" }), json!({ "Name": "a", "Data": "!" })] {
            assert_eq!(node.request("POST", &format!("/{kind}/create"), &bad.to_string()).await.status, 400, "{bad}");
        }
        let jinja = json!({ "Name": "t", "Data": "eA==", "Templating": { "Name": "jinja" } }).to_string();
        assert_eq!(node.request("POST", &format!("/{kind}/create"), &jinja).await.status, 501);
        assert_eq!(node.request("DELETE", &format!("/{kind}/key"), "").await.status, 204);
        assert_eq!(node.get(&format!("/{kind}/key")).await.status, 404);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_program_in_a_container_is_made_started_once_and_looked_at() {
    let node = Node::manager().await;
    assert_eq!(node.request("POST", "/services/create", &web("web", 8080)).await.status, 201);
    let listed = node.get("/containers/json").await.json();
    let container = listed[0]["Id"].as_str().expect("a container").to_owned();
    let made = async |options: Value| {
        let answer = node.request("POST", &format!("/containers/{container}/exec"), &options.to_string()).await;
        (answer.status, answer.json()["Id"].as_str().unwrap_or_default().to_owned(), answer.message())
    };
    for (options, status, fragment) in [
        (json!({}), 400, "No exec command specified"),
        (json!({ "Cmd": ["x"], "Privileged": true }), 501, "--cap-add"),
        (json!({ "Cmd": ["x"], "DetachKeys": "ctrl-ä" }), 400, "detach keys"),
    ] {
        let (is, _, message) = made(options).await;
        assert_eq!((is, message.contains(fragment)), (status, true), "{message}");
    }
    let (_, id, _) = made(json!({ "Cmd": ["echo", "hi", "you"], "AttachStdout": true })).await;
    let shown = node.get(&format!("/exec/{id}/json")).await.json();
    assert_eq!(
        (&shown["Running"], &shown["ExitCode"], &shown["ContainerID"]),
        (&json!(false), &Value::Null, &json!(container))
    );
    let said = node.request("POST", &format!("/exec/{id}/start"), "{}").await;
    assert_eq!((said.status, &said.body[..]), (200, &b"\x01\0\0\0\0\0\0\x07hi you\n"[..]));
    assert!(said.headers.contains("application/vnd.docker.multiplexed-stream"), "{}", said.headers);
    let shown = node.get(&format!("/exec/{id}/json")).await.json();
    assert_eq!((&shown["ExitCode"], &shown["ProcessConfig"]["entrypoint"]), (&json!(0), &json!("echo")));
    assert_eq!(node.request("POST", &format!("/exec/{id}/start"), "{}").await.status, 409);
    assert_eq!(node.request("POST", "/exec/nosuch/start", "{}").await.status, 404);
    // One that cannot be run says so where its output would be.
    let (_, id, _) = made(json!({ "Cmd": ["nosuch"], "AttachStdout": true, "Tty": true })).await;
    let said = node.request("POST", &format!("/exec/{id}/start"), "{}").await;
    assert!(String::from_utf8_lossy(&said.body).contains("executable file not found in $PATH"), "{said:?}");
    assert_eq!(node.get(&format!("/exec/{id}/json")).await.json()["ExitCode"], json!(127));
    assert_eq!(node.request("POST", &format!("/exec/{id}/resize?h=1&w=2"), "").await.status, 409);
    node.stop().await;
}

#[tokio::test]
async fn what_is_asked_of_certificates_is_kept_and_half_a_root_or_somebody_elses_is_refused() {
    let node = Node::manager().await;
    let swarm = node.get("/swarm").await.json();
    let update = async |ca: Value, version: &Value| {
        let mut spec = swarm["Spec"].clone();
        spec["CAConfig"] = ca;
        node.request("POST", &format!("/swarm/update?version={version}"), &spec.to_string()).await
    };
    let version = &swarm["Version"]["Index"];
    for (ca, status, fragment) in [
        (json!({ "ExternalCAs": [{ "URL": "https://ca" }], "SigningCACert": "x" }), 501, "ask no external CA"),
        (json!({ "SigningCAKey": "x" }), 400, "the signing CA cert must also be provided"),
        (json!({ "SigningCACert": "x" }), 400, "give --ca-key too"),
        (json!({ "NodeCertExpiry": -1 }), 400, "CAConfig.NodeCertExpiry"),
    ] {
        let answer = update(ca, version).await;
        assert_eq!((answer.status, answer.message().contains(fragment)), (status, true), "{}", answer.message());
    }
    let asked =
        json!({ "NodeCertExpiry": 7_200_000_000_000_i64, "ForceRotate": 3, "SigningCACert": "c", "SigningCAKey": "k" });
    assert_eq!(update(asked, version).await.status, 200);
    let kept = node.get("/swarm").await.json()["Spec"]["CAConfig"].clone();
    assert_eq!(kept, json!({ "NodeCertExpiry": 7_200_000_000_000_i64, "ForceRotate": 3 }), "no key is ever shown");
    node.stop().await;
}

#[tokio::test]
async fn containers_are_removed_and_running_ones_only_by_force() {
    let node = Node::manager().await;
    assert_eq!(node.request("POST", "/services/create", &web("web", 8080)).await.status, 201);
    let listed = node.get("/containers/json").await.json();
    let id = listed[0]["Id"].as_str().expect("a container");
    let refused = node.request("DELETE", &format!("/containers/{id}"), "").await;
    assert_eq!((refused.status, refused.message().contains("container is running")), (409, true), "{refused:?}");
    assert_eq!(node.request("DELETE", &format!("/containers/{}?force=1", &id[..12]), "").await.status, 204);
    let left = node.get("/containers/json").await.json();
    assert!(left.as_array().is_some_and(|all| all.iter().all(|c| c["Id"] != listed[0]["Id"])), "{left}");
    assert_eq!(node.request("DELETE", &format!("/containers/{id}?force=1"), "").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn filters_choose_and_unknown_ones_are_refused() {
    let node = Node::manager().await;
    for (name, port) in [("web", 8080), ("web2", 8081), ("db", 8082)] {
        assert_eq!(node.request("POST", "/services/create", &web(name, port)).await.status, 201);
    }
    let count = async |filters: &str| {
        let filters = filters.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        node.get(&format!("/services?filters={filters}")).await.json().as_array().map(Vec::len)
    };
    assert_eq!(count(r#"{"name":{"web":true}}"#).await, Some(2));
    assert_eq!(count(r#"{"name":["db"]}"#).await, Some(1));
    assert_eq!(count(r#"{"mode":{"global":true}}"#).await, Some(0));
    assert_eq!(count(r#"{"foo":{"x":true}}"#).await, None);
    let status = node.get("/services?status=true").await.json();
    assert_eq!(status[0]["ServiceStatus"], json!({ "RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0 }));
    node.stop().await;
}

#[tokio::test]
async fn events_of_the_past_end_and_those_to_come_end_with_the_server() {
    let node = Node::manager().await;
    assert_eq!(node.request("POST", "/services/create", &web("web", 8080)).await.status, 201);
    let past = "/events?since=1&until=1&filters=%7B%22type%22%3A%5B%22service%22%5D%7D";
    assert_eq!(node.get(past).await.body, b"", "nothing happened in 1970");
    let now = skep_model::Timestamp::now().as_second();
    // The event is on its way through the server's own queue: following until it ends waits for it.
    let until = format!("/events?since=1&until={}&filters=%7B%22type%22%3A%5B%22service%22%5D%7D", now + 2);
    let events = node.get(&until).await;
    let event: Value = serde_json::from_slice(events.body.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!((&event["Type"], &event["Action"]), (&json!("service"), &json!("create")));
    assert_eq!(event["Actor"]["Attributes"], json!({ "name": "web" }));

    let socket = node.socket();
    let endless = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (head, stream)
    });
    let (head, mut stream) = endless.await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    node.stop().await;
    tokio::task::spawn_blocking(move || std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn logs_are_framed() {
    let node = Node::manager().await;
    assert_eq!(node.request("POST", "/services/create", &web("web", 8080)).await.status, 201);
    let logs = node.get("/services/web/logs?stdout=1&tail=1").await;
    assert!(logs.headers.contains("application/vnd.docker.multiplexed-stream"), "{}", logs.headers);
    assert_eq!(logs.body, [b"\x01\0\0\0\0\0\0\x08serving\n".as_slice(); 2].concat());
    assert_eq!(node.get("/services/web/logs").await.status, 400, "no stream was chosen");
    node.stop().await;
}

#[tokio::test]
async fn images_are_loaded_and_a_corrupt_archive_is_not() {
    let node = Node::start().await;
    let loaded = node.request("POST", "/images/load?quiet=1", "reg.example:5000/team/web:1").await;
    assert_eq!(loaded.json(), json!({ "stream": "Loaded image: reg.example:5000/team/web:1\n" }));
    assert_eq!(node.request("POST", "/images/load", "::nonsense::").await.status, 400);
    let image = node.get("/images/reg.example:5000/team/web:1/json").await.json();
    assert_eq!(image["RepoTags"], json!(["reg.example:5000/team/web:1"]));
    assert_eq!(node.get("/v1.41/images/json").await.json()[0]["VirtualSize"], json!(1_982_556));
    assert_eq!(node.get("/images/json").await.json()[0].get("VirtualSize"), None);
    node.stop().await;
}

/// `{"username":"ann","password":"secret"}`
const ANN: &str = "eyJ1c2VybmFtZSI6ImFubiIsInBhc3N3b3JkIjoic2VjcmV0In0=";
/// `{"username":"ann","password":"wrong"}`, without padding
const WRONG: &str = "eyJ1c2VybmFtZSI6ImFubiIsInBhc3N3b3JkIjoid3JvbmcifQ";

#[tokio::test]
async fn images_are_pulled_and_pruned() {
    let node = Node::start().await;
    let pull = "/images/create?fromImage=reg.example%3A5000%2Fweb&tag=2";
    let pulled = node.request_as(ANN, "POST", pull, "").await;
    let text = String::from_utf8(pulled.body.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "status": "Pulling from web", "id": "2" }));
    let last = json!({ "status": "Status: Downloaded newer image for reg.example:5000/web:2" });
    assert_eq!((pulled.status, lines.last()), (200, Some(&last)));
    assert_eq!(node.get("/images/reg.example:5000/web:2/json").await.status, 200);

    // What goes wrong at once is a refusal, what goes wrong later the end of the stream.
    assert_eq!(node.request("POST", "/images/create?fromImage=missing&tag=1", "").await.status, 404);
    let wrong = node.request_as(WRONG, "POST", pull, "").await;
    assert!(wrong.status == 200 && String::from_utf8_lossy(&wrong.body).contains("\"error\":\"unauthorized\""));
    assert_eq!(node.request_as("?", "POST", pull, "").await.status, 400);
    assert_eq!(node.request("POST", "/images/create?fromImage=UPPER", "").await.status, 400);
    assert_eq!(node.request("POST", "/images/create?fromSrc=http://x/y.tar", "").await.status, 501);
    assert_eq!(node.request("POST", "/images/web/push", "").await.status, 501);

    let pruned = node.request("POST", "/images/prune", "").await.json();
    assert_eq!(pruned, json!({ "ImagesDeleted": null, "SpaceReclaimed": 0 }));
    let all = node.request("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", "").await.json();
    assert!(all["SpaceReclaimed"].as_u64() > Some(0), "{all}");
    node.stop().await;
}

#[tokio::test]
async fn logins_are_tried_and_tags_are_looked_up() {
    let node = Node::start().await;
    let login = |password: &str| {
        json!({ "username": "ann", "password": password, "serveraddress": "https://index.docker.io/v1/" }).to_string()
    };
    let good = node.request("POST", "/auth", &login("secret")).await;
    assert_eq!(good.json(), json!({ "IdentityToken": "", "Status": "Login Succeeded" }));
    let wrong = node.request("POST", "/auth", &login("wrong")).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.json()["message"].as_str().unwrap().contains("docker.io"));
    assert_eq!(node.request("POST", "/auth", "{}").await.status, 400);

    let found = node.request_as(ANN, "GET", "/distribution/reg.example:5000/web:2/json", "").await.json();
    assert_eq!(found["Platforms"], json!([{ "architecture": "amd64", "os": "linux" }]));
    assert_eq!(found["Descriptor"]["digest"], json!(format!("sha256:{}", "d".repeat(64))));
    assert_eq!(node.get("/distribution/missing/json").await.status, 404);
    assert_eq!(node.get("/distribution/UPPER/json").await.status, 400);
    node.stop().await;
}

#[tokio::test]
async fn a_services_login_is_kept_and_never_shown() {
    let node = Node::manager().await;
    let spec = web("web", 8080).replace("nginx", "reg.example:5000/web:2");
    // Old clients leave it to the daemon to look up what a tag means.
    let created = node.request_as(ANN, "POST", "/v1.29/services/create", &spec).await;
    assert_eq!(created.status, 201, "{}", String::from_utf8_lossy(&created.body));
    let service = node.get("/services/web").await;
    assert!(!String::from_utf8_lossy(&service.body).to_lowercase().contains("auth"));
    let service = service.json();
    let template = &service["Spec"]["TaskTemplate"];
    let image = template["ContainerSpec"]["Image"].as_str().unwrap();
    assert!(image.starts_with("reg.example:5000/web:2@sha256:dddd"), "{image}");
    assert_eq!(template["Placement"]["Platforms"], json!([{ "Architecture": "amd64", "OS": "linux" }]));
    let auth = async || node.service("web").await.spec.task.registry_auth.clone();
    let ann = auth().await;
    assert!(ann.is_some());

    let spec = service["Spec"].to_string();
    let update = async |auth: &str, query: &str| {
        let version = node.service("web").await.meta.version.0;
        node.request_as(auth, "POST", &format!("/services/web/update?version={version}{query}"), &spec).await.status
    };
    assert_eq!(update("", "&registryAuthFrom=previous-spec").await, 400);
    assert_eq!(update("", "&registryAuthFrom=elsewhere").await, 400);
    assert_eq!(update("", "&registryAuthFrom=spec").await, 200);
    assert_eq!(auth().await, ann, "it stays");
    assert_eq!(update(WRONG, "").await, 200);
    assert_ne!(auth().await, ann);
    assert_eq!(update("", "&registryAuthFrom=previous-spec").await, 200);
    assert_eq!(auth().await, ann);
    node.stop().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let node = Node::start().await;
    let listeners = Listeners { unix: vec![node.socket()], tcp: Vec::new(), ..Listeners::default() };
    assert!(matches!(Server::bind(&listeners).await, Err(ServeError::Taken(_))));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listeners = Listeners { unix: vec![path.clone()], tcp: Vec::new(), ..Listeners::default() };
    let server = Server::bind(&listeners).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    drop(server);

    std::fs::write(&path, "").unwrap();
    assert!(matches!(Server::bind(&listeners).await, Err(ServeError::NotASocket(_))));
    node.stop().await;
}
