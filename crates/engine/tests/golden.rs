//! What a real engine and real clients said to each other, read and written again: not a byte may differ.
//!
//! Each line of `golden/*.jsonl` names the recording that it is from.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use skep_engine::translate::service::{Defaults, spec_from_wire, spec_to_wire};
use skep_engine::translate::{attached, endpoint, node, swarm};
use skep_engine::types::{
    event, go_json, image, info, network, node as wire_node, service, swarm as wire_swarm, system, task,
};
use skep_model::{Endpoint, PublishMode, PublishedPort, VirtualIp};

#[derive(serde::Deserialize)]
struct Recorded {
    from: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    defaults: bool,
    body: Box<RawValue>,
}

fn recordings(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "{name} holds no recordings");
    lines
}

fn decode<T: DeserializeOwned>(recorded: &Recorded) -> T {
    go_json::from_slice(recorded.body.get().as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", recorded.from))
}

/// Reads and writes every recording of that kind. The order of fields counts too.
fn read_and_written_alike<T: DeserializeOwned + Serialize>(name: &str) {
    for recorded in recordings(name) {
        let written = serde_json::to_string(&decode::<T>(&recorded)).unwrap();
        assert_eq!(written, recorded.body.get(), "{} of {name}", recorded.from);
    }
}

#[test]
fn services() {
    read_and_written_alike::<service::Service>("services");
}

#[test]
fn tasks() {
    read_and_written_alike::<task::Task>("tasks");
}

#[test]
fn nodes() {
    read_and_written_alike::<wire_node::Node>("nodes");
    read_and_written_alike::<wire_node::NodeSpec>("node_requests");
}

#[test]
fn the_swarm() {
    read_and_written_alike::<wire_swarm::ClusterInfo>("swarm");
    read_and_written_alike::<wire_swarm::JoinRequest>("swarm_join");
    read_and_written_alike::<wire_swarm::Spec>("swarm_requests");
}

#[test]
fn networks_images_events_versions() {
    read_and_written_alike::<network::Network>("networks");
    read_and_written_alike::<image::ImageSummary>("images");
    read_and_written_alike::<event::Event>("events");
    read_and_written_alike::<system::Version>("version");
}

#[test]
fn info_but_for_what_newer_versions_dropped_or_added() {
    let cases = recordings("info");
    assert!(cases.iter().any(|c| decode::<info::Info>(c).swarm.control_available), "no recording of a manager");
    for recorded in cases {
        let mut expected: Value = serde_json::from_str(recorded.body.get()).unwrap();
        // Without a quorum a real engine shows a swarm that is all zero, its labels too.
        if let Some(labels @ Value::Null) = expected.pointer_mut("/Swarm/Cluster/Spec/Labels") {
            *labels = json!({});
        }
        let written = serde_json::to_value(decode::<info::Info>(&recorded)).unwrap();
        for (name, value) in written.as_object().unwrap() {
            match (name.as_str(), expected.get(name)) {
                // API 1.46 added it; deprecated parts of the other went with 1.44.
                ("CDISpecDirs", None) | ("RegistryConfig", Some(_)) => {}
                (_, recorded_value) => assert_eq!(Some(value), recorded_value, "{name} of {}", recorded.from),
            }
        }
        let dropped: Vec<&String> =
            expected.as_object().unwrap().keys().filter(|k| written.get(k.as_str()).is_none()).collect();
        for name in dropped {
            assert!(["KernelMemory", "KernelMemoryTCP"].contains(&name.as_str()), "{name} of {}", recorded.from);
        }
    }
}

#[test]
fn requests_to_start_a_swarm() {
    for recorded in recordings("swarm_init") {
        let request: wire_swarm::InitRequest = decode(&recorded);
        let options = swarm::init_from_wire(&request).unwrap_or_else(|e| panic!("{}: {e}", recorded.from));
        assert_eq!(options.listen_addr.port, 2377, "{}", recorded.from);
        let locked = request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers;
        assert_eq!(options.spec.autolock, locked, "{}", recorded.from);
    }
}

#[test]
fn requests_that_change_nodes_are_understood() {
    for recorded in recordings("node_requests") {
        node::spec_from_wire(&decode(&recorded)).unwrap_or_else(|e| panic!("{}: {e}", recorded.from));
    }
}

/// What a real engine stores of a request: all of it, and three things more.
fn stored(mut request: Value) -> Value {
    let template = &mut request["TaskTemplate"];
    template["Runtime"] = json!("container");
    for network in template.get_mut("Networks").and_then(Value::as_array_mut).into_iter().flatten() {
        network["Target"] = json!(id_of(network["Target"].as_str().unwrap()));
    }
    template["ContainerSpec"]["Isolation"] = json!("default");
    // Always shown by skep, and by a real engine when they were sent, as every docker CLI does.
    for (field, empty) in [("Resources", json!({"Limits": {}, "Reservations": {}})), ("Placement", json!({}))] {
        if template[field].is_null() {
            template[field] = empty;
        }
    }
    // Stack files leave out one of the two when the other is given.
    for half in ["Limits", "Reservations"] {
        if template["Resources"][half].is_null() {
            template["Resources"][half] = json!({});
        }
    }
    if template["ContainerSpec"]["DNSConfig"].is_null() {
        template["ContainerSpec"]["DNSConfig"] = json!({});
    }
    if template["ForceUpdate"].is_null() {
        template["ForceUpdate"] = json!(0);
    }
    // All off, as stack files send it: skep does not keep what says nothing.
    template["ContainerSpec"].as_object_mut().unwrap().remove("Privileges");
    let mode = &mut request["Mode"];
    if mode.get("Global").is_none() && mode["Replicated"]["Replicas"].is_null() {
        *mode = json!({ "Replicated": { "Replicas": 1 } });
    }
    if request["Labels"].is_null() {
        request["Labels"] = json!({});
    }
    request
}

/// Whether a request is for what this version of skep does not have, or for nonsense that a real engine lets pass.
fn expected_refusal(recorded: &Recorded, request: &Value) -> bool {
    let template = &request["TaskTemplate"];
    let lax = ["600-", "601-", "602-", "603-", "607-", "noname"];
    let mounts = template["ContainerSpec"]["Mounts"].as_array();
    recorded.status >= 400
        || lax.iter().any(|name| recorded.from.contains(name))
        || mounts.is_some_and(|all| all.iter().any(|mount| !mount["VolumeOptions"].is_null()))
        || template["ContainerSpec"]["Hostname"].as_str().is_some_and(|name| name.contains("{{"))
        || !template["LogDriver"].is_null()
        || request["Mode"].get("GlobalJob").is_some()
        || request["Mode"].get("ReplicatedJob").is_some()
}

#[test]
fn what_is_asked_for_is_what_is_stored_or_refused() {
    let (mut kept, mut refused) = (0, 0);
    for recorded in recordings("service_requests") {
        let request: Value = serde_json::from_str(recorded.body.get()).unwrap();
        let result = go_json::from_slice::<service::ServiceSpec>(recorded.body.get().as_bytes())
            .map_err(|e| skep_engine::Error::invalid(e.to_string()))
            .and_then(|wire| spec_from_wire(&wire, &networks_of(&request)));
        match result {
            Ok(spec) => {
                let shown = serde_json::to_value(spec_to_wire(&spec, Defaults::Omit)).unwrap();
                let mut expected = stored(request);
                fill(&mut expected, &shown);
                assert_eq!(shown, expected, "{}", recorded.from);
                kept += 1;
            }
            Err(error) => {
                assert!(expected_refusal(&recorded, &request), "{}: {error}", recorded.from);
                refused += 1;
            }
        }
    }
    assert!(kept > 40 && refused > 15, "{kept} kept, {refused} refused");
}

/// The networks that a request names, with ids where it has names.
fn networks_of(request: &Value) -> attached::Networks {
    let targets =
        request["TaskTemplate"]["Networks"].as_array().into_iter().flatten().filter_map(|n| n["Target"].as_str());
    let one = |target: &str| {
        let id: skep_model::NetworkId = id_of(target).parse().unwrap();
        let spec = skep_model::NetworkSpec {
            name: target.to_owned(),
            labels: Default::default(),
            ipam: skep_model::IpamConfig {
                subnet: "10.9.0.0/24".parse().unwrap(),
                gateway: "10.9.0.1".parse().unwrap(),
                range: None,
                ipv6: None,
            },
            ingress: false,
            internal: false,
            attachable: false,
            ipv6: false,
            options: Default::default(),
        };
        let meta = skep_model::Meta::new(skep_model::Timestamp::UNIX_EPOCH);
        (id.clone(), std::sync::Arc::new(skep_model::Network { id, meta, spec, vni: 4097, last: None, retired: false }))
    };
    targets.filter(|target| *target != "nope").map(one).collect()
}

fn id_of(target: &str) -> String {
    if target.len() == 25 {
        target.to_owned()
    } else {
        format!("{:0<25}", target.replace(|c: char| !c.is_ascii_alphanumeric(), "0"))
    }
}

/// What a real engine writes out although a stack file leaves it to the default.
fn fill(expected: &mut Value, shown: &Value) {
    for config in ["UpdateConfig", "RollbackConfig"] {
        if expected.get(config).is_some() {
            for (field, default) in
                [("FailureAction", json!("pause")), ("Order", json!("stop-first")), ("MaxFailureRatio", json!(0))]
            {
                if expected[config].get(field).is_none() {
                    expected[config][field] = default;
                }
            }
        }
    }
    let restart = &mut expected["TaskTemplate"]["RestartPolicy"];
    if restart.is_object() {
        for (field, default) in [("Condition", json!("any")), ("MaxAttempts", json!(0))] {
            if restart.get(field).is_none() {
                restart[field] = default;
            }
        }
    } else {
        expected["TaskTemplate"].as_object_mut().unwrap().remove("RestartPolicy");
    }
    // Protocol and mode of a port, when left out, are tcp and ingress.
    let ports = expected.pointer_mut("/EndpointSpec/Ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        for (field, default) in [("Protocol", json!("tcp")), ("PublishMode", json!("ingress"))] {
            if port.get(field).is_none() {
                port[field] = default;
            }
        }
    }
    // Fields that no struct has are passed over.
    let known = shown.as_object().unwrap();
    expected.as_object_mut().unwrap().retain(|k, _| known.contains_key(k) || k != "Foo");
}

