//! `ps`, `logs`, `inspect`: a look into the containers that this node holds, and at anything by its name.

use clap::Args;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;

use super::shared::{self, segment};
use crate::client::is_not_found;
use crate::client::stdcopy::{Demux, Stream};
use crate::output::{Listing, Row, ago, short_id};
use crate::session::Session;
use crate::values::parse_time;
use crate::view::View as _;

/// Flags of `ps`.
#[derive(Debug, Args)]
pub struct PsFlags {
    #[command(flatten)]
    list: shared::ListFlags,
    /// Show also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Show whole identifiers and commands
    #[arg(long)]
    no_trunc: bool,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct LogsFlags {
    /// Go on with what comes
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Since this time, or so long ago (42m)
    #[arg(long)]
    pub(super) since: Option<String>,
    /// How many lines from the end
    #[arg(short = 'n', long, default_value = "all")]
    pub(super) tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    pub(super) timestamps: bool,
    /// The container, service or task
    pub(super) name: String,
}

/// Flags of `rm`.
#[derive(Debug, Args)]
pub struct RmFlags {
    /// Also containers that run: they are killed, and their tasks replaced
    #[arg(short, long)]
    force: bool,
    /// Names or identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectFlags {
    /// A Go template over the object, or "json"
    #[arg(short, long)]
    format: Option<String>,
    /// The kind of object: container, image, network, service, task or node
    #[arg(long = "type")]
    kind: Option<String>,
    /// Names or identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

impl LogsFlags {
    /// The parameters of a request for logs.
    pub(super) fn query(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut query = vec![("stdout", "1".to_owned()), ("stderr", "1".to_owned()), ("tail", self.tail.clone())];
        if self.follow {
            query.push(("follow", "1".to_owned()));
        }
        if self.timestamps {
            query.push(("timestamps", "1".to_owned()));
        }
        if let Some(since) = &self.since {
            query.push(("since", parse_time(since, Timestamp::now()).map_err(anyhow::Error::msg)?));
        }
        Ok(query)
    }
}

/// `ps`.
pub(super) async fn list(session: &mut Session, flags: PsFlags) -> anyhow::Result<()> {
    let mut query = flags.list.query()?;
    if flags.all {
        query.push(("all", "1".to_owned()));
    }
    let containers = session.client.get("/containers/json", &query).await?;
    let now = Timestamp::now();
    let rows = containers.list("").iter().map(|c| row(c, flags.no_trunc, now)).collect();
    let columns = &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ];
    flags.list.show(session, &Listing { columns, further: &[("State", "STATE")], rows })
}

fn row(container: &Value, whole: bool, now: Timestamp) -> Row {
    let id = container.text("/Id");
    let command = container.text("/Command");
    let command = if whole || command.chars().count() <= 20 {
        command.to_owned()
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    let created = Timestamp::from_second(container.int("/Created")).map(|t| t.to_string()).unwrap_or_default();
    let port = |p: &Value| match p.int("/PublicPort") {
        0 => format!("{}/{}", p.int("/PrivatePort"), p.text("/Type")),
        public => format!("{}:{public}->{}/{}", p.text("/IP"), p.int("/PrivatePort"), p.text("/Type")),
    };
    let names: Vec<&str> = container.texts("/Names").into_iter().map(|n| n.trim_start_matches('/')).collect();
    vec![
        ("ID", if whole { id } else { short_id(id) }.to_owned()),
        ("Image", container.text("/Image").to_owned()),
        ("Command", format!("\"{command}\"")),
        ("RunningFor", ago(&created, now)),
        ("Status", container.text("/Status").to_owned()),
        ("State", container.text("/State").to_owned()),
        ("Ports", container.list("/Ports").iter().map(port).collect::<Vec<_>>().join(", ")),
        ("Names", names.join(",")),
    ]
}

/// `logs`.
pub(super) async fn logs(session: &mut Session, flags: LogsFlags) -> anyhow::Result<()> {
    let path = format!("/containers/{}", segment(&flags.name));
    let container = session.client.get(&format!("{path}/json"), &[]).await?;
    let tty = container.yes("/Config/Tty");
    let mut answer = session.client.stream(&format!("{path}/logs"), &flags.query()?).await?;
    let mut demux = Demux::default();
    while let Some(frame) = answer.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        if tty {
            session.out.write_all(&bytes)?;
        } else {
            demux.push(&bytes);
            while let Some((stream, payload)) = demux.next()? {
                write(session, stream, &payload)?;
            }
        }
        session.out.flush()?;
    }
    Ok(())
}

/// `rm`.
pub(super) async fn remove(session: &mut Session, flags: RmFlags) -> anyhow::Result<()> {
    let force = if flags.force { "1" } else { "0" };
    for name in &flags.names {
        match session.client.delete(&format!("/containers/{}", segment(name)), &[("force", force.to_owned())]).await {
            Ok(_) => session.line(name)?,
            Err(error) => session.report(&error),
        }
    }
    Ok(())
}

/// Writes a piece of a log to where it belongs.
pub(super) fn write(session: &mut Session, stream: Stream, payload: &[u8]) -> anyhow::Result<()> {
    match stream {
        Stream::Stdout => session.out.write_all(payload)?,
        Stream::Stderr => std::io::Write::write_all(&mut std::io::stderr(), payload)?,
        Stream::System => anyhow::bail!("Error from daemon in stream: {}", String::from_utf8_lossy(payload)),
    }
    Ok(())
}

/// Where an object of each kind is, in the order in which they are tried.
const KINDS: [(&str, &str, &str); 7] = [
    ("container", "/containers/", "/json"),
    ("image", "/images/", "/json"),
    ("network", "/networks/", ""),
    ("volume", "/volumes/", ""),
    ("service", "/services/", ""),
    ("task", "/tasks/", ""),
    ("node", "/nodes/", ""),
];

/// `inspect`.
pub(super) async fn inspect(session: &mut Session, flags: InspectFlags) -> anyhow::Result<()> {
    if let Some(kind) = flags.kind.as_deref().filter(|k| KINDS.iter().all(|(name, ..)| name != k)) {
        anyhow::bail!("{kind:?} is no valid value for --type");
    }
    let mut raw = Vec::new();
    for name in &flags.names {
        match find(session, flags.kind.as_deref(), name).await {
            Ok(text) => raw.push(text),
            Err(error) => session.report(&error),
        }
    }
    shared::show_objects(session, flags.format.as_deref(), &raw)
}

async fn find(session: &Session, kind: Option<&str>, name: &str) -> anyhow::Result<String> {
    for (_, before, after) in KINDS.iter().filter(|(of, ..)| kind.is_none_or(|k| k == *of)) {
        match session.client.get_raw(&format!("{before}{}{after}", segment(name)), &[]).await {
            Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            // Workers, and nodes outside of a swarm, do not know the swarm's objects.
            Err(e) if is_not_found(&e) || (kind.is_none() && crate::client::is_no_manager(&e)) => {}
            Err(e) => return Err(e),
        }
    }
    anyhow::bail!("Error: No such {}: {name}", kind.unwrap_or("object"))
}
