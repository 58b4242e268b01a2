//! Lists of tasks: `service ps`, `node ps`.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::shared::{ListFlags, segment};
use crate::output::{Listing, Row, ago, short_id, title};
use crate::session::Session;
use crate::view::View as _;

/// The longest error shown in a table, in characters.
const ERROR_WIDTH: usize = 30;

/// Flags of every list of tasks.
#[derive(Debug, Args)]
pub struct TaskFlags {
    #[command(flatten)]
    pub(super) list: ListFlags,
    /// Show identifiers of services and nodes in place of their names
    #[arg(long)]
    pub(super) no_resolve: bool,
    /// Show whole identifiers, images and errors
    #[arg(long)]
    pub(super) no_trunc: bool,
}

/// The names of nodes and services, by identifier.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Asks the daemon; what it does not know any more keeps its identifier.
    pub(super) async fn of(session: &Session) -> anyhow::Result<Self> {
        let mut names = BTreeMap::new();
        for service in session.client.get("/services", &[]).await?.list("") {
            names.insert(service.text("/ID").to_owned(), service.text("/Spec/Name").to_owned());
        }
        for node in session.client.get("/nodes", &[]).await?.list("") {
            names.insert(node.text("/ID").to_owned(), node.text("/Description/Hostname").to_owned());
        }
        Ok(Self(names))
    }

    /// The name, or else the identifier.
    pub(super) fn get<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).filter(|n| !n.is_empty()).map_or(id, String::as_str)
    }

    /// `service.slot`, or `service.node` for tasks that have no slot.
    pub(super) fn task(&self, task: &Value) -> String {
        let service = self.get(task.text("/ServiceID"));
        match task.int("/Slot") {
            0 => format!("{service}.{}", task.text("/NodeID")),
            slot => format!("{service}.{slot}"),
        }
    }
}

/// Lists the tasks that the filters choose; `all` also those that are not meant to run.
pub(super) async fn list(session: &mut Session, flags: &TaskFlags, filter: Vec<String>) -> anyhow::Result<()> {
    let filter = filter.into_iter().chain(flags.list.filter.iter().cloned()).collect::<Vec<_>>();
    let query: Vec<_> = crate::values::filters(&filter)?.map(|f| ("filters", f)).into_iter().collect();
    let tasks = session.client.get("/tasks", &query).await?;
    let names = if flags.no_resolve { Names::default() } else { Names::of(session).await? };
    let listing = table(tasks.list(""), &names, flags.no_trunc || flags.list.quiet, Timestamp::now());
    flags.list.show(session, &listing)
}

/// The table: by name, the newest task of each name first, the older ones hung under it.
pub(super) fn table(tasks: &[Value], names: &Names, whole: bool, now: Timestamp) -> Listing {
    let mut tasks: Vec<&Value> = tasks.iter().collect();
    let key = |t: &Value| (names.get(t.text("/ServiceID")).to_owned(), t.int("/Slot"), t.text("/NodeID").to_owned());
    tasks.sort_by(|a, b| {
        let same =
            a.int("/Slot") != 0 && a.int("/Slot") == b.int("/Slot") && a.text("/ServiceID") == b.text("/ServiceID");
        let by_name = if same { std::cmp::Ordering::Equal } else { key(a).cmp(&key(b)) };
        by_name.then_with(|| b.text("/CreatedAt").cmp(a.text("/CreatedAt")))
    });
    let mut rows: Vec<Row> = Vec::new();
    let mut above = String::new();
    for task in tasks {
        let name = names.task(task);
        let shown = if name == above { format!(" \\_ {name}") } else { name.clone() };
        above = name;
        rows.push(row(task, shown, names, whole, now));
    }
    let columns = &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ];
    Listing { columns, further: &[], rows }
}

fn row(task: &Value, name: String, names: &Names, whole: bool, now: Timestamp) -> Row {
    let id = task.text("/ID");
    let image = task.text("/Spec/ContainerSpec/Image");
    let since = ago(task.text("/Status/Timestamp"), now);
    vec![
        ("ID", if whole { id } else { short_id(id) }.to_owned()),
        ("Name", name),
        ("Image", if whole { image } else { image.split('@').next().unwrap_or(image) }.to_owned()),
        ("Node", names.get(task.text("/NodeID")).to_owned()),
        ("DesiredState", title(task.text("/DesiredState"))),
        (
            "CurrentState",
            format!("{} {}", title(task.text("/Status/State")), since.to_lowercase()).trim_end().to_owned(),
        ),
        ("Error", error(task.text("/Status/Err"), whole)),
        ("Ports", ports(task)),
    ]
}

fn error(text: &str, whole: bool) -> String {
    if text.is_empty() {
        return String::new();
    }
    if whole || text.chars().count() <= ERROR_WIDTH {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(ERROR_WIDTH - 1).collect::<String>())
}

fn ports(task: &Value) -> String {
    let port = |p: &Value| format!("*:{}->{}/{}", p.int("/PublishedPort"), p.int("/TargetPort"), p.text("/Protocol"));
    task.list("/Status/PortStatus/Ports").iter().map(port).collect::<Vec<_>>().join(",")
}

/// The identifier behind `self`: the node we talk to.
pub(super) async fn node_id(session: &Session, name: &str) -> anyhow::Result<String> {
    if name == "self" {
        let info = session.client.get("/info", &[]).await?;
        return Ok(info.text("/Swarm/NodeID").to_owned());
    }
    let node = session.client.get(&format!("/nodes/{}", segment(name)), &[]).await?;
    Ok(node.text("/ID").to_owned())
}
