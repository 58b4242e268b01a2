//! Bodies of requests to the API.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use skep_engine::translate::service::Defaults;
use skep_engine::translate::{attached, data, network, node, service, swarm};
use skep_engine::types;
use skep_model::ServiceSpec;

/// A number for the kind, and the body.
pub(super) fn run(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => service_spec(body),
        1 => drop(read::<types::network::CreateRequest>(body).map(|body| network::create_from_wire(&body))),
        2 => drop(read::<types::swarm::Spec>(body).map(|body| swarm::spec_from_wire(&body))),
        3 => drop(read::<types::swarm::InitRequest>(body).map(|body| swarm::init_from_wire(&body))),
        4 => drop(read::<types::swarm::JoinRequest>(body).map(|body| swarm::join_from_wire(&body))),
        5 => drop(read::<types::node::NodeSpec>(body).map(|body| node::spec_from_wire(&body))),
        _ => drop(read::<types::data::DataSpec>(body).map(data::from_wire)),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// What is accepted is shown, and what is shown is accepted as the same: `docker service update` sends back what it was shown.
fn service_spec(body: &[u8]) {
    let Some(Ok(spec)) = read(body).map(|body| service::spec_from_wire(&body, &attached::Networks::new())) else {
        return;
    };
    let shown = through_json(&service::spec_to_wire(&spec, Defaults::Omit));
    let again = service::spec_from_wire(&shown, &attached::Networks::new()).expect("what is shown is accepted");
    assert_eq!(again, spec, "what is shown is something else");
}

fn through_json<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("bodies are representable in JSON");
    serde_json::from_slice(&text).expect("what was written can be read")
}

fn service_body() -> serde_json::Value {
    json!({
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:alpine", "Args": ["-g", "daemon off;"], "Env": ["A=b"], "Hostname": "h", "User": "1:1",
                "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}, {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536}}],
                "StopGracePeriod": 10_000_000_000_i64, "Hosts": ["192.0.2.1 a"], "DNSConfig": {"Nameservers": ["192.0.2.2"]},
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "Timeout": 1_000_000_000, "Retries": 3},
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "Sysctls": {"net.core.somaxconn": "1024"},
            },
            "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 100}, "Reservations": {"NanoCPUs": 100_000_000}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 5_000_000_000_i64, "MaxAttempts": 3, "Window": 1_000_000_000},
            "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 2},
            "ForceUpdate": 1,
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 1, "Delay": 1_000_000_000, "FailureAction": "rollback", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.2, "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
    })
}

/// The service of the seeds.
pub(super) fn service() -> ServiceSpec {
    let body = serde_json::from_value(service_body()).expect("a body");
    service::spec_from_wire(&body, &attached::Networks::new()).expect("a valid one")
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        (0, service_body()),
        (
            0,
            json!({"Name": "job", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}, "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}}),
        ),
        (
            0,
            json!({"Name": "g", "TaskTemplate": {"ContainerSpec": {"Image": "a@sha256:00"}}, "Mode": {"Global": {}}, "EndpointSpec": {"Mode": "dnsrr"}}),
        ),
        (
            1,
            json!({"Name": "net", "Driver": "overlay", "Attachable": true, "EnableIPv6": true, "Labels": {"a": "b"},
            "IPAM": {"Config": [{"Subnet": "10.5.0.0/16", "Gateway": "10.5.0.1", "IPRange": "10.5.1.0/24"}, {"Subnet": "fd00::/64"}]}, "Options": {"encrypted": ""}}),
        ),
        (
            2,
            json!({"Name": "default", "Labels": {}, "Orchestration": {"TaskHistoryRetentionLimit": 5}, "Raft": {"SnapshotInterval": 10000, "ElectionTick": 10, "HeartbeatTick": 1},
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64}, "EncryptionConfig": {"AutoLockManagers": false}}),
        ),
        (
            3,
            json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "ForceNewCluster": false, "Spec": {}}),
        ),
        (
            4,
            json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "eth0", "RemoteAddrs": ["192.0.2.1:2377"], "JoinToken": "SWMTKN-1-0-0"}),
        ),
        (5, json!({"Name": "n", "Role": "worker", "Availability": "drain", "Labels": {"a": "b"}})),
        (6, json!({"Name": "key", "Labels": {}, "Data": "c2VjcmV0"})),
    ];
    bodies.map(|(kind, body)| [&[kind], body.to_string().as_bytes()].concat()).into()
}
