//! What happened between two reports. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::commands::mesh::{port_name, port_state};
use crate::view::View as _;

/// What happened.
#[derive(Debug)]
pub(super) struct Look {
    /// The node's clock at the second report.
    pub(super) at: String,
    pub(super) node: String,
    /// Seconds between the reports, by the node's clock.
    pub(super) seconds: f64,
    /// The busiest first.
    pub(super) ports: Vec<PortLook>,
    pub(super) drops: Vec<Counted>,
    pub(super) events: Vec<Counted>,
    /// Name, entries, entries that fit.
    pub(super) maps: Vec<(String, i64, i64)>,
    pub(super) members_alive: i64,
    pub(super) members_down: i64,
}

/// A published port.
#[derive(Debug)]
pub(super) struct PortLook {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) state: String,
    pub(super) open_flows: i64,
    pub(super) rates: Rates,
    pub(super) backends: Vec<BackendLook>,
}

/// A task behind a port. Its rates are over all ports of its service.
#[derive(Debug)]
pub(super) struct BackendLook {
    pub(super) task: String,
    pub(super) node: String,
    pub(super) state: String,
    pub(super) open_flows: i64,
    pub(super) rates: Rates,
}

/// Per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rates {
    pub(super) flows: f64,
    pub(super) packets_in: f64,
    pub(super) packets_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

/// Something that is counted: by name, all in all, and per second.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) name: String,
    pub(super) total: i64,
    pub(super) rate: f64,
}

/// The members of a traffic object, in the order of [`Rates`].
const TRAFFIC: [&str; 5] = ["/Flows", "/PacketsIn", "/PacketsOut", "/BytesIn", "/BytesOut"];

impl Look {
    /// Compares two reports; of one service's ports, or of all.
    pub(super) fn new(before: &Value, now: &Value, service: Option<&str>) -> Self {
        let seconds = seconds(before.text("/At"), now.text("/At"));
        let old_ports: BTreeMap<_, _> = before.list("/Ports").iter().map(|p| (key(p), &p["Traffic"])).collect();
        let old_backends: BTreeMap<_, _> = before
            .list("/Ports")
            .iter()
            .flat_map(|p| p.list("/Backends"))
            .map(|b| (b.text("/Task"), &b["Traffic"]))
            .collect();
        let wanted = |port: &&Value| service.is_none_or(|s| port.text("/Service/Name") == s);
        let port = |port: &Value| PortLook {
            name: port_name(port),
            service: port.text("/Service/Name").to_owned(),
            state: port_state(port).to_owned(),
            open_flows: port.int("/OpenFlows"),
            rates: rates(old_ports.get(&key(port)).copied(), &port["Traffic"], seconds),
            backends: port.list("/Backends").iter().map(|b| backend(b, &old_backends, seconds)).collect(),
        };
        let mut ports: Vec<_> = now.list("/Ports").iter().filter(wanted).map(port).collect();
        ports.sort_by(|a, b| b.rates.flows.total_cmp(&a.rates.flows));
        Self {
            at: now.text("/At").to_owned(),
            node: now.text("/Node/Hostname").to_owned(),
            seconds,
            ports,
            drops: counted(before, now, "/Drops", seconds),
            events: counted(before, now, "/Events", seconds),
            maps: now
                .list("/Maps")
                .iter()
                .map(|m| (m.text("/Map").to_owned(), m.int("/Used"), m.int("/Room")))
                .collect(),
            members_alive: now.int("/MembersAlive"),
            members_down: now.int("/MembersDown"),
        }
    }

    /// The look as one object, for scripts.
    pub(super) fn json(&self) -> Value {
        let counted = |counts: &[Counted]| -> Map<String, Value> {
            let one = |c: &Counted| (c.name.clone(), json!({ "Total": c.total, "PerSecond": c.rate }));
            counts.iter().map(one).collect()
        };
        let backend = |b: &BackendLook| json!({ "Task": b.task, "Node": b.node, "State": b.state, "OpenFlows": b.open_flows, "PerSecond": b.rates.json() });
        let port = |p: &PortLook| {
            let backends: Vec<_> = p.backends.iter().map(backend).collect();
            json!({ "Port": p.name, "Service": p.service, "State": p.state, "OpenFlows": p.open_flows, "PerSecond": p.rates.json(), "Backends": backends })
        };
        json!({
            "At": self.at,
            "Node": self.node,
            "Seconds": self.seconds,
            "Ports": self.ports.iter().map(port).collect::<Vec<_>>(),
            "Drops": counted(&self.drops),
            "Events": counted(&self.events),
            "Maps": self.maps.iter().map(|(map, used, room)| json!({ "Map": map, "Used": used, "Room": room })).collect::<Vec<_>>(),
            "MembersAlive": self.members_alive,
            "MembersDown": self.members_down,
        })
    }
}

impl Rates {
    fn json(&self) -> Value {
        json!({ "Flows": self.flows, "PacketsIn": self.packets_in, "PacketsOut": self.packets_out, "BytesIn": self.bytes_in, "BytesOut": self.bytes_out })
    }
}

fn key(port: &Value) -> (i64, &str, &str, &str) {
    (port.int("/Published"), port.text("/Protocol"), port.text("/Mode"), port.text("/Service/ID"))
}

fn seconds(before: &str, now: &str) -> f64 {
    match (before.parse::<Timestamp>(), now.parse::<Timestamp>()) {
        (Ok(before), Ok(now)) => now.duration_since(before).as_secs_f64(),
        _ => 0.0,
    }
}

fn backend(backend: &Value, old: &BTreeMap<&str, &Value>, seconds: f64) -> BackendLook {
    BackendLook {
        task: backend.text("/Task").to_owned(),
        node: backend.text("/Node/Hostname").to_owned(),
        state: backend.text("/State").to_owned(),
        open_flows: backend.int("/OpenFlows"),
        rates: rates(old.get(backend.text("/Task")).copied(), &backend["Traffic"], seconds),
    }
}

/// What was not there before began at nothing.
fn rates(before: Option<&Value>, now: &Value, seconds: f64) -> Rates {
    let [flows, packets_in, packets_out, bytes_in, bytes_out] =
        TRAFFIC.map(|p| rate(before.map_or(0, |b| b.int(p)), now.int(p), seconds));
    Rates { flows, packets_in, packets_out, bytes_in, bytes_out }
}

/// A counter that has become less began anew.
fn rate(before: i64, now: i64, seconds: f64) -> f64 {
    let grown = if now >= before { now - before } else { now };
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    let grown = grown as f64;
    if seconds > 0.0 { grown / seconds } else { 0.0 }
}

fn counted(before: &Value, now: &Value, pointer: &str, seconds: f64) -> Vec<Counted> {
    let counts = now.map(pointer).into_iter().flatten();
    counts
        .map(|(name, count)| {
            let (total, old) = (count.as_i64().unwrap_or(0), before.int(&format!("{pointer}/{name}")));
            Counted { name: name.clone(), total, rate: rate(old, total, seconds) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_does_not_run_backwards() {
        assert_eq!(rate(100, 300, 2.0), 100.0);
        assert_eq!(rate(100, 30, 2.0), 15.0);
        assert_eq!(rate(100, 300, 0.0), 0.0);
    }
}
