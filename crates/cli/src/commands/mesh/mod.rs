//! `mesh`: the routing mesh of the node that we talk to.

mod flows;
mod ls;
mod top;
mod trace;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use crate::client::is_not_found;
use crate::output::{Template, indent};
use crate::session::Session;
use crate::view::View as _;

/// The verbs of the mesh.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the published ports of this node
    Ls(ls::Flags),
    /// Watch ports, services and backends: flows, packets, bytes, drops
    Top(top::Flags),
    /// Say which task a connection would get on this node, and why
    Trace(trace::Flags),
    /// List the flows that this node knows
    Flows(flows::Flags),
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(flags) => ls::run(session, &flags).await,
        Command::Top(flags) => top::run(session, &flags).await,
        Command::Trace(flags) => trace::run(session, &flags).await,
        Command::Flows(flags) => flows::run(session, &flags).await,
    }
}

/// Asks skep's own API.
async fn ask(session: &Session, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
    match session.client.get(&format!("/skep/v1/mesh{path}"), query).await {
        // A node's refusal is a sentence; only a daemon without this API has no such page.
        Err(e) if is_not_found(&e) => Err(e).context(
            "this daemon has no routing mesh to look at: it is no skep daemon, or an older one; name a skep daemon with -H or $SKEP_HOST",
        ),
        answer => answer,
    }
}

/// Writes an object as JSON or through a template.
fn shown(session: &mut Session, format: &str, value: &Value) -> anyhow::Result<()> {
    match format {
        "json" => Ok(session.line(value.to_string())?),
        "pretty" => Ok(session.line(indent(&value.to_string()))?),
        text => Ok(session.line(Template::parse(text)?.render(value)?)?),
    }
}

/// A port as people write it: `8080` or `53/udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortName {
    number: u16,
    protocol: Option<String>,
}

impl std::str::FromStr for PortName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (number, Some(protocol.to_ascii_lowercase())),
            None => (text, None),
        };
        let number = number.parse().ok().filter(|n| *n > 0);
        let known = protocol.as_deref().is_none_or(|p| matches!(p, "tcp" | "udp" | "sctp"));
        match (number, known) {
            (Some(number), true) => Ok(Self { number, protocol }),
            (None, _) => Err("a port is a number from 1 to 65535, as in 8080 or 53/udp".to_owned()),
            (_, false) => Err("a protocol is tcp, udp or sctp, as in 53/udp".to_owned()),
        }
    }
}

impl PortName {
    /// As the API takes it.
    fn query(&self) -> Vec<(&'static str, String)> {
        let protocol = self.protocol.iter().map(|p| ("protocol", p.clone()));
        std::iter::once(("port", self.number.to_string())).chain(protocol).collect()
    }
}

/// `8080/tcp`
fn port_name(port: &Value) -> String {
    format!("{}/{}", port.int("/Published"), port.text("/Protocol"))
}

/// The first twelve characters of a task's identifier, unless all are wanted.
fn task_name(task: &str, whole: bool) -> String {
    task.get(..12).filter(|_| !whole).unwrap_or(task).to_owned()
}

