//! `version`, `info`, `events`.

use bytes::BytesMut;
use clap::Args;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::output::{Template, memory};
use crate::session::Session;
use crate::values::{filters, parse_time};
use crate::view::View as _;

/// Flags of `version`.
#[derive(Debug, Args)]
pub struct VersionFlags {
    /// A Go template, or "json"
    #[arg(short, long)]
    format: Option<String>,
}

/// Flags of `info`.
#[derive(Debug, Args)]
pub struct InfoFlags {
    /// A Go template, or "json"
    #[arg(short, long)]
    format: Option<String>,
}

/// Flags of `events`.
#[derive(Debug, Args)]
pub struct EventsFlags {
    /// Show only what has this: key=value
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, or "json"
    #[arg(long)]
    format: Option<String>,
    /// Begin with events since this time
    #[arg(long)]
    since: Option<String>,
    /// End with events at this time
    #[arg(long)]
    until: Option<String>,
}

/// JSON values that arrive one per line, in pieces.
#[derive(Default)]
pub(super) struct Lines(BytesMut);

impl Lines {
    /// The values that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
        self.0.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut values = serde_json::Deserializer::from_slice(&self.0).into_iter::<Value>();
        let mut done = 0;
        for value in values.by_ref() {
            match value {
                Ok(value) => out.push(value),
                Err(e) if e.is_eof() => break,
                Err(e) => return Err(e.into()),
            }
        }
        done += values.byte_offset();
        let _ = self.0.split_to(done);
        Ok(out)
    }
}

fn shown(session: &mut Session, format: &str, value: &Value) -> anyhow::Result<()> {
    match format {
        "json" => Ok(session.line(value.to_string())?),
        text => Ok(session.line(Template::parse(text)?.render(value)?)?),
    }
}

/// `version`.
pub(super) async fn version(session: &mut Session, flags: VersionFlags) -> anyhow::Result<()> {
    let ours =
        json!({ "Version": env!("CARGO_PKG_VERSION"), "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH });
    let server = session.client.get("/version", &[]).await;
    if let Some(format) = &flags.format {
        return shown(session, format, &json!({ "Client": ours, "Server": server? }));
    }
    session.line(format!(
        "Client: skep\n Version:           {}\n OS/Arch:           {}/{}",
        ours.text("/Version"),
        ours.text("/Os"),
        ours.text("/Arch")
    ))?;
    let server = server?;
    let name = server.pointer("/Platform/Name").and_then(Value::as_str).unwrap_or("skep");
    session.line(format!(
        "\nServer: {name}\n Version:           {}\n API version:       {} (minimum version {})\n OS/Arch:           {}/{}\n Kernel:            {}",
        server.text("/Version"), server.text("/ApiVersion"), server.text("/MinAPIVersion"), server.text("/Os"), server.text("/Arch"), server.text("/KernelVersion"),
    ))?;
    Ok(())
}

/// `info`.
pub(super) async fn info(session: &mut Session, flags: InfoFlags) -> anyhow::Result<()> {
    let info = session.client.get("/info", &[]).await?;
    if let Some(format) = &flags.format {
        return shown(session, format, &info);
    }
    let mut out = format!(
        "Server Version: {}\nName: {}\nContainers: {}\n Running: {}\nImages: {}\nSwarm: {}\n",
        info.text("/ServerVersion"),
        info.text("/Name"),
        info.int("/Containers"),
        info.int("/ContainersRunning"),
        info.int("/Images"),
        info.text("/Swarm/LocalNodeState"),
    );
    let swarm = &info["Swarm"];
    if !swarm.text("/NodeID").is_empty() {
        out += &format!(" NodeID: {}\n Is Manager: {}\n", swarm.text("/NodeID"), swarm.yes("/ControlAvailable"));
        if swarm.yes("/ControlAvailable") {
            out += &format!(
                " ClusterID: {}\n Managers: {}\n Nodes: {}\n",
                swarm.text("/Cluster/ID"),
                swarm.int("/Managers"),
                swarm.int("/Nodes")
            );
        }
        out += &format!(" Node Address: {}\n Manager Addresses:\n", swarm.text("/NodeAddr"));
        let mut managers: Vec<&str> = swarm.list("/RemoteManagers").iter().map(|m| m.text("/Addr")).collect();
        managers.sort_unstable();
        out.extend(managers.iter().map(|m| format!("  {m}\n")));
    }
    if !swarm.text("/Error").is_empty() {
        out += &format!(" Error: {}\n", swarm.text("/Error"));
    }
    out += &format!(
        "Kernel Version: {}\nOperating System: {}\nArchitecture: {}\nCPUs: {}\nTotal Memory: {}\nData Root: {}",
        info.text("/KernelVersion"),
        info.text("/OperatingSystem"),
        info.text("/Architecture"),
        info.int("/NCPU"),
        memory(info.int("/MemTotal")),
        info.text("/DockerRootDir"),
    );
    session.line(out)?;
    for warning in info.texts("/Warnings") {
        eprintln!("{warning}");
    }
    Ok(())
}

/// `events`.
pub(super) async fn events(session: &mut Session, flags: EventsFlags) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let mut query: Vec<(&str, String)> = filters(&flags.filter)?.map(|f| ("filters", f)).into_iter().collect();
    for (name, text) in [("since", &flags.since), ("until", &flags.until)] {
        if let Some(text) = text {
            query.push((name, parse_time(text, now).map_err(anyhow::Error::msg)?));
        }
    }
    let mut answer = session.client.stream("/events", &query).await?;
    let mut lines = Lines::default();
    while let Some(frame) = answer.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        for event in lines.push(&bytes)? {
            match &flags.format {
                Some(format) => shown(session, format, &event)?,
                None => session.line(event_line(&event))?,
            }
        }
        session.out.flush()?;
    }
    Ok(())
}

fn event_line(event: &Value) -> String {
    let time =
        Timestamp::from_nanosecond(i128::from(event.int("/timeNano"))).map(|t| t.to_string()).unwrap_or_default();
    let mut out = format!("{time} {} {} {}", event.text("/Type"), event.text("/Action"), event.text("/Actor/ID"));
    if let Some(attributes) = event.map("/Actor/Attributes").filter(|a| !a.is_empty()) {
        let pairs: Vec<String> =
            attributes.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        out += &format!(" ({})", pairs.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_arrive_in_any_pieces() {
        let wire = b"{\"a\":1}\n{\"b\":[2,3]}\r\n{\"c\":\"x\"}\n";
        for cut in 1..wire.len() {
            let mut lines = Lines::default();
            let got: Vec<Value> = wire.chunks(cut).flat_map(|piece| lines.push(piece).unwrap()).collect();
            assert_eq!(got, [json!({"a":1}), json!({"b":[2,3]}), json!({"c":"x"})], "{cut}");
        }
    }
}
