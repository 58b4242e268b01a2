//! `stats` and `top`: what containers of this node use.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use serde_json::Value;

use super::shared::segment;
use crate::output::{Listing, Row, align, decimal_size, memory, short_id};
use crate::session::Session;
use crate::view::View as _;

/// How often the table is shown anew.
const PERIOD: Duration = Duration::from_secs(1);

/// Flags of `stats`.
#[derive(Debug, Args)]
pub struct StatsFlags {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Once, and not again and again
    #[arg(long)]
    no_stream: bool,
    /// Show whole identifiers
    #[arg(long)]
    no_trunc: bool,
    /// A Go template, "table TEMPLATE", or "json"
    #[arg(long)]
    format: Option<String>,
    /// Names or identifiers; all that run when there are none
    names: Vec<String>,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub struct TopFlags {
    /// Name or identifier
    name: String,
    /// What `ps` would be told: -ef, aux, or -o with columns
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// `top`.
pub(super) async fn top(session: &mut Session, flags: TopFlags) -> anyhow::Result<()> {
    let query = [("ps_args", flags.options.join(" "))];
    let shown = session.client.get(&format!("/containers/{}/top", segment(&flags.name)), &query).await?;
    let rows = std::iter::once(&shown["Titles"]).chain(shown.list("/Processes"));
    let rows: Vec<Vec<String>> = rows.map(|row| row.texts("").into_iter().map(str::to_owned).collect()).collect();
    Ok(session.out.write_all(align(&rows).as_bytes())?)
}

/// `stats`.
pub(super) async fn stats(session: &mut Session, flags: StatsFlags) -> anyhow::Result<()> {
    let mut before = BTreeMap::new();
    loop {
        let names = names(session, &flags).await?;
        let samples = samples(session, &names, !flags.no_stream).await?;
        let rows =
            samples.iter().map(|s| row(s, before.get(s.text("/id")).unwrap_or(&s["precpu_stats"]), flags.no_trunc));
        let table = listing(rows.collect()).render(flags.format.as_deref())?;
        if session.tty && !flags.no_stream {
            session.out.write_all(b"\x1b[H\x1b[J")?;
        }
        session.out.write_all(table.as_bytes())?;
        session.out.flush()?;
        if flags.no_stream {
            return Ok(());
        }
        before = samples.into_iter().map(|s| (s.text("/id").to_owned(), s["cpu_stats"].clone())).collect();
        tokio::time::sleep(PERIOD).await;
    }
}

async fn names(session: &Session, flags: &StatsFlags) -> anyhow::Result<Vec<String>> {
    if !flags.names.is_empty() {
        return Ok(flags.names.clone());
    }
    let all = if flags.all { "1" } else { "0" };
    let containers = session.client.get("/containers/json", &[("all", all.to_owned())]).await?;
    Ok(containers.list("").iter().map(|c| c.text("/Id").to_owned()).collect())
}

/// One look at each. Where it is the only one, the daemon looks twice, so that it shows what the processors do.
async fn samples(session: &Session, names: &[String], quick: bool) -> anyhow::Result<Vec<Value>> {
    let query = [("stream", "0".to_owned()), ("one-shot", if quick { "1" } else { "0" }.to_owned())];
    let one = async |name: &String| session.client.get(&format!("/containers/{}/stats", segment(name)), &query).await;
    join_all(names.iter().map(one)).await.into_iter().collect()
}

fn listing(rows: Vec<Row>) -> Listing {
    let columns = &[
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ];
    Listing { columns, further: &[("Container", "CONTAINER")], rows }
}

/// A line of the table; `before` is what the processors had done at the look before.
fn row(sample: &Value, before: &Value, whole: bool) -> Row {
    let id = sample.text("/id");
    let id = if whole { id } else { short_id(id) };
    let (used, limit) = (memory_used(sample), sample.int("/memory_stats/limit"));
    let networks = sample["networks"].as_object();
    let net = |field: &str| networks.into_iter().flatten().map(|(_, n)| n.int(field)).sum();
    let block = |op: &str| {
        let entries = sample.list("/blkio_stats/io_service_bytes_recursive").iter();
        entries.filter(|entry| entry.text("/op") == op).map(|entry| entry.int("/value")).sum()
    };
    vec![
        ("ID", id.to_owned()),
        ("Container", id.to_owned()),
        ("Name", sample.text("/name").trim_start_matches('/').to_owned()),
        ("CPUPerc", format!("{:.2}%", cpu_share(&sample["cpu_stats"], before))),
        ("MemUsage", format!("{} / {}", memory(used), memory(limit))),
        ("MemPerc", format!("{:.2}%", percent(used, limit))),
        ("NetIO", format!("{} / {}", decimal_size(net("/rx_bytes")), decimal_size(net("/tx_bytes")))),
        ("BlockIO", format!("{} / {}", decimal_size(block("read")), decimal_size(block("write")))),
        ("PIDs", sample.int("/pids_stats/current").to_string()),
    ]
}

/// Without the file cache that could go at once, as docker counts: its name differs between cgroup v1 and v2.
fn memory_used(sample: &Value) -> i64 {
    let usage = sample.int("/memory_stats/usage");
    let cache = ["/memory_stats/stats/total_inactive_file", "/memory_stats/stats/inactive_file"];
    let cache = cache.iter().find_map(|name| sample.pointer(name)?.as_i64()).unwrap_or(0);
    if cache < usage { usage - cache } else { usage }
}

#[expect(clippy::cast_precision_loss, reason = "two digits behind the point are shown")]
fn percent(part: i64, whole: i64) -> f64 {
    if whole > 0 { part as f64 * 100.0 / whole as f64 } else { 0.0 }
}

/// Of one processor: what the container has done since, to what all of them together have.
fn cpu_share(now: &Value, before: &Value) -> f64 {
    let since = |field: &str| now.int(field) - before.int(field);
    let (own, system) = (since("/cpu_usage/total_usage"), since("/system_cpu_usage"));
    percent(own.max(0).saturating_mul(now.int("/online_cpus")), system)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_dockers_says() {
        let sample = json!({
            "id": "0123456789abcdef", "name": "/web.1.x", "pids_stats": { "current": 3 },
            "cpu_stats": { "cpu_usage": { "total_usage": 1500 }, "system_cpu_usage": 20_000, "online_cpus": 2 },
            "memory_stats": { "usage": 3 << 20, "limit": 4 << 20, "stats": { "inactive_file": 1 << 20 } },
            "networks": { "eth0": { "rx_bytes": 1500, "tx_bytes": 2 }, "eth1": { "rx_bytes": 500, "tx_bytes": 1 } },
            "blkio_stats": { "io_service_bytes_recursive": [{ "op": "read", "value": 4000 }, { "op": "write", "value": 1 }] },
        });
        let before = json!({ "cpu_usage": { "total_usage": 500 }, "system_cpu_usage": 10_000 });
        let shown: Vec<String> = row(&sample, &before, false).into_iter().map(|(_, text)| text).collect();
        let id = "0123456789ab";
        let expected = [id, id, "web.1.x", "20.00%", "2MiB / 4MiB", "50.00%", "2kB / 3B", "4kB / 1B", "3"];
        assert_eq!(shown, expected);
        let nothing = row(&json!({}), &Value::Null, false);
        assert_eq!((nothing[3].1.as_str(), nothing[4].1.as_str()), ("0.00%", "0B / 0B"));
    }
}
