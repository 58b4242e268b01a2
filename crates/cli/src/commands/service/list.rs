//! `service ls`.

use serde_json::Value;

use super::super::shared::ListFlags;
use crate::output::{Listing, Row, short_id};
use crate::session::Session;
use crate::view::View as _;

/// `service ls`.
pub(super) async fn list(session: &mut Session, flags: &ListFlags) -> anyhow::Result<()> {
    let mut query = flags.query()?;
    query.push(("status", "true".to_owned()));
    let services = session.client.get("/services", &query).await?;
    flags.show(session, &table(services.list(""), flags.quiet))
}

/// The table of services, by name.
pub(super) fn table(services: &[Value], whole: bool) -> Listing {
    let mut rows: Vec<Row> = services.iter().map(|s| row(s, whole)).collect();
    rows.sort_by(|a, b| a[1].1.cmp(&b[1].1));
    let columns = &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ];
    Listing { columns, further: &[], rows }
}

fn row(service: &Value, whole: bool) -> Row {
    let id = service.text("/ID");
    let image = service.text("/Spec/TaskTemplate/ContainerSpec/Image");
    vec![
        ("ID", if whole { id } else { short_id(id) }.to_owned()),
        ("Name", service.text("/Spec/Name").to_owned()),
        ("Mode", mode(service).to_owned()),
        ("Replicas", replicas(service)),
        ("Image", image.split('@').next().unwrap_or(image).to_owned()),
        ("Ports", ports(service.list("/Endpoint/Ports"))),
    ]
}

fn mode(service: &Value) -> &'static str {
    let modes = [
        ("Replicated", "replicated"),
        ("Global", "global"),
        ("ReplicatedJob", "replicated job"),
        ("GlobalJob", "global job"),
    ];
    modes
        .iter()
        .find(|(key, _)| service.map("/Spec/Mode").is_some_and(|m| m.contains_key(*key)))
        .map_or("", |(_, name)| name)
}

fn replicas(service: &Value) -> String {
    let (running, desired, completed) = (
        service.int("/ServiceStatus/RunningTasks"),
        service.int("/ServiceStatus/DesiredTasks"),
        service.int("/ServiceStatus/CompletedTasks"),
    );
    match (mode(service), service.int("/Spec/TaskTemplate/Placement/MaxReplicas")) {
        ("replicated job", _) => format!(
            "{running}/{desired} ({completed}/{} completed)",
            service.int("/Spec/Mode/ReplicatedJob/TotalCompletions")
        ),
        ("global job", _) => format!("{running}/{desired} ({completed}/{} completed)", desired + completed),
        ("replicated", max) if max > 0 => format!("{running}/{desired} (max {max} per node)"),
        _ => format!("{running}/{desired}"),
    }
}

/// A run of ports whose published numbers follow each other, and whose targets do too or stay the same.
struct Run {
    published: (i64, i64),
    target: (i64, i64),
    protocol: String,
}

impl Run {
    fn takes(&self, published: i64, target: i64, protocol: &str) -> bool {
        let length = self.published.1 - self.published.0;
        let follows = target == self.target.1 + 1 && self.target.1 - self.target.0 == length;
        let stays = target == self.target.0 && self.target.0 == self.target.1;
        protocol == self.protocol && published == self.published.1 + 1 && (follows || stays)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = |(a, b): (i64, i64)| if a == b { a.to_string() } else { format!("{a}-{b}") };
        write!(f, "*:{}->{}/{}", range(self.published), range(self.target), self.protocol)
    }
}

/// The ports that every node opens; neighbours are drawn together.
pub(super) fn ports(ports: &[Value]) -> String {
    let mut open: Vec<(&str, i64, i64)> = ports
        .iter()
        .filter(|p| p.text("/PublishMode") == "ingress")
        .map(|p| (p.text("/Protocol"), p.int("/PublishedPort"), p.int("/TargetPort")))
        .collect();
    open.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (protocol, published, target) in open {
        match runs.last_mut() {
            Some(run) if run.takes(published, target, protocol) => {
                (run.published.1, run.target.1) = (published, target);
            }
            _ => runs.push(Run {
                published: (published, published),
                target: (target, target),
                protocol: protocol.to_owned(),
            }),
        }
    }
    runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
