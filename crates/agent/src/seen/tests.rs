use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use skep_mesh::{
    Counters, Desired, Devices, DropReason, Fake, Flow, FlowRole, FlowState, LocalTask, LocatedEndpoint, Network,
    NetworkKind, OwnNode, Traffic, Usage,
};
use skep_model::seen::{BackendState, FlowFilter, MeshReport, PortState, TraceQuestion, TraceReport};
use skep_model::{
    Balance, EndpointKey, EndpointRecord, EndpointState, ListenOn, Member, NodeId, PortOptions, Protocol, PublishMode,
    PublishOptions, PublishedPort, ServiceEntry, TaskId, Timestamp, Version,
};
use skep_netdb::{Endpoints, NetDb};

use super::census::Census;
use super::report::{Seen, report};
use super::{Observer, flows, trace};
use crate::Assignments;
use crate::mesh::Mesh;
use crate::report::Reporter;

const CLIENT: &str = "192.0.2.9:40000";

/// A node, node1, with a task of its own; node2 has two more. All of service "web", 8080 to 80.
struct Rig {
    desired: Desired,
    counters: Counters,
    flows: Vec<Flow>,
    passed_over: BTreeSet<TaskId>,
    tasks: [TaskId; 3],
}

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    format!("{text:0<25}").parse().unwrap()
}

fn port(published: u16, mode: PublishMode) -> PublishedPort {
    let number = |n| NonZeroU16::new(n).unwrap();
    PublishedPort { protocol: Protocol::Tcp, target: number(80), published: number(published), mode }
}

fn options(published: u16, options: PublishOptions, answers: bool) -> PortOptions {
    PortOptions { protocol: Protocol::Tcp, published: NonZeroU16::new(published).unwrap(), options, answers }
}

fn member(number: u8) -> Member {
    Member {
        node: id(&format!("node{number}")),
        hostname: format!("node{number}"),
        underlay: Ipv4Addr::new(10, 77, 0, number).into(),
        overlay: Ipv4Addr::new(10, 0, 0, number),
        alive: true,
        away: false,
    }
}

fn endpoint(task: &TaskId, node: u8, host: u8) -> LocatedEndpoint {
    LocatedEndpoint {
        key: EndpointKey { network: id("net"), task: task.clone() },
        owner: id(&format!("node{node}")),
        record: EndpointRecord {
            service: id("web"),
            addr: Ipv4Addr::new(10, 0, 1, host),
            state: EndpointState::Ready,
            weight: 1,
            aliases: Vec::new(),
            host_ports: Vec::new(),
        },
    }
}

impl Rig {
    fn new() -> Self {
        let tasks: [TaskId; 3] = [id("aaa"), id("bbb"), id("ccc")];
        let web = ServiceEntry {
            id: id("web"),
            name: "web".to_owned(),
            version: Version(7),
            ports: vec![port(8080, PublishMode::Ingress)],
            options: Vec::new(),
            virtual_ips: Vec::new(),
            networks: Vec::new(),
        };
        let local = LocalTask {
            task: tasks[0].clone(),
            home: id("net"),
            addr: Ipv4Addr::new(10, 0, 1, 1),
            networks: Vec::new(),
            host_ifindex: 9,
            mac: [2, 0, 0, 0, 0, 1],
            ipv6: true,
            state: EndpointState::Ready,
            host_ports: Vec::new(),
            host_options: Vec::new(),
        };
        let addresses = BTreeMap::from([(IpAddr::from([10, 77, 0, 1]), "eth0".to_owned())]);
        let node = OwnNode {
            id: id("node1"),
            underlay: [10, 77, 0, 1].into(),
            overlay: [10, 0, 0, 1].into(),
            addresses,
            taken: BTreeSet::new(),
            reply_direct: false,
            direct: BTreeSet::new(),
        };
        let devices = Devices {
            loopback: 1,
            overlay: 2,
            underlay: Some(3),
            overlay_mtu: 1450,
            overlay_port: 4789,
            ipsec: false,
            uplinks: BTreeSet::from([3]),
            tunnels: BTreeSet::new(),
            ways: BTreeMap::new(),
        };
        let endpoints = vec![endpoint(&tasks[0], 1, 1), endpoint(&tasks[1], 2, 2), endpoint(&tasks[2], 2, 3)];
        let members = vec![member(1), member(2)];
        let (member_addresses, services, local_tasks) = ([].into(), vec![web], vec![local]);
        let ingress = Network {
            id: id("net"),
            number: 4096,
            subnet: "10.0.0.0/16".parse().unwrap(),
            subnet6: None,
            kind: NetworkKind::Ingress,
        };
        let networks = vec![ingress];
        let desired = Desired { node, devices, members, member_addresses, services, networks, endpoints, local_tasks };
        Self { desired, counters: Counters::default(), flows: Vec::new(), passed_over: [].into(), tasks }
    }

