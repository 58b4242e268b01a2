//! The families of the mesh.

use std::collections::BTreeMap;

use skep_model::seen::{BackendState, MeshReport, PortState, SeenBackend, SeenPort, SeenTraffic};
use skep_model::{PublishMode, TaskState};

use super::text::{Kind, Page};

pub(super) fn write(page: &mut Page, mesh: &MeshReport) {
    node(page, mesh);
    ports(page, &mesh.ports);
    backends(page, &mesh.ports);
    tasks(page, mesh);
    events(page, mesh);
    questions(page, mesh);
}

fn node(page: &mut Page, mesh: &MeshReport) {
    let underlay = mesh.node.underlay.map(|a| a.to_string()).unwrap_or_default();
    let labels = [("node_id", mesh.node.id.as_str()), ("hostname", &mesh.node.hostname), ("underlay", &underlay)];
    page.family("skep_node_info", Kind::Gauge, "Always 1; who the node is is in the labels.").sample(&labels, 1);
    let mut members =
        page.family("skep_mesh_members", Kind::Gauge, "Members of the swarm, as this node believes them to be.");
    members.sample(&[("state", "alive")], mesh.members_alive);
    members.sample(&[("state", "down")], mesh.members_down);
    let mut versions =
        page.family("skep_mesh_table_version", Kind::Gauge, "The newest version in a table of the swarm.");
    for table in &mesh.tables {
        versions.sample(&[("table", table.table)], table.version);
    }
    let help = "The same number on all nodes that know the same of a table, and else another.";
    let mut fingerprints = page.family("skep_mesh_table_fingerprint", Kind::Gauge, help);
    for table in &mesh.tables {
        if let Some(fingerprint) = table.fingerprint {
            fingerprints.sample(&[("table", table.table)], fingerprint);
        }
    }
    let mut used = page.family("skep_mesh_map_entries", Kind::Gauge, "Entries in a map of the data plane.");
    mesh.maps.iter().for_each(|map| used.sample(&[("map", &map.map)], map.used));
    let mut room =
        page.family("skep_mesh_map_entries_limit", Kind::Gauge, "Entries that a map of the data plane holds.");
    mesh.maps.iter().for_each(|map| room.sample(&[("map", &map.map)], map.room));
}

/// A port with the labels of its series.
struct Labelled<'a> {
    port: &'a SeenPort,
    number: String,
}

impl Labelled<'_> {
    fn with<'b>(&'b self, further: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        let mode = match self.port.mode {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        };
        let (service, protocol) = (self.port.service.name.as_str(), self.port.protocol.as_str());
        let mut labels = vec![("service", service), ("port", &self.number), ("protocol", protocol), ("mode", mode)];
        labels.extend(further);
        labels
    }
}

fn ports(page: &mut Page, ports: &[SeenPort]) {
    let ports: Vec<_> = ports.iter().map(|port| Labelled { port, number: port.published.to_string() }).collect();
    let help = "Whether something else on the node has a published port, so that this node does not answer on it.";
    let mut held = page.family("skep_mesh_port_held", Kind::Gauge, help);
    for p in &ports {
        held.sample(&p.with(&[]), u8::from(p.port.state == PortState::Held));
    }
    let mut backends = page.family("skep_mesh_port_backends", Kind::Gauge, "Tasks behind a published port, by state.");
    for p in &ports {
        for state in BackendState::ALL {
            let count = p.port.backends.iter().filter(|b| b.state == state).count();
            backends.sample(&p.with(&[("state", state.as_str())]), count);
        }
    }
    let mut open =
        page.family("skep_mesh_port_open_flows", Kind::Gauge, "Flows of clients that asked this node, not closed.");
    for p in &ports {
        if let Some(flows) = p.port.open_flows {
            open.sample(&p.with(&[]), flows);
        }
    }
    let series: Vec<_> = ports.iter().map(|p| (p.with(&[]), p.port.traffic)).collect();
    traffic(page, &PORT, &series);
}

/// The names and helps of three counters.
struct TrafficFamilies {
    flows: (&'static str, &'static str),
    packets: (&'static str, &'static str),
    bytes: (&'static str, &'static str),
}

const PORT: TrafficFamilies = TrafficFamilies {
    flows: ("skep_mesh_port_flows_total", "Flows that were opened by clients that asked this node, by published port."),
    packets: ("skep_mesh_port_packets_total", "Packets of clients that asked this node, by published port."),
    bytes: ("skep_mesh_port_bytes_total", "Bytes of IP packets of clients that asked this node, by published port."),
};

