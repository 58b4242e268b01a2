//! `mesh trace`

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::Value;

use super::{PortName, ask, shown};
use crate::session::Session;
use crate::view::View as _;

/// Flags of `mesh trace`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The published port
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: PortName,
    /// The client: without it, it can only be said which tasks are in question
    #[arg(long, value_name = "IP:PORT")]
    from: Option<SocketAddr>,
    /// The address of this node that the client asks; any, when left out
    #[arg(long, value_name = "IP")]
    to: Option<IpAddr>,
    /// A Go template, "json", or "pretty"
    #[arg(short, long)]
    format: Option<String>,
}

pub(super) async fn run(session: &mut Session, flags: &Flags) -> anyhow::Result<()> {
    let mut query = flags.port.query();
    query.extend(flags.from.map(|from| ("from", from.to_string())));
    query.extend(flags.to.map(|to| ("to", to.to_string())));
    let trace = ask(session, "/trace", &query).await?;
    match &flags.format {
        Some(format) => shown(session, format, &trace),
        None => Ok(session.out.write_all(text(&trace).as_bytes())?),
    }
}

/// One line per table, and the outcome under a line of its own.
fn text(trace: &Value) -> String {
    let asked = match trace.text("/To") {
        "" => "this node".to_owned(),
        to => to.to_owned(),
    };
    let from = match trace.text("/From") {
        "" => "any client".to_owned(),
        from => from.to_owned(),
    };
    let (port, protocol, node) = (trace.int("/Port"), trace.text("/Protocol"), trace.text("/Node/Hostname"));
    let mut out = format!("{port}/{protocol} of {asked} ({node}), asked by {from}\n");
    let width = trace.list("/Steps").iter().map(|s| s.text("/Table").len()).max().unwrap_or(0);
    for step in trace.list("/Steps") {
        let mark = if step.yes("/Passes") { ' ' } else { '!' };
        // Writing to a String does not fail.
        let _ = writeln!(out, "{mark} {:<width$}   {}", step.text("/Table"), step.text("/Says"));
    }
    let _ = writeln!(out, "-> {}", trace.text("/Verdict"));
    out
}
