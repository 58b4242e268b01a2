//! A service's spec: made from flags, and changed by them. Pure.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

use serde_json::{Value, json};

use super::flags::{CreateFlags, Health, Ports, Rollout, Scalars, UpdateFlags};
use crate::values::{env_file, key_value};

/// The spec of a new service.
///
/// # Errors
/// When flags contradict each other or a file of variables cannot be read.
pub(super) fn created(flags: &CreateFlags) -> anyhow::Result<Value> {
    let mut spec = json!({
        "Name": flags.name.clone().unwrap_or_default(), "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": { "Image": flags.image, "Init": false, "DNSConfig": {} },
            "Resources": { "Limits": {}, "Reservations": {} }, "Placement": {}, "ForceUpdate": 0,
        },
        "Mode": if flags.mode == "global" { json!({ "Global": {} }) } else { json!({ "Replicated": {} }) },
        "EndpointSpec": { "Mode": "vip" },
    });
    let mut env = Vec::new();
    for path in &flags.env_file {
        env.extend(env_file(path)?);
    }
    env.extend(flags.env.iter().filter_map(|e| own_value(e)));
    pairs(&mut spec["Labels"], &flags.label, &[]);
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    pairs(&mut container["Labels"], &flags.container_label, &[]);
    container["Args"] = json!(flags.args);
    list(&mut container["Env"], &[], env.into_iter().map(Value::from).collect(), variable);
    list(&mut container["Mounts"], &[], flags.mount.clone(), |m| field(m, "Target"));
    list(&mut container["Ulimits"], &[], flags.ulimit.clone(), |u| field(u, "Name"));
    texts(&mut container["Hosts"], &flags.hosts, &[]);
    texts(&mut container["DNSConfig"]["Nameservers"], &flags.dns, &[]);
    texts(&mut container["DNSConfig"]["Options"], &flags.dns_option, &[]);
    texts(&mut container["DNSConfig"]["Search"], &flags.dns_search, &[]);
    pairs(&mut container["Sysctls"], &flags.sysctl, &[]);
    capabilities(container, &flags.cap_add, &flags.cap_drop);
    let placement = &mut spec["TaskTemplate"]["Placement"];
    texts(&mut placement["Constraints"], &flags.constraint, &[]);
    list(&mut placement["Preferences"], &[], preferences(&flags.placement_pref)?, Value::to_string);
    list(&mut spec["EndpointSpec"]["Ports"], &[], ports(&flags.publish), Value::to_string);
    generic(&mut spec["TaskTemplate"], &flags.generic_resource, &[]);
    scalars(&mut spec, &flags.scalars)?;
    health(&mut spec, &flags.health)?;
    rollout(&mut spec, &flags.rollout);
    prune(&mut spec);
    Ok(spec)
}

