//! skep's own API over plain HTTP.

mod support;

use support::Node;

#[tokio::test]
async fn a_node_in_no_swarm_has_no_mesh_and_says_how_to_get_one() {
    let node = Node::start().await;
    for path in ["/skep/v1/mesh", "/skep/v1/mesh/flows", "/skep/v1/mesh/trace?port=80"] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.message().contains("skep swarm init"), "{}", answer.message());
    }
    node.stop().await;
}

#[tokio::test]
async fn the_report_is_there_with_and_without_a_docker_version_in_front() {
    let node = Node::manager().await;
    let answer = node.get("/skep/v1/mesh").await;
    assert_eq!(answer.status, 200);
    let report = answer.json();
    assert_eq!(report["Ports"][0]["Backends"][1]["Node"]["Hostname"], "node2");
    assert_eq!(report["Ports"][1]["State"], "held");
    assert_eq!(report["Tasks"][0]["State"], "running");
    assert_eq!(report["Drops"]["no_backend"], 4);
    assert_eq!(node.get("/v1.41/skep/v1/mesh").await.json(), report);
    assert_eq!(node.get("/skep/v2/mesh").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let node = Node::manager().await;
    for (target, word) in [
        ("flows?port=0", "invalid port \"0\""),
        ("flows?client=nobody", "invalid client \"nobody\""),
        ("flows?state=ajar", "opening, open, closing, closed"),
        ("flows?limit=100001", "up to 100000"),
        ("flows?protocol=icmp", "tcp, udp or sctp"),
        ("trace", "name the published port"),
        ("trace?port=80&from=192.0.2.7", "an address and a port"),
        ("trace?port=80&to=node1", "invalid to \"node1\""),
        ("trace?port=80&from=192.0.2.7:1&to=::1", "one is IPv4 and the other IPv6"),
    ] {
        let answer = node.get(&format!("/skep/v1/mesh/{target}")).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.message().contains(word), "{target}: {}", answer.message());
    }
    let flows = node.get("/skep/v1/mesh/flows?client=192.0.2.9:40001&limit=1").await.json();
    assert_eq!((flows["Known"].as_u64(), flows["Matched"].as_u64()), (Some(3), Some(1)));
    assert_eq!(flows["Flows"][0]["Idle"], 1_500_000_000_u64);
    node.stop().await;
}
