//! `service inspect --pretty`.

use std::fmt::Write as _;

use serde_json::Value;

use crate::output::{memory, title};
use crate::values::go_duration;
use crate::view::View as _;

/// A service for people.
pub(super) fn pretty(service: &Value) -> String {
    let spec = &service["Spec"];
    let mut out = format!("\nID:\t\t{}\nName:\t\t{}\n", service.text("/ID"), spec.text("/Name"));
    if let Some(labels) = spec.map("/Labels").filter(|l| !l.is_empty()) {
        out.push_str("Labels:\n");
        for (key, value) in labels {
            let _ = writeln!(out, " {key}={}", value.as_str().unwrap_or_default());
        }
    }
    let mode = spec.map("/Mode").and_then(|m| m.keys().next()).map_or("", String::as_str);
    let _ = writeln!(out, "Service Mode:\t{mode}");
    if let Some(replicas) = spec.pointer("/Mode/Replicated/Replicas") {
        let _ = writeln!(out, " Replicas:\t{replicas}");
    }
    if let Some(state) = service.pointer("/UpdateStatus/State").and_then(Value::as_str) {
        let _ =
            writeln!(out, "UpdateStatus:\n State:\t\t{state}\n Message:\t{}", service.text("/UpdateStatus/Message"));
    }
    out.push_str("Placement:\n");
    let constraints = spec.texts("/TaskTemplate/Placement/Constraints");
    if !constraints.is_empty() {
        let _ = writeln!(out, " Constraints:\t[{}]", constraints.join(" "));
    }
    rollout(&mut out, "UpdateConfig", "Update order:     ", &spec["UpdateConfig"]);
    rollout(&mut out, "RollbackConfig", "Rollback order:   ", &spec["RollbackConfig"]);
    container(&mut out, &spec["TaskTemplate"]["ContainerSpec"]);
    resources(&mut out, &spec["TaskTemplate"]["Resources"]);
    let _ = writeln!(out, "Endpoint Mode:\t{}", service.text("/Endpoint/Spec/Mode"));
    let ports = service.list("/Endpoint/Ports");
    if !ports.is_empty() {
        out.push_str("Ports:\n");
    }
    for port in ports {
        let _ = writeln!(
            out,
            " PublishedPort = {}\n  Protocol = {}\n  TargetPort = {}\n  PublishMode = {}",
            port.int("/PublishedPort"),
            port.text("/Protocol"),
            port.int("/TargetPort"),
            port.text("/PublishMode"),
        );
    }
    out
}

fn rollout(out: &mut String, group: &str, order: &str, config: &Value) {
    if config.is_null() {
        return;
    }
    let _ = writeln!(out, "{group}:\n Parallelism:\t{}", config.int("/Parallelism"));
    if config.int("/Delay") > 0 {
        let _ = writeln!(out, " Delay:\t\t{}", go_duration(config.int("/Delay")));
    }
    let _ = writeln!(
        out,
        " On failure:\t{}\n Monitoring Period: {}\n Max failure ratio: {}\n {order} {}",
        config.text("/FailureAction"),
        go_duration(config.int("/Monitor")),
        config["MaxFailureRatio"],
        config.text("/Order"),
    );
}

fn container(out: &mut String, container: &Value) {
    let _ = writeln!(out, "ContainerSpec:\n Image:\t\t{}", container.text("/Image"));
    for (name, words) in [("Command", "/Command"), ("Args", "/Args")] {
        let words = container.texts(words);
        if !words.is_empty() {
            let _ = writeln!(out, " {name}:\t\t{}", words.join(" "));
        }
    }
    let env = container.texts("/Env");
    if !env.is_empty() {
        let _ = writeln!(out, " Env:\t\t{}", env.join(" "));
    }
    for (name, field) in [("Dir", "/Dir"), ("User", "/User")] {
        if !container.text(field).is_empty() {
            let _ = writeln!(out, " {name}:\t\t{}", container.text(field));
        }
    }
    if let Some(init) = container["Init"].as_bool() {
        let _ = writeln!(out, " Init:\t\t{init}");
    }
    let mounts = container.list("/Mounts");
    if !mounts.is_empty() {
        out.push_str("Mounts:\n");
    }
    for mount in mounts {
        let _ = writeln!(
            out,
            " Target:\t{}\n  Source:\t{}\n  ReadOnly:\t{}\n  Type:\t\t{}",
            mount.text("/Target"),
            mount.text("/Source"),
            mount.yes("/ReadOnly"),
            mount.text("/Type"),
        );
    }
}

fn resources(out: &mut String, resources: &Value) {
    out.push_str("Resources:\n");
    for group in ["Reservations", "Limits"] {
        let amounts = &resources[group];
        let (cpus, bytes) = (amounts.int("/NanoCPUs"), amounts.int("/MemoryBytes"));
        if cpus == 0 && bytes == 0 {
            continue;
        }
        let _ = writeln!(out, " {}:", title(group));
        if cpus != 0 {
            let text = format!("{}.{:09}", cpus / 1_000_000_000, cpus % 1_000_000_000);
            let _ = writeln!(out, "  CPU:\t\t{}", text.trim_end_matches('0').trim_end_matches('.'));
        }
        if bytes != 0 {
            let _ = writeln!(out, "  Memory:\t{}", memory(bytes));
        }
    }
}