/// Changes a spec as the flags say, and nothing else.
///
/// # Errors
/// When a flag does not suit the service.
pub(super) fn update(spec: &mut Value, flags: &UpdateFlags) -> anyhow::Result<()> {
    pairs(&mut spec["Labels"], &flags.label_add, &flags.label_rm);
    let task = &mut spec["TaskTemplate"];
    if flags.force {
        let forced = task["ForceUpdate"].as_u64().unwrap_or_default();
        task["ForceUpdate"] = json!(forced + 1);
    }
    let container = &mut task["ContainerSpec"];
    if let Some(image) = &flags.image {
        container["Image"] = json!(image);
    }
    if let Some(args) = &flags.args {
        container["Args"] = json!(args.0);
    }
    pairs(&mut container["Labels"], &flags.container_label_add, &flags.container_label_rm);
    let env = flags.env_add.iter().filter_map(|e| own_value(e)).map(Value::from).collect();
    list(&mut container["Env"], &flags.env_rm, env, variable);
    list(&mut container["Mounts"], &flags.mount_rm, flags.mount_add.clone(), |m| field(m, "Target"));
    list(&mut container["Ulimits"], &flags.ulimit_rm, flags.ulimit_add.clone(), |u| field(u, "Name"));
    texts(&mut container["Hosts"], &flags.host_add, &flags.host_rm);
    texts(&mut container["DNSConfig"]["Nameservers"], &flags.dns_add, &flags.dns_rm);
    texts(&mut container["DNSConfig"]["Options"], &flags.dns_option_add, &flags.dns_option_rm);
    texts(&mut container["DNSConfig"]["Search"], &flags.dns_search_add, &flags.dns_search_rm);
    pairs(&mut container["Sysctls"], &flags.sysctl_add, &flags.sysctl_rm);
    capabilities(container, &flags.cap_add, &flags.cap_drop);
    let placement = &mut task["Placement"];
    texts(&mut placement["Constraints"], &flags.constraint_add, &flags.constraint_rm);
    let removed: Vec<String> = preferences(&flags.placement_pref_rm)?.iter().map(Value::to_string).collect();
    list(&mut placement["Preferences"], &removed, preferences(&flags.placement_pref_add)?, Value::to_string);
    generic(task, &flags.generic_resource_add, &flags.generic_resource_rm);
    publish(&mut spec["EndpointSpec"]["Ports"], &flags.publish_add, &flags.publish_rm);
    scalars(spec, &flags.scalars)?;
    health(spec, &flags.health)?;
    rollout(spec, &flags.rollout);
    prune(spec);
    Ok(())
}

/// Puts a service on networks, and takes it off others, by their identifiers. What is on one already gets the new aliases.
pub(super) fn networks(spec: &mut Value, add: Vec<Value>, rm: &[String]) {
    if add.is_empty() && rm.is_empty() {
        return;
    }
    // Services of old clients have theirs elsewhere.
    let old = spec.as_object_mut().and_then(|spec| spec.remove("Networks"));
    let slot = &mut spec["TaskTemplate"]["Networks"];
    if let Some(old) = old.filter(|_| slot.is_null()) {
        *slot = old;
    }
    list(slot, rm, add, |n| field(n, "Target"));
    prune(spec);
}

/// Asks for more kinds of generic resources, for others of a kind, and for some no more.
fn generic(task: &mut Value, add: &[Value], rm: &[String]) {
    if add.is_empty() && rm.is_empty() {
        return;
    }
    let kind = |resource: &Value| field(&resource["DiscreteResourceSpec"], "Kind");
    list(&mut task["Resources"]["Reservations"]["GenericResources"], rm, add.to_vec(), kind);
}

/// `--publish-rm` names target ports; `--publish-add` replaces what opens the same door.
fn publish(slot: &mut Value, add: &[Ports], rm: &[Ports]) {
    let target = |p: &Value| format!("{}/{}", p["TargetPort"], field(p, "Protocol"));
    let removed: Vec<String> = ports(rm).iter().map(target).collect();
    list(slot, &removed, Vec::new(), target);
    let door = |p: &Value| match p["PublishedPort"].as_u64() {
        Some(published) if published != 0 => format!("{published}/{}", field(p, "Protocol")),
        _ => format!(">{}", target(p)),
    };
    list(slot, &[], ports(add), door);
}

fn ports(given: &[Ports]) -> Vec<Value> {
    given.iter().flat_map(|p| &p.0).map(|p| p.to_json()).collect()
}

fn preferences(given: &[String]) -> anyhow::Result<Vec<Value>> {
    let one = |text: &String| match text.split_once('=') {
        Some(("spread", over)) if !over.is_empty() => Ok(json!({ "Spread": { "SpreadDescriptor": over } })),
        _ => anyhow::bail!("invalid placement preference {text:?}: write spread=node.labels.<name>"),
    };
    given.iter().map(one).collect()
}

