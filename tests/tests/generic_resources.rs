//! What operators say that nodes have besides processors and memory, and tasks that ask for it.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_e2e::{Swarm, busybox};

fn json(swarm: &Swarm, args: &[&str]) -> Value {
    serde_json::from_str(&swarm.must(1, args)).expect("JSON")
}

/// What the running tasks of a service were given: node and name.
fn given(swarm: &Swarm) -> BTreeSet<(String, String)> {
    let one = |task: String| {
        let task = json(swarm, &["inspect", &task]);
        let given = task[0]["GenericResources"].as_array().expect("a list");
        assert_eq!(given.len(), 1, "{task}");
        let named = &given[0]["NamedResourceSpec"];
        assert_eq!(named["Kind"], "gpu", "{task}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&task[0]["NodeID"]), text(&named["Value"]))
    };
    swarm.running("gpus").into_iter().map(one).collect()
}

#[test]
fn each_task_gets_its_own_and_gives_it_back() {
    let has = ["--node-generic-resource=gpu=UUID1,gpu=UUID2", "--node-generic-resource=ssd=3"];
    let swarm = Swarm::empty("generic", &has);
    swarm.load(&busybox());
    let node = json(&swarm, &["node", "inspect", "self"]);
    let shown = node[0]["Description"]["Resources"]["GenericResources"].to_string();
    for part in [r#""Kind":"gpu","Value":"UUID2""#, r#""Kind":"ssd","Value":3"#] {
        assert!(shown.contains(part), "{shown}");
    }

    // Nobody waits for a program that does not listen to the signal.
    let create = ["service", "create", "-d", "--restart-delay", "0s", "--stop-grace-period", "100ms"];
    let service = ["--name", "gpus", "--replicas", "7", "--generic-resource", "gpu=1", "box", "sh", "-c"];
    swarm.must(1, &[&create[..], &service, &["env | grep DOCKER_RESOURCE; exec sleep 1000"]].concat());
    let why = || swarm.must(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "gpus"]);
    swarm.until("six tasks", || swarm.running("gpus").len() == 6);
    swarm.until("the seventh to say why not", || why().contains("insufficient resources on 3 nodes"));
    assert_eq!(given(&swarm).len(), 6, "each has its own: {:?}", given(&swarm));
    let logs = || swarm.must(1, &["service", "logs", "--raw", "gpus"]);
    swarm.until("all to have said what they got", || logs().lines().count() == 6);
    for name in ["UUID1", "UUID2"] {
        assert_eq!(logs().matches(&format!("DOCKER_RESOURCE_GPU={name}")).count(), 3, "{}", logs());
    }

    // What ends gives back what it had: the seventh gets it, or the one that comes in its place.
    let one = swarm.must(2, &["ps", "-q"]).lines().next().expect("a container").to_owned();
    swarm.must(2, &["rm", "-f", &one]);
    swarm.until("six tasks again", || swarm.running("gpus").len() == 6 && given(&swarm).len() == 6);
    swarm.must(1, &["service", "scale", "-d", "gpus=2"]);
    swarm.until("two to be left", || swarm.running("gpus").len() == 2);
    swarm.must(
        1,
        &[
            "service",
            "update",
            "-d",
            "--replicas",
            "3",
            "--update-parallelism",
            "0",
            "--generic-resource-add",
            "gpu=2",
            "gpus",
        ],
    );
    swarm.until("three with two each", || {
        let both = |task: &String| json(&swarm, &["inspect", task])[0]["GenericResources"].as_array().map(Vec::len);
        let tasks = swarm.running("gpus");
        tasks.len() == 3 && tasks.iter().all(|task| both(task) == Some(2))
    });
    swarm.must(1, &["service", "rm", "gpus"]);

    // By number it is the same.
    let count = ["--name", "ssds", "--mode", "global", "--generic-resource", "ssd=2", "box", "sh", "-c"];
    swarm.must(1, &[&create[..], &count, &["echo $DOCKER_RESOURCE_SSD; exec sleep 1000"]].concat());
    swarm.until("one on each node", || swarm.running("ssds").len() == 3);
    swarm.until("all to have said what they got", || {
        swarm.must(1, &["service", "logs", "--raw", "ssds"]).lines().filter(|line| *line == "2").count() == 3
    });
}
