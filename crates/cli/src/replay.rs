//! Tests: whole commands against a server on a unix socket that gives recorded answers.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::Command;
use crate::client::Client;
use crate::session::Session;

#[derive(Parser)]
struct Line {
    /// As the binary has it.
    #[arg(short = 'H', global = true)]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// Answers by path, without the version; the last of a path is given again and again.
type Answers = Arc<Mutex<BTreeMap<String, VecDeque<(u16, Value)>>>>;

#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a command wrote, how it ended, and the bodies that it posted.
struct Outcome {
    stdout: String,
    result: anyhow::Result<()>,
    posted: Vec<(String, Value)>,
}

async fn run(words: &[&str], exchanges: &[(&str, u16, Value)]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let answers = Answers::default();
    for (path, status, body) in exchanges {
        answers.lock().unwrap().entry((*path).to_owned()).or_default().push_back((*status, body.clone()));
    }
    let posted = Arc::new(Mutex::new(Vec::new()));
    let (served, log) = (answers, posted.clone());
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, log) = (served.clone(), log.clone());
            let service = service_fn(move |request| answer(request, answers.clone(), log.clone()));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let out = Buffer::default();
    let client = Client::new(&format!("unix://{}", socket.display())).unwrap();
    let mut session = Session::to_writer(client, Box::new(out.clone()));
    let line = Line::try_parse_from(std::iter::once(&"skep").chain(words)).unwrap();
    let result = match crate::commands::run(&mut session, line.command).await {
        Ok(()) => session.finish().map(drop),
        Err(e) => Err(e),
    };
    server.abort();
    let stdout = out.text();
    let posted = posted.lock().unwrap().clone();
    Outcome { stdout, result: result.map(|_| ()), posted }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    answers: Answers,
    log: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/_ping" {
        return Ok(Response::builder().header("api-version", "1.41").body(Full::default()).unwrap());
    }
    let path = parts.uri.path().strip_prefix("/v1.41").expect("the version that was negotiated").to_owned();
    if parts.method == "POST" {
        let body = body.collect().await.unwrap().to_bytes();
        let target = parts.uri.path_and_query().unwrap().as_str().trim_start_matches("/v1.41").to_owned();
        log.lock().unwrap().push((target, serde_json::from_slice(&body).unwrap_or(Value::Null)));
    }
    let (status, body) = match answers.lock().unwrap().get_mut(&path) {
        Some(queue) if queue.len() > 1 => queue.pop_front().unwrap(),
        Some(queue) => queue[0].clone(),
        None => (404, json!({ "message": format!("{path} not found") })),
    };
    Ok(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
}

async fn replayed(recording: &str) {
    let recording: Value = serde_json::from_str(recording).unwrap();
    let exchanges = recording["exchanges"].as_array().unwrap();
    let exchanges: Vec<_> = exchanges
        .iter()
        .map(|e| {
            (e["path"].as_str().unwrap(), u16::try_from(e["status"].as_u64().unwrap()).unwrap(), e["body"].clone())
        })
        .collect();
    let words: Vec<&str> = recording["command"].as_str().unwrap().split(' ').skip(1).collect();
    let outcome = run(&words, &exchanges).await;
    outcome.result.unwrap();
    assert_eq!(outcome.stdout, recording["stdout"].as_str().unwrap());
}

#[tokio::test]
async fn lists_look_as_docker_shows_them() {
    replayed(include_str!("../tests/golden/150-service-ls.json")).await;
    replayed(include_str!("../tests/golden/050-node-ls.json")).await;
    replayed(include_str!("../tests/golden/064-network-ls.json")).await;
    replayed(include_str!("../tests/golden/421-node-ls-3mgr.json")).await;
}

#[tokio::test]
async fn a_service_for_people() {
    let recording: Value =
        serde_json::from_str(include_str!("../tests/golden/157-service-inspect-pretty.json")).unwrap();
    let body = recording["exchanges"][0]["body"].clone();
    let outcome = run(&["service", "inspect", "--pretty", "pub"], &[("/services/pub", 200, body)]).await;
    let plain = |text: &str| text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(plain(&outcome.stdout), plain(recording["stdout"].as_str().unwrap()));
}

fn task(slot: u64, state: &str) -> Value {
    json!({ "ID": format!("t{slot}"), "Slot": slot, "NodeID": "n1", "DesiredState": "running", "Status": { "State": state } })
}

fn converging(status: &Value) -> Vec<(&'static str, u16, Value)> {
    let service = json!({ "ID": "s1", "Version": { "Index": 7 }, "UpdateStatus": status,
        "Spec": { "Mode": { "Replicated": { "Replicas": 2 } }, "UpdateConfig": { "Monitor": 300_000_000 } } });
    vec![
        ("/services/create", 201, json!({ "ID": "s1" })),
        ("/services/s1", 200, service.clone()),
        ("/services/web", 200, service),
        ("/services/s1/update", 200, json!({ "Warnings": null })),
        ("/nodes", 200, json!([{ "ID": "n1", "Status": { "State": "ready" }, "Spec": { "Availability": "active" } }])),
        ("/tasks", 200, json!([task(1, "pending")])),
        ("/tasks", 200, json!([task(1, "running"), task(2, "starting")])),
        ("/tasks", 200, json!([task(1, "running"), task(2, "running")])),
    ]
}