const BACKEND: TrafficFamilies = TrafficFamilies {
    flows: ("skep_mesh_backend_flows_total", "Flows that this node gave to a task, on whichever node that is."),
    packets: ("skep_mesh_backend_packets_total", "Packets between clients that asked this node and a task."),
    bytes: ("skep_mesh_backend_bytes_total", "Bytes of IP packets between clients that asked this node and a task."),
};

const TASK: TrafficFamilies = TrafficFamilies {
    flows: ("skep_mesh_task_flows_total", "Flows that a task of this node was given, whichever node was asked."),
    packets: ("skep_mesh_task_packets_total", "Packets of a task of this node, whichever node was asked."),
    bytes: ("skep_mesh_task_bytes_total", "Bytes of IP packets of a task of this node, whichever node was asked."),
};

type Labels<'a> = Vec<(&'a str, &'a str)>;

fn traffic(page: &mut Page, names: &TrafficFamilies, series: &[(Labels<'_>, SeenTraffic)]) {
    let mut flows = page.family(names.flows.0, Kind::Counter, names.flows.1);
    series.iter().for_each(|(labels, t)| flows.sample(labels, t.flows));
    let both = |page: &mut Page, (name, help), of: fn(&SeenTraffic) -> [u64; 2]| {
        let mut family = page.family(name, Kind::Counter, help);
        for (labels, t) in series {
            for (direction, value) in ["in", "out"].into_iter().zip(of(t)) {
                family.sample(&[labels, &[("direction", direction)][..]].concat(), value);
            }
        }
    };
    both(page, names.packets, |t| [t.packets_in, t.packets_out]);
    both(page, names.bytes, |t| [t.bytes_in, t.bytes_out]);
}

fn backends(page: &mut Page, ports: &[SeenPort]) {
    // A task behind several ports is counted once: its counters are over all of them.
    let mut tasks: BTreeMap<&str, (&SeenPort, &SeenBackend, u64)> = BTreeMap::new();
    for port in ports {
        for backend in &port.backends {
            let open = backend.open_flows.unwrap_or(0);
            let task = tasks.entry(backend.task.as_str()).or_insert((port, backend, 0));
            task.2 += open;
        }
    }
    fn labels<'a>(task: &'a str, port: &'a SeenPort, backend: &'a SeenBackend) -> Labels<'a> {
        vec![("service", &port.service.name), ("task", task), ("node", &backend.node.hostname)]
    }
    let help = "Flows between clients that asked this node and a task, not closed.";
    let mut open = page.family("skep_mesh_backend_open_flows", Kind::Gauge, help);
    for (task, (port, backend, flows)) in &tasks {
        open.sample(&labels(task, port, backend), flows);
    }
    let series: Vec<_> = tasks.iter().map(|(task, (port, b, _))| (labels(task, port, b), b.traffic)).collect();
    traffic(page, &BACKEND, &series);
}

fn tasks(page: &mut Page, mesh: &MeshReport) {
    let mut states = page.family("skep_tasks", Kind::Gauge, "Tasks of this node, by how far they are.");
    for state in TASK_STATES {
        let count = mesh.tasks.iter().filter(|t| t.state == state).count();
        states.sample(&[("state", state.as_str())], count);
    }
    let running = mesh.tasks.iter().filter(|t| t.state == TaskState::Running);
    let labels = |t| -> Labels<'_> {
        let t: &skep_model::seen::SeenTask = t;
        vec![("service", &t.service.name), ("task", t.task.as_str())]
    };
    let series: Vec<_> = running.map(|t| (labels(t), t.traffic)).collect();
    traffic(page, &TASK, &series);
}

/// The states that a node's task can be seen in.
const TASK_STATES: [TaskState; 10] = [
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Complete,
    TaskState::Shutdown,
    TaskState::Failed,
    TaskState::Rejected,
];

fn events(page: &mut Page, mesh: &MeshReport) {
    let mut drops = page.family("skep_mesh_drops_total", Kind::Counter, "Packets that were not passed on, by reason.");
    mesh.drops.iter().for_each(|(reason, count)| drops.sample(&[("reason", reason)], count));
    let mut events = page.family("skep_mesh_events_total", Kind::Counter, "Things that happened to flows, by kind.");
    mesh.events.iter().for_each(|(event, count)| events.sample(&[("event", event)], count));
}

fn questions(page: &mut Page, mesh: &MeshReport) {
    let help = "Questions for names that tasks, and programs outside, have asked this node, by what became of them.";
    let mut questions = page.family("skep_dns_questions_total", Kind::Counter, help);
    for asked in &mesh.questions {
        questions.sample(&[("type", asked.kind), ("answer", asked.answer)], asked.count);
    }
}