/// The defaults that a real engine fills in, from what it stored.
#[test]
fn defaults_are_filled_in_as_a_real_engine_does() {
    let mut compared = 0;
    for recorded in recordings("services").iter().filter(|r| r.defaults) {
        let shown: service::Service = decode(recorded);
        let networks = networks_of(&serde_json::to_value(&shown.spec).unwrap());
        let Ok(spec) = spec_from_wire(&shown.spec, &networks) else { continue };
        let inserted = serde_json::to_value(spec_to_wire(&spec, Defaults::Insert)).unwrap();
        assert_eq!(inserted, serde_json::to_value(&shown.spec).unwrap(), "{}", recorded.from);

        // The same from a spec that lacks what was filled in.
        let mut bare = shown.spec.clone();
        bare.update_config = None;
        bare.rollback_config = None;
        bare.task_template.restart_policy = None;
        if let Some(container) = &mut bare.task_template.container_spec {
            container.stop_grace_period = None;
        }
        let filled = spec_to_wire(&spec_from_wire(&bare, &networks).unwrap(), Defaults::Insert);
        let rolling = json!({"Parallelism":1,"FailureAction":"pause","Monitor":5_000_000_000_u64,"MaxFailureRatio":0,"Order":"stop-first"});
        assert_eq!(serde_json::to_value(&filled.update_config).unwrap(), rolling);
        assert_eq!(serde_json::to_value(&filled.rollback_config).unwrap(), rolling);
        assert_eq!(
            serde_json::to_value(&filled.task_template.restart_policy).unwrap(),
            json!({"Condition":"any","Delay":5_000_000_000_u64,"MaxAttempts":0})
        );
        compared += 1;
    }
    assert!(compared > 2, "{compared} compared");
}