#[tokio::test]
async fn create_stays_until_the_service_has_converged() {
    let outcome =
        run(&["service", "create", "--replicas", "2", "-p", "8080:80", "web:1"], &converging(&Value::Null)).await;
    outcome.result.unwrap();
    insta::assert_snapshot!(outcome.stdout, @"
    s1
    overall progress: 0 out of 2 tasks
    overall progress: 1 out of 2 tasks
    overall progress: 2 out of 2 tasks
    verify: Waiting 1 seconds to verify that tasks are stable...
    verify: Service s1 converged
    ");
    assert_eq!(outcome.posted[0].0, "/services/create");
}

#[tokio::test]
async fn an_update_that_pauses_is_an_error_and_sends_the_version_it_read() {
    let paused = json!({ "State": "paused", "Message": "update paused due to failure" });
    let outcome = run(&["service", "update", "--force", "web"], &converging(&paused)).await;
    assert_eq!(outcome.result.unwrap_err().to_string(), "service update paused: update paused due to failure");
    assert_eq!(outcome.posted[0].0, "/services/s1/update?version=7&registryAuthFrom=spec");
}

#[tokio::test]
async fn scale_changes_only_the_number() {
    let outcome = run(&["service", "scale", "-d", "web=5"], &converging(&Value::Null)).await;
    outcome.result.unwrap();
    assert_eq!(outcome.stdout, "web scaled to 5\n");
    assert_eq!(outcome.posted[0].1["Mode"], json!({ "Replicated": { "Replicas": 5 } }));
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_in_its_words() {
    let outcome =
        run(&["service", "create", "-d", "web:1"], &[("/services/create", 400, json!({ "message": "port is taken" }))])
            .await;
    assert_eq!(outcome.result.unwrap_err().to_string(), "Error response from daemon: port is taken");
}

#[test]
fn every_command_of_the_tree_is_sound() {
    use clap::CommandFactory as _;
    Line::command().debug_assert();
    let line = ["skep", "service", "create", "-H", "unix:///s", "--host", "db:10.0.0.9", "web:1"];
    assert_eq!(Line::try_parse_from(line).unwrap().host.as_deref(), Some("unix:///s"));
}

#[tokio::test]
async fn a_services_image_is_pinned_to_what_its_tag_means_now() {
    let digest = format!("sha256:{}", "d".repeat(64));
    let found =
        json!({ "Descriptor": { "digest": digest }, "Platforms": [{ "architecture": "arm64", "os": "linux" }] });
    let exchanges = [
        ("/distribution/reg.example%2Fweb%3Alatest/json", 200, found),
        ("/services/create", 201, json!({ "ID": "s1" })),
    ];
    let words = ["service", "create", "-d", "--name", "w", "reg.example/web"];
    let outcome = run(&words, &exchanges).await;
    outcome.result.unwrap();
    let template = &outcome.posted[0].1["TaskTemplate"];
    assert_eq!(template["ContainerSpec"]["Image"], format!("reg.example/web:latest@{digest}"));
    assert_eq!(template["Placement"]["Platforms"], json!([{ "Architecture": "arm64", "OS": "linux" }]));

    // Where that is not wanted, or the registry does not say, the tag stays.
    let words = ["service", "create", "-d", "--no-resolve-image", "--name", "w", "reg.example/web"];
    let outcome = run(&words, &exchanges).await;
    assert_eq!(outcome.posted[0].1["TaskTemplate"]["ContainerSpec"]["Image"], "reg.example/web");
    let words = ["service", "create", "-d", "--name", "w", "reg.example/web"];
    let outcome = run(&words, &exchanges[1..]).await;
    outcome.result.unwrap();
    assert_eq!(outcome.posted[0].1["TaskTemplate"]["ContainerSpec"]["Image"], "reg.example/web");
}

#[tokio::test]
async fn a_pull_ends_with_the_name_or_with_what_went_wrong() {
    let outcome = run(&["pull", "web"], &[("/images/create", 200, json!({ "status": "Digest: sha256:dd" }))]).await;
    outcome.result.unwrap();
    assert_eq!(outcome.stdout, "Using default tag: latest\nDigest: sha256:dd\nweb:latest\n");
    assert_eq!(outcome.posted[0].0, "/images/create?fromImage=web&tag=latest");
    let failed = json!({ "error": "manifest unknown", "errorDetail": { "message": "manifest unknown" } });
    let outcome = run(&["pull", "-q", "web@sha256:00"], &[("/images/create", 200, failed)]).await;
    assert_eq!(outcome.result.unwrap_err().to_string(), "manifest unknown");
    assert_eq!(outcome.posted[0].0, "/images/create?fromImage=web&tag=sha256%3A00");
}
