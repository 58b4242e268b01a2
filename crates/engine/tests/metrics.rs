//! What Prometheus is served, read as strictly as Prometheus itself would; and that dashboard and alerts ask for nothing that is not in it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use skep_engine::fake::{FakeBackend, mesh};
use skep_engine::{Listeners, Server, backend::Backend, metrics};
use support::exposition::{self, Families};
use yaml_rust2::{Yaml, YamlLoader};

fn page() -> Families {
    exposition::parse(&metrics::page(&FakeBackend::new().process(), Some(&mesh::report())))
}

#[test]
fn the_page_is_sound_and_says_what_the_report_says() {
    let page = page();
    let value = |name: &str, labels: &[(&str, &str)]| page[name].value(labels);
    let web = [("service", "web"), ("port", "8080"), ("protocol", "tcp"), ("mode", "ingress")];
    let with = |further: (&'static str, &'static str)| [&web[..], &[further]].concat();
    assert_eq!(value("skep_mesh_port_flows_total", &web), 12.0);
    assert_eq!(value("skep_mesh_port_bytes_total", &with(("direction", "out"))), 1_230_000.0);
    assert_eq!(value("skep_mesh_port_backends", &with(("state", "ready"))), 2.0);
    assert_eq!(value("skep_mesh_port_backends", &with(("state", "starting"))), 0.0);
    assert_eq!(value("skep_mesh_port_held", &web), 0.0);
    assert_eq!(value("skep_mesh_drops_total", &[("reason", "no_backend")]), 4.0);
    assert_eq!(value("skep_mesh_map_entries_limit", &[("map", "flows")]), 1_000_000.0);
    assert_eq!(
        value("skep_mesh_table_fingerprint", &[("table", "services")]),
        f64::from(0x1234_5678_u32) * 65536.0 + 39612.0
    );
    assert_eq!(value("process_cpu_seconds_total", &[]), 2.5);
    assert_eq!(value("skep_dns_questions_total", &[("type", "A"), ("answer", "records")]), 31.0);
    assert_eq!(value("skep_tasks", &[("state", "running")]), 1.0);
    // Behind two ports, the task is one series: its counters are of both.
    let task = format!("{:0<25}", "aaa");
    let backend = [("service", "web"), ("task", task.as_str()), ("node", "node1")];
    assert_eq!(value("skep_mesh_backend_flows_total", &backend), 12.0);
    assert_eq!(value("skep_mesh_backend_open_flows", &backend), 6.0);
}

#[test]
fn labels_may_hold_anything() {
    let mut report = mesh::report();
    let nasty = "a\"b\\c\nd{e},f=\"é";
    report.node.hostname = nasty.to_owned();
    let page = exposition::parse(&metrics::page(&FakeBackend::new().process(), Some(&report)));
    assert_eq!(page["skep_node_info"].samples.keys().next().unwrap()["hostname"], nasty);
}

#[test]
fn series_grow_with_ports_and_backends_only() {
    let count = |page: &Families| page.values().map(|family| family.samples.len()).sum::<usize>();
    let pages = [1u16, 2, 3].map(|ports| {
        let mut report = mesh::report();
        let port = report.ports[0].clone();
        let numbered = |n| skep_model::seen::SeenPort { published: 8000 + n, ..port.clone() };
        report.ports = (0..ports).map(numbered).collect();
        // More traffic makes no more series.
        report.ports[0].traffic.flows *= u64::from(ports) * 1000;
        count(&exposition::parse(&metrics::page(&FakeBackend::new().process(), Some(&report))))
    });
    assert_eq!(pages[1] - pages[0], pages[2] - pages[1]);
    assert_eq!(pages[1] - pages[0], 10, "series per port");
}