fn scalars(spec: &mut Value, flags: &Scalars) -> anyhow::Result<()> {
    if let Some(replicas) = flags.replicas {
        if spec.pointer("/Mode/Replicated").is_none() {
            anyhow::bail!("replicas can only be used with replicated mode");
        }
        spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
    }
    let container = ["TaskTemplate", "ContainerSpec"];
    let resources = |group| ["TaskTemplate", "Resources", group];
    let restart = ["TaskTemplate", "RestartPolicy"];
    set(spec, &["EndpointSpec"], "Mode", flags.endpoint_mode.as_ref());
    set(spec, &container, "Command", flags.entrypoint.as_ref().map(|w| &w.0));
    set(spec, &container, "Hostname", flags.hostname.as_ref());
    set(spec, &container, "Init", flags.init);
    set(spec, &container, "ReadOnly", flags.read_only);
    set(spec, &container, "StopGracePeriod", flags.stop_grace_period);
    set(spec, &container, "StopSignal", flags.stop_signal.as_ref());
    set(spec, &container, "TTY", flags.tty);
    set(spec, &container, "User", flags.user.as_ref());
    set(spec, &container, "Dir", flags.workdir.as_ref());
    set(spec, &resources("Limits"), "NanoCPUs", flags.limit_cpu);
    set(spec, &resources("Limits"), "MemoryBytes", flags.limit_memory);
    set(spec, &resources("Limits"), "Pids", flags.limit_pids);
    set(spec, &resources("Reservations"), "NanoCPUs", flags.reserve_cpu);
    set(spec, &resources("Reservations"), "MemoryBytes", flags.reserve_memory);
    set(spec, &["TaskTemplate", "Placement"], "MaxReplicas", flags.replicas_max_per_node);
    let touched = flags.restart_condition.is_some()
        || flags.restart_delay.is_some()
        || flags.restart_max_attempts.is_some()
        || flags.restart_window.is_some();
    if touched && spec.pointer("/TaskTemplate/RestartPolicy").is_none_or(Value::is_null) {
        spec["TaskTemplate"]["RestartPolicy"] =
            json!({ "Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0 });
    }
    set(spec, &restart, "Condition", flags.restart_condition.as_ref());
    set(spec, &restart, "Delay", flags.restart_delay);
    set(spec, &restart, "MaxAttempts", flags.restart_max_attempts);
    set(spec, &restart, "Window", flags.restart_window);
    Ok(())
}

fn health(spec: &mut Value, flags: &Health) -> anyhow::Result<()> {
    let test = flags.health_cmd.as_ref().map(|line| json!(["CMD-SHELL", line]));
    let fields = [
        ("Test", test),
        ("Interval", flags.health_interval.map(Value::from)),
        ("Retries", flags.health_retries.map(Value::from)),
        ("StartInterval", flags.health_start_interval.map(Value::from)),
        ("StartPeriod", flags.health_start_period.map(Value::from)),
        ("Timeout", flags.health_timeout.map(Value::from)),
    ];
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    if flags.no_healthcheck {
        if fields.iter().any(|(_, value)| value.is_some()) {
            anyhow::bail!("--no-healthcheck conflicts with --health-* options");
        }
        container["Healthcheck"] = json!({ "Test": ["NONE"] });
        return Ok(());
    }
    for (name, value) in fields {
        set(container, &["Healthcheck"], name, value);
    }
    Ok(())
}

fn rollout(spec: &mut Value, flags: &Rollout) {
    let value = |v: Option<&String>| v.map(|v| json!(v));
    let groups = [
        (
            "UpdateConfig",
            [
                ("Parallelism", flags.update_parallelism.map(Value::from)),
                ("Delay", flags.update_delay.map(Value::from)),
                ("Monitor", flags.update_monitor.map(Value::from)),
                ("FailureAction", value(flags.update_failure_action.as_ref())),
                ("MaxFailureRatio", flags.update_max_failure_ratio.map(Value::from)),
                ("Order", value(flags.update_order.as_ref())),
            ],
        ),
        (
            "RollbackConfig",
            [
                ("Parallelism", flags.rollback_parallelism.map(Value::from)),
                ("Delay", flags.rollback_delay.map(Value::from)),
                ("Monitor", flags.rollback_monitor.map(Value::from)),
                ("FailureAction", value(flags.rollback_failure_action.as_ref())),
                ("MaxFailureRatio", flags.rollback_max_failure_ratio.map(Value::from)),
                ("Order", value(flags.rollback_order.as_ref())),
            ],
        ),
    ];
    for (group, fields) in groups {
        // One flag of a group makes the whole group explicit, with the defaults for the rest.
        if spec[group].is_null() && fields.iter().any(|(_, v)| v.is_some()) {
            spec[group] = json!({ "Parallelism": 1, "Monitor": 5_000_000_000_i64, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first" });
        }
        for (name, value) in fields {
            set(spec, &[group], name, value);
        }
    }
}

/// Sets a field where the flag was given; objects on the way are made.
fn set(spec: &mut Value, path: &[&str], field: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        path.iter().fold(spec, |at, key| &mut at[*key])[field] = json!(value);
    }
}

/// `NAME=value` as it is; a bare `NAME` with our own value, if there is one.
fn own_value(text: &str) -> Option<String> {
    if text.contains('=') { Some(text.to_owned()) } else { std::env::var(text).ok().map(|v| format!("{text}={v}")) }
}

fn variable(value: &Value) -> String {
    value.as_str().unwrap_or_default().split('=').next().unwrap_or_default().to_owned()
}

fn field(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn pairs(slot: &mut Value, add: &[String], rm: &[String]) {
    let mut members = slot.as_object().cloned().unwrap_or_default();
    members.retain(|key, _| !rm.contains(key));
    members.extend(add.iter().map(|p| key_value(p)).map(|(k, v)| (k, json!(v))));
    if !(slot.is_null() && members.is_empty()) {
        *slot = Value::Object(members);
    }
}

fn texts(slot: &mut Value, add: &[String], rm: &[String]) {
    // A set: adding twice changes nothing.
    let mut items: Vec<Value> = slot.as_array().cloned().unwrap_or_default();
    items.retain(|i| !rm.iter().any(|r| i == r));
    let before = items.clone();
    items.extend(add.iter().filter(|a| !before.iter().any(|b| b == *a)).map(|a| json!(a)));
    *slot = Value::Array(items);
}

/// Removes by key; what is added replaces, in its place, what has the same key. Lists may be long: a range of ports is ten thousand items.
fn list(slot: &mut Value, rm: &[String], add: Vec<Value>, key: impl Fn(&Value) -> String) {
    let mut items: Vec<Value> = slot.as_array().cloned().unwrap_or_default();
    let rm: HashSet<&String> = rm.iter().collect();
    items.retain(|i| !rm.contains(&key(i)));
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        places.entry(key(item)).or_insert(place);
    }
    for item in add {
        match places.entry(key(&item)) {
            Entry::Occupied(place) => items[*place.get()] = item,
            Entry::Vacant(free) => {
                free.insert(items.len());
                items.push(item);
            }
        }
    }
    *slot = Value::Array(items);
}

/// Adds and drops; the last word on a capability counts.
fn capabilities(container: &mut Value, add: &[String], drop: &[String]) {
    let name = |text: &String| match text.to_uppercase() {
        t if t == "ALL" || t.starts_with("CAP_") => t,
        t => format!("CAP_{t}"),
    };
    let (add, drop): (Vec<String>, Vec<String>) = (add.iter().map(name).collect(), drop.iter().map(name).collect());
    texts(&mut container["CapabilityAdd"], &add, &drop);
    texts(&mut container["CapabilityDrop"], &drop, &add);
}

/// Removes the nulls and empty lists that editing left behind: the API leaves such fields out.
fn prune(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
        members.values_mut().for_each(prune);
    }
}

#[cfg(test)]
mod tests;