    fn report(&self) -> MeshReport {
        report(&Seen {
            now: Timestamp::UNIX_EPOCH,
            desired: &self.desired,
            assignments: &Assignments::default(),
            statuses: &BTreeMap::new(),
            endpoints: &Endpoints::default(),
            versions: &BTreeMap::new(),
            counters: &self.counters,
            usage: &[Usage { table: "flows", used: 3, room: 10 }],
            census: &Census::of(&self.flows),
        })
    }

    fn trace(&self, port: u16, from: Option<&str>, to: Option<&str>) -> TraceReport {
        let from = from.map(|text| text.parse().unwrap());
        let question = TraceQuestion { protocol: Protocol::Tcp, port, from, to: to.map(|text| text.parse().unwrap()) };
        let known = self.flows.iter().find(|flow| super::is_of(flow, &question));
        trace::trace(&self.desired, &self.report().ports, &question, known, &self.passed_over)
    }

    fn option(&mut self, publish: PublishOptions, answers: bool) {
        self.desired.services[0].options = vec![options(8080, publish, answers)];
    }
}

fn flow(task: &TaskId, client: &str, state: FlowState) -> Flow {
    Flow {
        protocol: Protocol::Tcp,
        client: client.parse().unwrap(),
        asked: "10.77.0.1:8080".parse().unwrap(),
        vip: false,
        task: Some(task.clone()),
        place: None,
        role: FlowRole::Asked,
        state,
        idle: Duration::from_secs(4),
    }
}

#[test]
fn a_port_shows_who_is_behind_it_and_what_was_counted() {
    let mut rig = Rig::new();
    let [a, b, _] = rig.tasks.clone();
    rig.desired.local_tasks[0].state = EndpointState::Draining;
    rig.flows = vec![flow(&b, CLIENT, FlowState::Open), flow(&b, "192.0.2.9:40001", FlowState::Closed)];
    rig.counters.backends.insert(a.clone(), Traffic { flows: 5, ..Traffic::default() });
    rig.counters.drops.insert(DropReason::NoBackend, 2);
    let report = rig.report();
    let port = &report.ports[0];
    assert_eq!((port.published, port.state, port.open_flows), (8080, PortState::Serving, Some(1)));
    let shown: Vec<_> =
        port.backends.iter().map(|b| (b.state, b.node.hostname.as_str(), b.share, b.open_flows)).collect();
    assert_eq!(
        shown,
        [
            (BackendState::Draining, "node1", 0.0, Some(0)),
            (BackendState::Ready, "node2", 0.5, Some(1)),
            (BackendState::Ready, "node2", 0.5, Some(0)),
        ]
    );
    assert_eq!(port.backends[0].traffic.flows, 5);
    assert_eq!((report.drops["no_backend"], report.drops["spoofed"], report.events["suspected"]), (2, 0, 0));
    assert_eq!((report.members_alive, report.members_down), (2, 0));
}