fn scrape(addr: SocketAddr, path: &str) -> (String, String) {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own_where_there_is_no_api() {
    let listeners = Listeners { metrics: vec!["127.0.0.1:0".parse().unwrap()], ..Listeners::default() };
    let server = Server::bind(&listeners).await.unwrap();
    let addr = server.metrics_addrs()[0];
    let taken = Server::bind(&Listeners { metrics: vec![addr], ..Listeners::default() }).await.unwrap_err();
    assert!(taken.to_string().contains(&format!("cannot listen on {addr}")), "{taken}");
    let serving = tokio::spawn(server.serve(FakeBackend::new(), std::future::pending()));
    let get = async |path: &'static str| tokio::task::spawn_blocking(move || scrape(addr, path)).await.unwrap();

    let (head, body) = get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let page = exposition::parse(&body);
    // In no swarm yet.
    assert_eq!(page["skep_mesh_up"].value(&[]), 0.0);
    assert!(!page.contains_key("skep_mesh_port_flows_total"));
    assert!(get("/info").await.0.starts_with("HTTP/1.1 404"), "the API must not be at the metrics address");
    serving.abort();
}

fn contrib(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contrib").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Labels that Prometheus itself puts on what it scrapes.
const TARGET: [&str; 2] = ["job", "instance"];

/// Words of PromQL that may stand where a name may.
const WORDS: [&str; 8] = ["sum", "max", "min", "count", "by", "on", "and", "offset"];

/// Everything in an expression that could be a metric's or a label's name, and what follows it.
fn names(expression: &str) -> Vec<(String, char)> {
    let mut names = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"' || c.is_ascii_digit()) {
        rest = &rest[start..];
        let end = match rest.as_bytes()[0] {
            b'"' => rest[1..].find('"').expect("a string ends") + 2,
            // A number, or a span like 5m.
            _ => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        let (name, after) = rest.split_at(end);
        let next = after.trim_start().chars().next().unwrap_or(' ');
        if !name.starts_with(|c: char| c == '"' || c.is_ascii_digit()) && !WORDS.contains(&name) {
            names.push((name.to_owned(), next));
        }
        rest = after;
    }
    names
}

/// Checks that an expression asks only for what is there.
fn check(expression: &str, page: &Families) {
    // Grafana puts these in.
    let plain = expression.replace("$__rate_interval", "5m").replace("$node", "x").replace("$service", "x");
    let words = names(&plain).into_iter().filter(|(_, next)| *next != '(').map(|(name, _)| name);
    let (metrics, labels): (Vec<String>, Vec<String>) =
        words.partition(|w| w.starts_with("skep_") || w.starts_with("process_") || w == "up");
    assert!(!metrics.is_empty(), "nothing of skep in {expression:?}");
    let mut known: BTreeSet<&str> = TARGET.into();
    for metric in metrics.iter().filter(|m| *m != "up") {
        let family = page.get(metric).unwrap_or_else(|| panic!("{metric} is not exported: {expression}"));
        known.extend(family.samples.keys().flat_map(BTreeMap::keys).map(String::as_str));
    }
    for label in labels {
        assert!(known.contains(label.as_str()), "nothing has the label {label:?} in {expression:?}");
    }
    let events = skep_mesh::Event::ALL.iter().map(|e| ("event", e.as_str()));
    let drops = skep_mesh::DropReason::ALL.iter().map(|r| ("reason", r.as_str()));
    let values: BTreeSet<_> = events.chain(drops).collect();
    for label in ["event", "reason"] {
        for part in plain.split(&format!("{label}=\"")).skip(1) {
            let value = part.split('"').next().unwrap();
            assert!(values.contains(&(label, value)), "no {label} is called {value:?}: {expression}");
        }
    }
}

#[test]
fn no_panel_of_the_dashboard_is_dead() {
    let page = page();
    let dashboard: Value = serde_json::from_str(&contrib("grafana/skep.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut expressions = 0;
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id {}", panel["id"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            check(target["expr"].as_str().unwrap(), &page);
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            expressions += 1;
        }
    }
    assert!(expressions >= 15, "{expressions} expressions");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')')).unwrap();
            let (metric, label) = inner.rsplit_once(", ").unwrap();
            check(&format!("sum by ({label}) ({metric})"), &page);
        }
    }
}

#[test]
fn every_alert_asks_for_what_is_there_and_says_what_to_do() {
    let page = page();
    let rules = YamlLoader::load_from_str(&contrib("prometheus/skep-alerts.yml")).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in rules[0]["groups"].as_vec().unwrap().iter().flat_map(|g| g["rules"].as_vec().unwrap()) {
        let text = |at: &Yaml, key: &str| at[key].as_str().unwrap_or_else(|| panic!("no {key} in {rule:?}")).to_owned();
        check(&text(rule, "expr"), &page);
        assert!(alerts.insert(text(rule, "alert")), "two alerts are called {}", text(rule, "alert"));
        assert!(matches!(text(&rule["labels"], "severity").as_str(), "critical" | "warning"));
        assert!(!text(&rule["annotations"], "summary").is_empty());
        assert!(!text(&rule["annotations"], "description").is_empty());
        text(rule, "for");
    }
    for wanted in [
        "SkepPortNobodyReady",
        "SkepPortHeld",
        "SkepMapNearlyFull",
        "SkepDropsRising",
        "SkepRetriesRising",
        "SkepNodeNotSeen",
        "SkepTablesDiffer",
    ] {
        assert!(alerts.contains(wanted), "there is no alert {wanted}");
    }
}

#[test]
fn the_page_on_seeing_names_every_metric() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/seeing.md");
    let text = std::fs::read_to_string(path).unwrap();
    for name in page().keys() {
        assert!(text.contains(&format!("`{name}`")), "docs/seeing.md does not say what {name} is");
    }
}
