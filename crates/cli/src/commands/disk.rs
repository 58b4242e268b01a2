//! `system df`.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::output::{Listing, Row, decimal_size};
use crate::session::Session;
use crate::view::View as _;

/// The verbs of the daemon's disk.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what images, containers and volumes take on this node's disk
    Df(DfFlags),
}

/// Flags of `system df`.
#[derive(Debug, Args)]
pub struct DfFlags {
    /// A Go template, "table TEMPLATE", or "json"
    #[arg(long)]
    format: Option<String>,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    let Command::Df(flags) = command;
    let usage = session.client.get("/system/df", &[]).await?;
    let columns = &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ];
    let listing = Listing { columns, further: &[], rows: rows(&usage) };
    Ok(session.out.write_all(listing.render(flags.format.as_deref())?.as_bytes())?)
}

/// A line for each kind of thing: its name, its list, bytes of one, whether one is in use.
fn rows(usage: &Value) -> Vec<Row> {
    let images = |image: &Value| (image.int("/Size"), image.int("/Containers") > 0);
    let containers = |container: &Value| (container.int("/SizeRw"), container.text("/State") == "running");
    let volumes = |volume: &Value| (volume.int("/UsageData/Size"), volume.int("/UsageData/RefCount") > 0);
    vec![
        row("Images", usage.list("/Images"), images),
        row("Containers", usage.list("/Containers"), containers),
        row("Local Volumes", usage.list("/Volumes"), volumes),
    ]
}

fn row(kind: &str, things: &[Value], look: impl Fn(&Value) -> (i64, bool)) -> Row {
    // What cannot be measured is less than nothing.
    let looked: Vec<_> = things.iter().map(look).map(|(bytes, active)| (bytes.max(0), active)).collect();
    let total: i64 = looked.iter().map(|(bytes, _)| bytes).sum();
    let free: i64 = looked.iter().filter(|(_, active)| !active).map(|(bytes, _)| bytes).sum();
    let share = if total > 0 { format!(" ({}%)", free * 100 / total) } else { String::new() };
    vec![
        ("Type", kind.to_owned()),
        ("TotalCount", looked.len().to_string()),
        ("Active", looked.iter().filter(|(_, active)| *active).count().to_string()),
        ("Size", decimal_size(total)),
        ("Reclaimable", format!("{}{share}", decimal_size(free))),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_free_and_what_is_not() {
        let volume = |size: i64, users: i64| json!({ "UsageData": { "Size": size, "RefCount": users } });
        let usage = json!({ "Volumes": [volume(3000, 1), volume(1000, 0), volume(-1, 0)] });
        let of_volumes: Vec<_> = rows(&usage).remove(2).into_iter().map(|(_, text)| text).collect();
        assert_eq!(of_volumes, ["Local Volumes", "3", "1", "4kB", "1kB (25%)"]);
    }
}