/// What a port does on this node, in words.
fn port_state(port: &Value) -> &str {
    match port.text("/State") {
        "nobody-ready" => "nobody ready",
        "held" => "held by another process",
        "elsewhere" => "other nodes answer",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use serde_json::json;
    use skep_engine::fake::FakeBackend;
    use skep_engine::{Listeners, Server};

    use super::*;
    use crate::client::Client;
    use crate::replay::Buffer;

    #[test]
    fn ports_are_read_as_people_write_them() {
        let name = |text: &str| text.parse::<PortName>();
        assert_eq!(name("53/UDP").unwrap().query(), [("port", "53".to_owned()), ("protocol", "udp".to_owned())]);
        assert_eq!(name("8080").unwrap().query(), [("port", "8080".to_owned())]);
        for (bad, word) in
            [("0", "1 to 65535"), ("x/tcp", "1 to 65535"), ("80/icmp", "tcp, udp or sctp"), ("", "number")]
        {
            assert!(name(bad).unwrap_err().contains(word), "{bad}");
        }
    }

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    /// Runs `mesh WORDS` against the API, and returns what it wrote or the error.
    async fn mesh(backend: Arc<FakeBackend>, words: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let server = Server::bind(&Listeners { unix: vec![socket.clone()], ..Listeners::default() }).await.unwrap();
        let serving = tokio::spawn(server.serve(backend, std::future::pending()));
        let out = Buffer::default();
        let client = Client::new(&format!("unix://{}", socket.display())).unwrap();
        let mut session = Session::to_writer(client, Box::new(out.clone()));
        let line = Line::try_parse_from(std::iter::once("mesh").chain(words.split(' '))).map_err(|e| e.to_string())?;
        let outcome = run(&mut session, line.command).await;
        serving.abort();
        outcome.map(|()| out.text()).map_err(|e| format!("{e:#}"))
    }

    fn member() -> Arc<FakeBackend> {
        let backend = FakeBackend::new();
        backend.make_worker();
        backend
    }

    #[tokio::test]
    async fn ls_lists_ports() {
        insta::assert_snapshot!(mesh(member(), "ls").await.unwrap(), @"
        PORT       SERVICE   MODE      BALANCE   READY     DRAINING   ALL       FLOWS     STATE
        8080/tcp   web       ingress   maglev    2         1          3         6         serving
        8081/tcp   web       ingress   maglev    2         1          3         6         held by another process
        ");
        assert_eq!(mesh(member(), "ls -q").await.unwrap(), "8080/tcp\n8081/tcp\n");
        assert_eq!(mesh(member(), "ls --port 8081 --format {{.State}}").await.unwrap(), "held by another process\n");
        assert_eq!(mesh(member(), "ls --port 8081/udp -q").await.unwrap(), "");
        assert_eq!(mesh(member(), "ls --service nosuch -q").await.unwrap(), "");
    }

    #[tokio::test]
    async fn flows_are_listed_and_cut_off() {
        insta::assert_snapshot!(mesh(member(), "flows -n 2").await.unwrap(), @"
        PROTOCOL   CLIENT            ASKED            SERVICE   TASK           NODE      ROLE      STATE     IDLE
        tcp        192.0.2.9:40000   10.77.0.1:8080   web       bbb000000000   node2     asked     open      1s
        tcp        192.0.2.9:40001   10.77.0.1:8080   web       bbb000000000   node2     asked     open      1s
        ");
        assert_eq!(
            mesh(member(), "flows --client 192.0.2.9:40001 --format {{.Client}}").await.unwrap(),
            "192.0.2.9:40001\n"
        );
        let bad = mesh(member(), "flows --client nobody").await.unwrap_err();
        assert!(bad.contains("invalid client \"nobody\": expected an address"), "{bad}");
        let bad = mesh(member(), "flows --limit 1000000").await.unwrap_err();
        assert!(bad.contains("expected a number up to 100000"), "{bad}");
    }

    #[tokio::test]
    async fn a_trace_is_a_line_per_table_and_the_outcome() {
        insta::assert_snapshot!(mesh(member(), "trace 8080 --from 192.0.2.9:40000 --to 10.77.0.1").await.unwrap(), @"
        8080/tcp of 10.77.0.1 (node1), asked by 192.0.2.9:40000
          ports   published by service web
          path    through the overlay
        -> a new flow: task bbb
        ");
        insta::assert_snapshot!(mesh(member(), "trace 9999/udp").await.unwrap(), @"
        9999/udp of this node (node1), asked by any client
        ! ports   not published here
        -> nothing of the mesh
        ");
        assert_eq!(mesh(member(), "trace 8080 --format {{.Backend.Node.Hostname}}").await.unwrap(), "node2\n");
        let bad = mesh(member(), "trace 8080 --from 192.0.2.9:1 --to ::1").await.unwrap_err();
        assert!(bad.contains("one is IPv4 and the other IPv6"), "{bad}");
        assert!(mesh(member(), "trace 8080 --from 192.0.2.9").await.unwrap_err().contains("--from <IP:PORT>"));
    }

    #[tokio::test]
    async fn top_shows_what_happened_between_two_looks() {
        let text = mesh(member(), "top --no-stream --interval 100ms").await.unwrap();
        assert!(text.contains("drops: no_backend 4 (0/s)"), "{text}");
        assert!(text.contains("maps: flows 250000 (25 %)"), "{text}");
        let look = mesh(member(), "top --once -i 100ms --format json").await.unwrap();
        let look: Value = serde_json::from_str(&look).unwrap();
        assert_eq!(look["Ports"][0]["Backends"][0]["PerSecond"]["Flows"], json!(0.0));
        let bad = mesh(member(), "top -i 1ms").await.unwrap_err();
        assert!(bad.contains("100ms or longer"), "{bad}");
    }

    #[tokio::test]
    async fn who_has_no_mesh_is_told_what_to_do() {
        for words in ["ls", "flows", "trace 8080", "top --once -i 100ms"] {
            let refused = mesh(FakeBackend::new(), words).await.unwrap_err();
            assert!(refused.contains("Use \"skep swarm init\" or \"skep swarm join\""), "{words}: {refused}");
        }
    }
}
