//! At every moment, as any manager sees it: no two live tasks have one address on a network, and no two services a port or a VIP.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use skep_e2e::Swarm;

use super::MANAGERS;

/// States that a task does not leave any more.
const ENDED: [&str; 6] = ["complete", "failed", "shutdown", "rejected", "orphaned", "remove"];

/// Looks all the while. Returns how often there was something to see.
pub(crate) fn watch(swarm: &Swarm, struck: &AtomicU8, stop: &AtomicBool) -> usize {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        for manager in (1..=MANAGERS).filter(|manager| *manager != struck.load(Ordering::Relaxed)) {
            looks += usize::from(look(swarm, manager));
        }
        thread::sleep(Duration::from_millis(100));
    }
    looks
}

/// Whether the manager answered.
pub(crate) fn look(swarm: &Swarm, manager: u8) -> bool {
    let (Some(tasks), Some(services)) = (ask(swarm, manager, "tasks"), ask(swarm, manager, "services")) else {
        return false;
    };
    let mut held: BTreeMap<(String, String), &Value> = BTreeMap::new();
    let mut hold = |scope: String, what: &Value, whose: &'static str, id| {
        let what = what
            .as_str()
            .map_or_else(|| what.to_string(), |text| text.split('/').next().unwrap_or_default().to_owned());
        if let Some(other) = held.insert((scope.clone(), what.clone()), id) {
            assert_eq!(other, id, "node{manager} sees two {whose} with {what} in {scope}");
        }
    };
    for task in all(&tasks).filter(|task| !ENDED.iter().any(|ended| task["Status"]["State"] == *ended)) {
        for attachment in all(&task["NetworksAttachments"]) {
            let network = attachment["Network"]["ID"].to_string();
            all(&attachment["Addresses"]).for_each(|address| hold(network.clone(), address, "tasks", &task["ID"]));
        }
    }
    for service in all(&services) {
        for vip in all(&service["Endpoint"]["VirtualIPs"]) {
            hold(vip["NetworkID"].to_string(), &vip["Addr"], "services", &service["ID"]);
        }
        for port in all(&service["Endpoint"]["Ports"]).filter(|port| port["PublishMode"] == "ingress") {
            hold(format!("ports of {}", port["Protocol"]), &port["PublishedPort"], "services", &service["ID"]);
        }
    }
    true
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn ask(swarm: &Swarm, manager: u8, what: &str) -> Option<Value> {
    let (socket, url) = (swarm.lab.socket(manager), format!("http://skep/v1.43/{what}"));
    let asked =
        Command::new("curl").args(["-sS", "--fail", "--max-time", "3", "--unix-socket"]).arg(socket).arg(url).output();
    let asked = asked.expect("curl runs");
    asked.status.success().then(|| serde_json::from_slice(&asked.stdout).expect("the answer is JSON"))
}
