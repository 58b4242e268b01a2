//! `mesh flows`

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{PortName, ask, task_name};
use crate::output::{Listing, Row};
use crate::session::Session;
use crate::view::View as _;

/// Flags of `mesh flows`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Only flows to this published port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: Option<PortName>,
    /// Only flows of this client: an address, a network, or an address with a port
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Only flows of the task whose identifier begins so
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Only flows of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows that have come so far
    #[arg(long, value_parser = ["opening", "open", "closing", "closed"])]
    state: Option<String>,
    /// No more than so many, those that had a packet last
    #[arg(short = 'n', long, default_value_t = 100, value_name = "COUNT")]
    limit: u32,
    /// A Go template, "table TEMPLATE", or "json"
    #[arg(long)]
    format: Option<String>,
    /// Show whole task identifiers
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(session: &mut Session, flags: &Flags) -> anyhow::Result<()> {
    let mut query = flags.port.as_ref().map(PortName::query).unwrap_or_default();
    let texts =
        [("client", &flags.client), ("task", &flags.task), ("service", &flags.service), ("state", &flags.state)];
    query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    query.push(("limit", flags.limit.to_string()));
    let list = ask(session, "/flows", &query).await?;
    let flows = list.list("/Flows");
    let listing = Listing {
        columns: &[
            ("Protocol", "PROTOCOL"),
            ("Client", "CLIENT"),
            ("Asked", "ASKED"),
            ("Service", "SERVICE"),
            ("Task", "TASK"),
            ("Node", "NODE"),
            ("Role", "ROLE"),
            ("State", "STATE"),
            ("Idle", "IDLE"),
        ],
        further: &[("ServiceID", "SERVICE ID")],
        rows: flows.iter().map(|flow| row(flow, flags.no_trunc)).collect(),
    };
    session.out.write_all(listing.render(flags.format.as_deref())?.as_bytes())?;
    let (matched, known) = (list.int("/Matched"), list.int("/Known"));
    if i64::try_from(flows.len()).is_ok_and(|shown| shown < matched) {
        eprintln!("{} of {matched} flows ({known} are known): show more with --limit", flows.len());
    }
    Ok(())
}

fn row(flow: &Value, whole: bool) -> Row {
    vec![
        ("Protocol", flow.text("/Protocol").to_owned()),
        ("Client", flow.text("/Client").to_owned()),
        ("Asked", flow.text("/Asked").to_owned()),
        ("Service", flow.text("/Service/Name").to_owned()),
        ("Task", task_name(flow.text("/Task"), whole)),
        ("Node", flow.text("/Node/Hostname").to_owned()),
        ("Role", flow.text("/Role").to_owned()),
        ("State", flow.text("/State").to_owned()),
        ("Idle", idle(Duration::from_nanos(flow.int("/Idle").unsigned_abs()))),
        ("ServiceID", flow.text("/Service/ID").to_owned()),
    ]
}

/// `0s`, `59s`, `3m20s`, `2h5m`
fn idle(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, want) in [(0, "0s"), (59, "59s"), (200, "3m20s"), (7500, "2h5m")] {
            assert_eq!(idle(Duration::from_secs(seconds)), want);
        }
    }
}