/// What the allocator would store for a recorded endpoint is shown as it was recorded.
#[test]
fn endpoints_are_shown_as_recorded() {
    let (mut chosen_by_nodes, mut chosen_by_the_swarm, mut unreachable) = (0, 0, 0);
    for recorded in recordings("services") {
        let mut shown = decode::<service::Service>(&recorded).endpoint;
        // A real engine shows the mode of a service that has lost its last port, and not that of one that never had any.
        if shown.ports.is_empty() && shown.virtual_ips.is_empty() {
            shown.spec.mode = String::new();
        }
        // Numbers that a real engine lets pass.
        let Ok(spec) = endpoint::spec_from_wire(&shown.spec) else { continue };
        let published = shown.ports.iter().filter_map(|p| {
            let port = |n: i64| std::num::NonZeroU16::new(u16::try_from(n).ok()?);
            Some(PublishedPort {
                protocol: p.protocol.parse().ok()?,
                target: port(p.target_port)?,
                published: port(p.published_port)?,
                mode: if p.publish_mode == "host" { PublishMode::Host } else { PublishMode::Ingress },
            })
        });
        let virtual_ips = shown
            .virtual_ips
            .iter()
            .map(|v| VirtualIp { network: v.network_id.parse().unwrap(), addr: v.addr.parse().unwrap() });
        let stored =
            Endpoint { ports: published.collect(), virtual_ips: virtual_ips.collect(), spec: Some(spec.clone()) };
        chosen_by_nodes += usize::from(shown.ports.iter().any(|p| p.published_port == 0));
        chosen_by_the_swarm += usize::from(shown.ports != shown.spec.ports);
        unreachable += usize::from(shown == service::Endpoint::default());
        assert_eq!(endpoint::endpoint_to_wire(&stored), shown, "{}", recorded.from);
    }
    assert!(chosen_by_nodes > 0 && chosen_by_the_swarm > 0 && unreachable > 0, "the recordings lack a case");
}
