//! The mesh of the fake: one of everything that can be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_model::seen::{
    BackendState, FlowFilter, FlowList, FlowRole, FlowState, MeshReport, PortState, SeenBackend, SeenFlow, SeenMap,
    SeenNode, SeenPort, SeenQuestions, SeenService, SeenTable, SeenTask, SeenTraffic, TraceQuestion, TraceReport,
    TraceStep,
};
use skep_model::{Balance, Protocol, PublishMode, TaskState, Timestamp};

const TRAFFIC: SeenTraffic =
    SeenTraffic { flows: 12, packets_in: 340, bytes_in: 56_000, packets_out: 310, bytes_out: 1_230_000 };

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    format!("{text:0<25}").parse().expect("letters and zeros are an identifier")
}

fn node(number: u8) -> SeenNode {
    let name = format!("node{number}");
    SeenNode { id: id(&name), hostname: name, underlay: Some([10, 77, 0, number].into()) }
}

fn service() -> SeenService {
    SeenService { id: id("web"), name: "web".to_owned() }
}

fn backend(task: &str, number: u8, state: BackendState) -> SeenBackend {
    let share = if state == BackendState::Ready { 0.5 } else { 0.0 };
    let addr = [10, 0, 1, number].into();
    SeenBackend { task: id(task), node: node(number), addr, state, share, open_flows: Some(3), traffic: TRAFFIC }
}

fn port(published: u16, mode: PublishMode, state: PortState, backends: Vec<SeenBackend>) -> SeenPort {
    SeenPort {
        protocol: Protocol::Tcp,
        published,
        target: 80,
        mode,
        service: service(),
        state,
        balance: Balance::Maglev,
        client_affinity: false,
        listen: Vec::new(),
        sources: Vec::new(),
        backends,
        open_flows: Some(6),
        traffic: TRAFFIC,
    }
}

/// Two ports of a service of two nodes, one of which another process has.
#[must_use]
pub fn report() -> MeshReport {
    let backends = || {
        let states =
            [("aaa", 1, BackendState::Ready), ("bbb", 2, BackendState::Ready), ("ccc", 2, BackendState::Draining)];
        states.map(|(task, number, state)| backend(task, number, state)).to_vec()
    };
    MeshReport {
        at: Timestamp::UNIX_EPOCH,
        node: node(1),
        ports: vec![
            port(8080, PublishMode::Ingress, PortState::Serving, backends()),
            port(8081, PublishMode::Ingress, PortState::Held, backends()),
        ],
        tasks: vec![SeenTask { task: id("aaa"), service: service(), state: TaskState::Running, traffic: TRAFFIC }],
        drops: BTreeMap::from([("malformed", 0), ("no_backend", 4)]),
        events: BTreeMap::from([("second_chance", 2), ("chosen_again", 1), ("suspected", 0)]),
        maps: vec![SeenMap { map: "flows".to_owned(), used: 250_000, room: 1_000_000 }],
        tables: vec![
            SeenTable { table: "services", version: 17, fingerprint: Some(0x1234_5678_9abc) },
            SeenTable { table: "endpoints", version: 1_795_457_794_000, fingerprint: Some(42) },
            SeenTable { table: "store", version: 23, fingerprint: None },
        ],
        members_alive: 2,
        members_down: 0,
        questions: vec![
            SeenQuestions { kind: "A", answer: "records", count: 31 },
            SeenQuestions { kind: "A", answer: "failed", count: 2 },
        ],
    }
}

fn seen_flow(number: u16) -> SeenFlow {
    SeenFlow {
        protocol: Protocol::Tcp,
        client: ([192, 0, 2, 9], 40_000 + number).into(),
        asked: ([10, 77, 0, 1], 8080).into(),
        service: Some(service()),
        task: Some(id("bbb")),
        node: Some(node(2)),
        role: FlowRole::Asked,
        state: FlowState::Open,
        idle: Duration::from_millis(1500),
    }
}

/// Three flows of one client, filtered by its port alone.
pub(super) fn flows(filter: &FlowFilter) -> FlowList {
    let wanted = |flow: &SeenFlow| filter.client_port.is_none_or(|port| flow.client.port() == port);
    let flows: Vec<_> = (0..3).map(seen_flow).filter(wanted).collect();
    FlowList { known: 3, matched: flows.len() as u64, flows: flows.into_iter().take(filter.limit).collect() }
}

/// The way to a task on the other node.
pub(super) fn trace(question: &TraceQuestion) -> TraceReport {
    let step = |table, says: &str, passes| TraceStep { table, says: says.to_owned(), passes };
    let known = question.port == 8080;
    TraceReport {
        node: node(1),
        protocol: question.protocol,
        port: question.port,
        from: question.from,
        to: question.to,
        steps: match known {
            true => vec![step("ports", "published by service web", true), step("path", "through the overlay", true)],
            false => vec![step("ports", "not published here", false)],
        },
        verdict: if known { "a new flow: task bbb" } else { "nothing of the mesh" }.to_owned(),
        backend: known.then(|| backend("bbb", 2, BackendState::Ready)),
    }
}
