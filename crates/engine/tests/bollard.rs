//! Another independent client: bollard.

mod support;

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{ListServicesOptions, ListTasksOptions};
use support::Node;

#[tokio::test]
async fn bollard_negotiates_and_reads_the_swarm() {
    let node = Node::manager().await;
    let spec =
        r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"nginx"}},"Mode":{"Replicated":{"Replicas":2}}}"#;
    assert_eq!(node.request("POST", "/services/create", spec).await.status, 201);

    let socket = node.socket();
    let docker = Docker::connect_with_unix(socket.to_str().unwrap(), 10, bollard::API_DEFAULT_VERSION).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    assert_eq!(docker.version().await.unwrap().api_version.as_deref(), Some("1.47"));
    assert_eq!(docker.inspect_swarm().await.unwrap().data_path_port, Some(4789));
    let services = docker.list_services(None::<ListServicesOptions>).await.unwrap();
    assert_eq!(services.len(), 1);
    let filters = HashMap::from([("service".to_owned(), vec!["web".to_owned()])]);
    let tasks = docker.list_tasks(Some(ListTasksOptions { filters: Some(filters) })).await.unwrap();
    assert_eq!(tasks.len(), 2);
    docker.delete_service("web").await.unwrap();
    assert!(docker.list_services(None::<ListServicesOptions>).await.unwrap().is_empty());
    node.stop().await;
}