#[test]
fn what_a_port_does_here_follows_from_who_else_wants_it() {
    let state = |change: fn(&mut Rig)| {
        let mut rig = Rig::new();
        change(&mut rig);
        rig.report().ports[0].state
    };
    assert_eq!(state(|_| {}), PortState::Serving);
    assert_eq!(state(|r| r.option(PublishOptions::default(), false)), PortState::Elsewhere);
    assert_eq!(state(|r| assert!(r.desired.node.taken.insert((Protocol::Tcp, 8080)))), PortState::Held);
    assert_eq!(state(|r| assert!(r.desired.node.taken.insert((Protocol::Udp, 8080)))), PortState::Serving);
    assert_eq!(
        state(|r| {
            r.desired.local_tasks.clear();
            r.desired.endpoints.iter_mut().for_each(|e| e.record.state = EndpointState::Starting);
        }),
        PortState::NobodyReady
    );
}

#[test]
fn local_first_shares_among_tasks_of_this_node() {
    let mut rig = Rig::new();
    rig.option(PublishOptions { balance: Balance::LocalFirst, ..PublishOptions::default() }, true);
    let shares = |rig: &Rig| rig.report().ports[0].backends.iter().map(|b| b.share).collect::<Vec<_>>();
    assert_eq!(shares(&rig), [1.0, 0.0, 0.0]);
    rig.desired.local_tasks[0].state = EndpointState::Starting;
    assert_eq!(shares(&rig), [0.0, 0.5, 0.5]);
}

/// What people are told is what the tables say, whatever the tasks are doing.
#[test]
fn those_who_get_new_flows_are_those_in_the_compiled_tables() {
    let states = [EndpointState::Starting, EndpointState::Ready, EndpointState::Draining];
    for number in 0..27 * 2 {
        let balance = if number % 2 == 0 { Balance::Maglev } else { Balance::LocalFirst };
        let [a, b, c] = [number / 2 % 3, number / 6 % 3, number / 18].map(|n| states[n]);
        let mut rig = Rig::new();
        rig.option(PublishOptions { balance, ..PublishOptions::default() }, true);
        rig.desired.local_tasks[0].state = a;
        (rig.desired.endpoints[1].record.state, rig.desired.endpoints[2].record.state) = (b, c);
        let tables = skep_mesh::compile(&rig.desired);
        let group: BTreeSet<_> =
            tables.groups.values().next().unwrap().ready.iter().map(|key| key.task.clone()).collect();
        let port = rig.report().ports.remove(0);
        let told = port.backends.iter().filter(|b| b.share > 0.0).map(|b| b.task.clone()).collect();
        assert_eq!(group, told, "{balance:?} {a:?} {b:?} {c:?}");
        assert_eq!(port.state == PortState::Serving, !group.is_empty());
        let trace = rig.trace(8080, Some(CLIENT), None);
        assert_eq!(trace.backend.as_ref().is_some_and(|b| group.contains(&b.task)), !group.is_empty(), "{trace:#?}");
    }
}

#[test]
fn an_ipv6_client_gets_the_task_by_its_ipv6_address() {
    let mut rig = Rig::new();
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    rig.desired.node.addresses.insert(address, "eth0".to_owned());
    let trace = rig.trace(8080, Some("[2001:db8::9]:40000"), Some("2001:db8::1"));
    assert!(trace.verdict.contains("at [fd73:6b65:7000::"), "{trace:#?}");
    let inside = rig.trace(8080, None, Some("fd73:6b65:7000::a00:1"));
    assert!(inside.steps[0].says.contains("inside the mesh"), "{inside:#?}");
}

#[test]
fn fingerprints_are_the_same_for_the_same_and_differ_for_a_removal() {
    let tables = |services: &[(&str, u64)]| {
        let rig = Rig::new();
        let mut assignments = Assignments::default();
        for (name, version) in services {
            let service = ServiceEntry { id: id(name), version: Version(*version), ..rig.desired.services[0].clone() };
            assignments.services.insert(service.id.clone(), service);
        }
        let seen = Seen {
            now: Timestamp::UNIX_EPOCH,
            desired: &rig.desired,
            assignments: &assignments,
            statuses: &BTreeMap::new(),
            endpoints: &Endpoints::default(),
            versions: &BTreeMap::new(),
            counters: &rig.counters,
            usage: &[],
            census: &Census::of(&[]),
        };
        report(&seen).tables[0].clone()
    };
    assert_eq!(tables(&[("a", 1), ("b", 5)]), tables(&[("b", 5), ("a", 1)]));
    let (all, less) = (tables(&[("a", 1), ("b", 5)]), tables(&[("b", 5)]));
    assert_eq!((all.version, less.version), (5, 5));
    assert_ne!(all.fingerprint, less.fingerprint);
    assert_ne!(tables(&[("a", 5)]).fingerprint, tables(&[("b", 5)]).fingerprint);
    assert!(all.fingerprint.unwrap() < 1 << 48);
}

