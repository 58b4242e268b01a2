//! A manager that does not lead, and the one that does.

mod support;

use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::json;
use skep_engine::backend::leader::Tunnel;
use support::{Answer, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;

fn spec(name: &str) -> String {
    let container = json!({ "Image": "nginx:latest", "Init": false, "DNSConfig": {} });
    let task = json!({ "ContainerSpec": container, "Resources": {}, "Placement": {}, "ForceUpdate": 0 });
    json!({ "Name": name, "Labels": {}, "TaskTemplate": task, "Mode": { "Replicated": { "Replicas": 1 } } }).to_string()
}

/// What the node asks next goes to whoever has the other end; the leader is lost when the sender is used or gone.
fn led(node: &Node) -> (DuplexStream, oneshot::Sender<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (lose, lost) = oneshot::channel();
    node.backend.led_by(Tunnel { connection: Box::new(near), lost: lost.map(drop).boxed() });
    (far, lose)
}

async fn leads(leader: &Node, node: &Node) -> oneshot::Sender<()> {
    let (far, lose) = led(node);
    leader.tunnels.send(far).await.unwrap();
    lose
}

async fn names(node: &Node) -> Vec<String> {
    let listed = node.get("/v1.47/services").await.json();
    listed.as_array().unwrap().iter().map(|s| s["Spec"]["Name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_leader_answers_what_others_are_asked() {
    let (leader, other) = (Node::manager().await, Node::manager().await);
    let _leads = leads(&leader, &other).await;
    let created = other.request("POST", "/v1.41/services/create", &spec("web")).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(created.headers.contains("Api-Version: ") || created.headers.contains("api-version: "), "{created:?}");
    assert_eq!((names(&leader).await, names(&other).await), (vec!["web".to_owned()], Vec::new()));

    // Its refusals too, and queries.
    let _leads = leads(&leader, &other).await;
    let again = other.request("POST", "/services/create", &spec("web")).await;
    assert_eq!((again.status, again.message().contains("name conflicts")), (409, true), "{again:?}");
    let _leads = leads(&leader, &other).await;
    let filtered = other.get("/v1.41/services?filters=%7B%22name%22%3A%7B%22we%22%3Atrue%7D%7D").await;
    assert_eq!(filtered.json().as_array().unwrap().len(), 1, "{filtered:?}");
    let _leads = leads(&leader, &other).await;
    assert_eq!(other.request("DELETE", "/v1.47/services/web", "").await.status, 200);
    assert_eq!(names(&leader).await, Vec::<String>::new());
    leader.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_concerns_the_node_is_answered_by_the_node() {
    let other = Node::manager().await;
    let (_far, _leads) = led(&other);
    let id = other.get("/info").await.json()["ID"].clone();
    assert!(id.is_string());
    assert_eq!(other.get("/containers/json").await.status, 200);
    assert_eq!(other.get("/_ping").await.status, 200);
    other.stop().await;
}

async fn create(node: &Node) -> Answer {
    node.request("POST", "/services/create", &spec("web")).await
}

/// Reads a request and answers it.
async fn answer(mut far: DuplexStream, response: &str) {
    let mut request = vec![0; 1 << 16];
    assert!(far.read(&mut request).await.unwrap() > 0);
    far.write_all(response.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn what_was_not_done_for_sure_is_asked_of_the_next_one() {
    let node = Node::manager().await;
    let (far, _leads) = led(&node);
    let undone = "HTTP/1.1 500 Internal Server Error\r\nskep-undone: true\r\ncontent-length: 2\r\n\r\n{}";
    let (created, ()) = tokio::join!(create(&node), answer(far, undone));
    assert_eq!(created.status, 201, "it leads itself by then: {created:?}");
    assert_eq!(names(&node).await, ["web"]);
    node.stop().await;
}

#[tokio::test]
async fn with_the_leader_lost_reads_go_elsewhere_and_writes_say_what_is_not_known() {
    let node = Node::manager().await;
    let (far, lose) = led(&node);
    lose.send(()).unwrap();
    assert_eq!(node.get("/v1.47/services").await.status, 200, "asked again");
    drop(far);

    let (_far, lose) = led(&node);
    lose.send(()).unwrap();
    let began = Instant::now();
    let created = node.request("POST", "/services/create", &spec("web")).await;
    assert_eq!(
        (created.status, created.message().contains("may or may not have been done")),
        (500, true),
        "{created:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));

    // It has stepped down, and says what became of it.
    let (far, lose) = led(&node);
    lose.send(()).unwrap();
    let done = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"ID\":\"abc\"}";
    let (created, ()) = tokio::join!(create(&node), answer(far, done));
    assert_eq!((created.status, created.json()["ID"].as_str()), (201, Some("abc")), "{created:?}");
    assert_eq!(names(&node).await, Vec::<String>::new());
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_a_whole_one() {
    let node = Node::manager().await;
    let (far, _leads) = led(&node);
    let half = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"ID\"";
    let (created, ()) = tokio::join!(create(&node), answer(far, half));
    assert_eq!(created.status, 500, "{created:?}");
    node.stop().await;
}
