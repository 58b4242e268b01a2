//! What the node that is asked has besides containers: volumes, and images as archives.

mod support;

use support::{Answer, Node};

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn images_go_out_and_come_in() {
    let node = Node::start().await;
    assert_eq!(node.request("POST", "/images/create?fromImage=web&tag=1", "").await.status, 200);
    let saved = node.request("GET", "/images/get?names=web:1&names=web:1", "").await;
    assert_eq!((saved.status, text(&saved)), (200, "web:1,web:1".to_owned()), "every name counts");
    assert_eq!(node.request("GET", "/images/web:1/get", "").await.status, 200);
    assert_eq!(node.request("GET", "/images/get?names=none", "").await.status, 404);
    assert_eq!(node.request("GET", "/images/get", "").await.status, 400);
    let made =
        node.request("POST", "/images/create?fromSrc=-&repo=mine:1&changes=USER%20web&changes=CMD%20x", "tar").await;
    assert!(made.status == 200 && text(&made).contains("sha256:"), "{}", text(&made));
    let refused =
        node.request("POST", "/images/create?fromSrc=-&repo=mine:1&changes=USER%20web&changes=RUN%20x", "tar").await;
    assert!(refused.status == 400 && text(&refused).contains("RUN x"), "{}", text(&refused));
    node.stop().await;
}

#[tokio::test]
async fn volumes_are_the_nodes_own() {
    let node = Node::start().await;
    let create = async |body: &str| node.request("POST", "/volumes/create", body).await.status;
    assert_eq!(create(r#"{"Name":"data","Labels":{"a":"b"}}"#).await, 201);
    assert_eq!(create(r#"{"Name":"x","Driver":"rexray"}"#).await, 501);
    assert_eq!(create(r#"{"Name":"x","DriverOpts":{"size":"1"}}"#).await, 400);
    let listed = node.request("GET", "/volumes?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D", "").await;
    let listed = text(&listed);
    assert!(listed.contains("\"Name\":\"data\"") && listed.contains("\"Warnings\":null"), "{listed}");
    let prune = async |version: &str| text(&node.request("POST", &format!("/{version}/volumes/prune"), "").await);
    assert_eq!(prune("v1.44").await.trim(), r#"{"VolumesDeleted":null,"SpaceReclaimed":0}"#);
    assert!(prune("v1.41").await.contains(r#"["data"]"#), "older clients mean all");
    assert_eq!(node.request("DELETE", "/volumes/data", "").await.status, 404);
    assert_eq!(node.request("DELETE", "/volumes/data?force=1", "").await.status, 204);
    node.stop().await;
}