#[test]
fn a_trace_ends_where_a_packet_would() {
    // what is changed, client, address asked, last table, a word of the verdict
    type Case = (fn(&mut Rig), Option<&'static str>, Option<&'static str>, &'static str, &'static str);
    let cases: [Case; 9] = [
        (|_| {}, Some(CLIENT), None, "path", "a new flow: task"),
        (|_| {}, None, None, "maglev", "one of 3 tasks"),
        (|_| {}, Some(CLIENT), Some("10.77.0.1"), "path", "a new flow"),
        (|_| {}, Some(CLIENT), Some("10.77.0.7"), "addresses", "not for this node"),
        (|r| assert!(r.desired.node.taken.insert((Protocol::Tcp, 8080))), None, None, "held ports", "end the process"),
        (|r| r.option(PublishOptions::default(), false), None, None, "ports", "ask a node"),
        (
            |r| r.option(PublishOptions { sources: vec!["10.0.0.0/8".parse().unwrap()], ..Default::default() }, true),
            Some(CLIENT),
            None,
            "sources",
            "network stack",
        ),
        (
            |r| {
                let listen = vec![ListenOn::Net("127.0.0.1/32".parse().unwrap())];
                r.option(PublishOptions { listen, ..Default::default() }, true);
            },
            Some(CLIENT),
            Some("10.77.0.1"),
            "listen",
            "network stack",
        ),
        (
            |r| {
                r.desired.endpoints.clear();
                r.desired.local_tasks.clear();
            },
            Some(CLIENT),
            None,
            "backends",
            "refused at once with a TCP reset: no task of web is ready",
        ),
    ];
    for (change, from, to, table, verdict) in cases {
        let mut rig = Rig::new();
        change(&mut rig);
        let trace = rig.trace(8080, from, to);
        assert_eq!(trace.steps.last().unwrap().table, table, "{trace:#?}");
        assert!(trace.verdict.contains(verdict), "{verdict:?} is not in {trace:#?}");
        assert_eq!(trace.backend.is_some(), table == "path", "{trace:#?}");
    }
    let none = Rig::new().trace(9999, Some(CLIENT), None);
    assert!(none.steps[0].says.contains("9999/tcp is not published here; what is: 8080/tcp"), "{none:#?}");
}

#[test]
fn a_trace_tells_who_is_passed_over() {
    let mut rig = Rig::new();
    let first = rig.trace(8080, Some(CLIENT), None).backend.unwrap().task;
    rig.passed_over.insert(first.clone());
    let trace = rig.trace(8080, Some(CLIENT), None);
    assert_ne!(trace.backend.unwrap().task, first);
    let step = trace.steps.iter().find(|step| step.table == "suspects").unwrap();
    assert!(step.passes && step.says.contains(first.as_str()), "{step:?}");
}

#[test]
fn a_known_flow_goes_on_where_it_is_and_a_closed_one_does_not() {
    let mut rig = Rig::new();
    let chosen = rig.trace(8080, Some(CLIENT), None).backend.unwrap().task;
    let other = rig.tasks.iter().find(|t| **t != chosen).unwrap().clone();
    rig.flows = vec![flow(&other, CLIENT, FlowState::Open)];
    let known = rig.trace(8080, Some(CLIENT), None);
    assert_eq!(known.backend.unwrap().task, other);
    assert!(known.verdict.starts_with("the flow goes on"), "{}", known.verdict);
    rig.flows = vec![flow(&other, CLIENT, FlowState::Closed)];
    assert_eq!(rig.trace(8080, Some(CLIENT), None).backend.unwrap().task, chosen);
}

