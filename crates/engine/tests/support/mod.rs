//! A served API over the backend in memory, and two ways to talk to it: the docker CLI and plain HTTP.
#![allow(dead_code, reason = "each test binary uses its part of it")]

pub(crate) mod exposition;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skep_engine::backend::Backend as _;
use skep_engine::fake::FakeBackend;
use skep_engine::{Listeners, ServeError, Server};
use skep_model::Service;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// One node.
pub(crate) struct Node {
    pub(crate) backend: Arc<FakeBackend>,
    /// Where other managers' connections go in.
    pub(crate) tunnels: mpsc::Sender<DuplexStream>,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = FakeBackend::new();
        let listeners = Listeners { unix: vec![dir.path().join("api.sock")], tcp: Vec::new(), ..Listeners::default() };
        let (tunnels, passed_on) = mpsc::channel(4);
        let server = Server::bind(&listeners).await.unwrap().with_tunnels(passed_on);
        let (stop, stopped) = oneshot::channel::<()>();
        let served: Arc<FakeBackend> = backend.clone();
        let serving = tokio::spawn(server.serve(served, async {
            let _ = stopped.await;
        }));
        Self { backend, tunnels, dir, stop: Some(stop), serving }
    }

    /// A node that is the manager of a new swarm.
    pub(crate) async fn manager() -> Self {
        let node = Self::start().await;
        let answer =
            node.request("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.77.0.1"}"#).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        node
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.serving).await.unwrap().unwrap().unwrap();
        assert!(!self.dir.path().join("api.sock").exists(), "the socket stays behind");
    }

    /// Runs `docker` with these arguments.
    pub(crate) async fn docker(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(args);
        command.env("HOME", self.dir.path()).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs `docker`, which must succeed, and returns what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        let output = self.docker(args).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {stderr}");
        stdout.into_owned()
    }

    /// Runs `docker`, which must fail, and returns its complaint.
    pub(crate) async fn fails(&self, args: &[&str]) -> String {
        let output = self.docker(args).await;
        assert!(!output.status.success(), "docker {args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A service as the backend has it.
    pub(crate) async fn service(&self, name: &str) -> Arc<Service> {
        let view = self.backend.cluster().await.unwrap();
        view.services.values().find(|service| service.spec.name.as_str() == name).unwrap().clone()
    }

    /// One request over a connection of its own.
    pub(crate) async fn request(&self, method: &str, target: &str, body: &str) -> Answer {
        self.request_as("", method, target, body).await
    }

    /// With what somebody proves to a registry: JSON in base64.
    pub(crate) async fn request_as(&self, auth: &str, method: &str, target: &str, body: &str) -> Answer {
        let auth = if auth.is_empty() { String::new() } else { format!("X-Registry-Auth: {auth}\r\n") };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{auth}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (socket, head_only) = (self.socket(), method == "HEAD");
        tokio::task::spawn_blocking(move || exchange(&socket, &request, head_only)).await.unwrap()
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "").await
    }
}

fn exchange(socket: &std::path::Path, request: &str, head_only: bool) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let headers = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &all[end + 4..];
    let body = match headers.contains("transfer-encoding: chunked") && !head_only {
        true => dechunk(body),
        false => body.to_vec(),
    };
    Answer { status, headers, body }
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 4 + length..];
    }
}

/// Whether there is a docker CLI on this machine.
pub(crate) fn has_docker() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("docker").is_file())
}
