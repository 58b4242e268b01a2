//! The unmodified docker CLI against the API. Where there is none, the same things are asked for over plain HTTP.

mod support;

use serde_json::{Value, json};
use support::{Node, has_docker};

/// What has no docker CLI to go through: create, look, change, remove, by the requests that the CLI sends.
async fn over_http(node: &Node) {
    let spec = json!({
        "Name": "my-web", "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": { "Image": "nginx:latest", "Init": false, "DNSConfig": {} },
            "Resources": { "Limits": {}, "Reservations": {} }, "Placement": {}, "ForceUpdate": 0,
        },
        "Mode": { "Replicated": { "Replicas": 2 } },
        "EndpointSpec": { "Mode": "vip", "Ports": [
            { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress" }] },
    });
    assert_eq!(node.request("POST", "/v1.47/services/create", &spec.to_string()).await.status, 201);
    let service = node.get("/v1.47/services/my-web?insertDefaults=true").await.json();
    assert_eq!(service["Endpoint"]["Spec"]["Ports"], spec["EndpointSpec"]["Ports"]);
    let taken = node.request("POST", "/v1.47/services/create", &spec.to_string().replace("my-web", "other")).await;
    assert!(taken.message().contains("port '8080' is already in use by service 'my-web'"), "{}", taken.message());
    assert_eq!(node.request("DELETE", "/v1.47/services/my-web", "").await.status, 200);
}

#[tokio::test]
async fn a_published_service_from_create_to_rm() {
    let node = Node::manager().await;
    if !has_docker() {
        over_http(&node).await;
        return node.stop().await;
    }
    let create = ["service", "create", "--name", "my-web", "--publish", "published=8080,target=80", "--replicas", "2"];
    // Shorter than the five seconds for which the CLI would watch the tasks.
    let progress = node.ok(&[&create[..], &["--update-monitor", "1s", "nginx"]].concat()).await;
    assert!(progress.contains("2 out of 2 tasks") && progress.contains("converged"), "{progress}");
    let ls = node.ok(&["service", "ls"]).await;
    assert!(ls.contains("my-web") && ls.contains("2/2") && ls.contains("*:8080->80/tcp"), "{ls}");
    let ps = node.ok(&["service", "ps", "my-web"]).await;
    assert!(ps.contains("my-web.1") && ps.contains("my-web.2") && ps.contains("node1"), "{ps}");
    let ports = async || -> Value {
        let text = node.ok(&["service", "inspect", "--format", "{{json .Endpoint.Spec.Ports}}", "my-web"]).await;
        serde_json::from_str(&text).unwrap()
    };
    let port = |target: u16, published: u16| json!({ "Protocol": "tcp", "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress" });
    assert_eq!(ports().await, json!([port(80, 8080)]));

    node.ok(&["service", "update", "-d", "--publish-add", "published=9090,target=81", "my-web"]).await;
    assert_eq!(ports().await, json!([port(80, 8080), port(81, 9090)]));
    node.ok(&["service", "update", "-d", "--publish-rm", "81", "my-web"]).await;
    assert_eq!(ports().await, json!([port(80, 8080)]));
    let ps = node.ok(&["service", "ps", "-q", "my-web"]).await;
    assert_eq!(ps.lines().count(), 2, "no task was replaced for a port: {ps}");

    node.ok(&["service", "update", "-d", "--image", "nginx:2", "--env-add", "A=1", "my-web"]).await;
    let image = ["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "my-web"];
    assert_eq!(node.ok(&image).await, "nginx:2\n");
    node.ok(&["service", "rollback", "-d", "my-web"]).await;
    assert_eq!(node.ok(&image).await, "nginx:latest\n");
    node.ok(&["service", "scale", "-d", "my-web=3"]).await;
    assert!(node.ok(&["service", "ls"]).await.contains("3/3"));

    let logs = node.ok(&["service", "logs", "--tail", "1", "my-web"]).await;
    assert!(logs.contains("my-web.3.") && logs.contains("@node1    | serving"), "{logs}");
    let taken = node.fails(&["service", "create", "-d", "--name", "other", "-p", "8080:80", "nginx"]).await;
    assert!(taken.contains("port '8080' is already in use by service 'my-web'"), "{taken}");
    node.ok(&["service", "rm", "my-web"]).await;
    assert_eq!(node.ok(&["service", "ls", "-q"]).await, "");
    node.stop().await;
}

#[tokio::test]
async fn a_swarm_from_init_to_leave() {
    let node = Node::start().await;
    if !has_docker() {
        assert_eq!(node.get("/nodes").await.status, 503);
        let init = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.77.0.1","DefaultAddrPool":[],"SubnetSize":24}"#;
        assert_eq!(node.request("POST", "/v1.47/swarm/init", init).await.status, 200);
        assert_eq!(node.get("/nodes").await.json().as_array().unwrap().len(), 1);
        assert_eq!(node.request("POST", "/swarm/leave", "").await.status, 503);
        assert_eq!(node.request("POST", "/swarm/leave?force=1", "").await.status, 200);
        return node.stop().await;
    }
    assert!(node.ok(&["version"]).await.contains("API version:      1.47"));
    assert!(node.fails(&["node", "ls"]).await.contains("This node is not a swarm manager"));
    let init = node.ok(&["swarm", "init", "--advertise-addr", "10.77.0.1"]).await;
    assert!(init.contains("is now a manager") && init.contains("10.77.0.1:2377"), "{init}");
    assert!(node.fails(&["swarm", "init"]).await.contains("already part of a swarm"));
    let before = node.ok(&["swarm", "join-token", "-q", "worker"]).await;
    let after = node.ok(&["swarm", "join-token", "--rotate", "-q", "worker"]).await;
    assert_ne!(before, after);
    node.ok(&["swarm", "update", "--task-history-limit", "3"]).await;
    let info = node.ok(&["info"]).await;
    assert!(info.contains("Swarm: active") && info.contains("Task History Retention Limit: 3"), "{info}");
    assert!(node.fails(&["swarm", "unlock-key"]).await.contains("no unlock key is set"));
    let locked = ["swarm", "update", "--autolock=true"];
    node.ok(&locked).await;
    let spec = node.get("/v1.47/swarm").await.json()["Spec"].clone();
    assert_eq!(spec["EncryptionConfig"]["AutoLockManagers"], json!(true));

    assert!(node.ok(&["node", "ls"]).await.contains("Leader"));
    node.ok(&["node", "update", "--label-add", "zone=a", "node1"]).await;
    assert!(node.ok(&["node", "inspect", "--pretty", "self"]).await.contains("zone=a"));
    assert!(node.fails(&["node", "demote", "node1"]).await.contains("attempting to demote the last manager"));
    assert!(node.ok(&["network", "ls"]).await.contains("ingress"));
    assert_eq!(node.ok(&["network", "inspect", "--format", "{{.Ingress}}", "ingress"]).await, "true\n");

    assert!(node.fails(&["swarm", "leave"]).await.contains("Use `--force` to ignore this message"));
    node.ok(&["swarm", "leave", "--force"]).await;
    node.stop().await;
}

#[tokio::test]
async fn images_and_containers() {
    let node = Node::manager().await;
    if !has_docker() {
        assert_eq!(node.request("POST", "/images/load", "nginx:1.27").await.status, 200);
        assert_eq!(node.get("/images/nginx:1.27/json").await.status, 200);
        assert_eq!(node.get("/containers/nosuch/json").await.status, 404);
        return node.stop().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, "nginx:1.27").unwrap();
    let archive = archive.to_str().unwrap();
    assert_eq!(node.ok(&["load", "-i", archive]).await, "Loaded image: nginx:1.27\n");
    std::fs::write(archive, "::nonsense::").unwrap();
    assert!(node.fails(&["load", "-i", archive]).await.contains("the archive is no image"));
    node.ok(&["tag", "nginx:1.27", "web:1"]).await;
    let images = node.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await;
    // In no order: the CLI keeps the names of one image in a map.
    assert!(images.contains("nginx:1.27\n") && images.contains("web:1\n"), "{images}");
    node.ok(&["rmi", "web:1"]).await;
    assert_eq!(node.ok(&["image", "inspect", "--format", "{{.RepoTags}}", "nginx:1.27"]).await, "[nginx:1.27]\n");
    assert!(node.ok(&["pull", "reg.example/web:2"]).await.contains("Downloaded newer image for reg.example/web:2"));
    assert!(node.fails(&["pull", "missing"]).await.contains("manifest unknown"));

    node.ok(&["service", "create", "-d", "--name", "web", "nginx:1.27"]).await;
    let id = node.ok(&["ps", "-q"]).await;
    let id = id.trim();
    assert_eq!(node.ok(&["inspect", "--format", "{{.State.Status}}", id]).await, "running\n");
    assert_eq!(node.ok(&["logs", id]).await, "started\nserving\n");
    assert_eq!(node.ok(&["inspect", "--format", "{{.Spec.Name}}", "web"]).await, "web\n");
    assert!(node.fails(&["inspect", "nosuch"]).await.contains("No such object: nosuch"));
    let run = node.fails(&["run", "nginx"]).await;
    assert!(run.contains("docker service create"), "{run}");
    assert!(node.ok(&["system", "df"]).await.contains("Containers"));
    node.stop().await;
}