#[test]
fn clients_are_spread_over_all_tasks_and_affinity_keeps_an_address_together() {
    let mut rig = Rig::new();
    let chosen = |rig: &Rig| -> BTreeSet<TaskId> {
        let clients = (40000..40032).map(|port| SocketAddr::new([192, 0, 2, 9].into(), port).to_string());
        clients.map(|c| rig.trace(8080, Some(&c), None).backend.unwrap().task).collect()
    };
    assert_eq!(chosen(&rig).len(), 3);
    rig.option(PublishOptions { client_affinity: true, ..PublishOptions::default() }, true);
    assert_eq!(chosen(&rig).len(), 1);
}

#[test]
fn flows_are_filtered_ordered_and_counted() {
    let rig = Rig::new();
    let [a, b, _] = rig.tasks.clone();
    let all = || {
        let idle = |secs, flow: Flow| Flow { idle: Duration::from_secs(secs), ..flow };
        vec![
            idle(9, flow(&a, "192.0.2.9:1", FlowState::Open)),
            idle(1, flow(&b, "192.0.2.9:2", FlowState::Opening)),
            idle(5, flow(&b, "198.51.100.1:3", FlowState::Open)),
        ]
    };
    let ask = |filter: FlowFilter| {
        let list = flows::select(&rig.desired, all(), &filter);
        (list.matched, list.flows.iter().map(|f| f.client.port()).collect::<Vec<_>>())
    };
    let any = || FlowFilter { limit: 10, ..FlowFilter::default() };
    assert_eq!(ask(any()), (3, vec![2, 3, 1]));
    assert_eq!(ask(FlowFilter { limit: 1, ..any() }), (3, vec![2]));
    assert_eq!(ask(FlowFilter { task: Some("bbb".into()), ..any() }), (2, vec![2, 3]));
    assert_eq!(ask(FlowFilter { service: Some("web".into()), ..any() }), (3, vec![2, 3, 1]));
    assert_eq!(ask(FlowFilter { service: Some("db".into()), ..any() }), (0, vec![]));
    assert_eq!(ask(FlowFilter { client: Some("192.0.2.0/24".parse().unwrap()), ..any() }), (2, vec![2, 1]));
    assert_eq!(ask(FlowFilter { client_port: Some(3), ..any() }), (1, vec![3]));
    assert_eq!(ask(FlowFilter { state: Some(skep_model::seen::FlowState::Opening), ..any() }), (1, vec![2]));
    assert_eq!(ask(FlowFilter { port: Some(8081), ..any() }), (0, vec![]));
    let list = flows::select(&rig.desired, all(), &any());
    assert_eq!(list.flows[0].node.as_ref().unwrap().hostname, "node2");
}

#[tokio::test]
async fn a_node_without_a_mesh_says_so_and_flows_are_not_counted_all_the_time() {
    let datapath = Fake::new();
    let mesh = Mesh::new(Box::new(datapath.clone()), std::sync::Arc::new(skep_network::FakePorts::default()));
    let observer = Observer::new(mesh.clone(), NetDb::new(NodeId::random()), Reporter::default());
    let refused = observer.report(Default::default()).await.unwrap_err().to_string();
    assert!(refused.contains("not up yet"), "{refused}");

    let rig = Rig::new();
    let flows = |count: u16| (0..count).map(|n| flow(&rig.tasks[0], &format!("192.0.2.9:{}", n + 1), FlowState::Open));
    mesh.bring_to(rig.desired.clone()).await.unwrap();
    datapath.show(Counters::default(), flows(2).collect(), Vec::new());
    let open = async || observer.report(Default::default()).await.unwrap().ports[0].open_flows;
    assert_eq!(open().await, Some(2));
    datapath.show(Counters::default(), flows(5).collect(), Vec::new());
    assert_eq!(open().await, Some(2), "counted again within a second");
    mesh.close().await.unwrap();
    assert!(observer.report(Default::default()).await.is_err());
}
