//! `mesh ls`

use clap::Args;
use serde_json::Value;

use super::{PortName, ask, port_name, port_state};
use crate::output::{Listing, Row};
use crate::session::Session;
use crate::view::View as _;

/// Flags of `mesh ls`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Only ports of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only this port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: Option<PortName>,
    /// A Go template, "table TEMPLATE", or "json"
    #[arg(long)]
    format: Option<String>,
    /// Show only the ports
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(session: &mut Session, flags: &Flags) -> anyhow::Result<()> {
    let report = ask(session, "", &[]).await?;
    let wanted = |port: &&Value| {
        flags
            .service
            .as_ref()
            .is_none_or(|s| port.text("/Service/Name") == s || port.text("/Service/ID").starts_with(s))
            && flags.port.as_ref().is_none_or(|p| {
                port.int("/Published") == i64::from(p.number)
                    && p.protocol.as_ref().is_none_or(|protocol| port.text("/Protocol") == protocol)
            })
    };
    let listing = Listing {
        columns: &[
            ("Port", "PORT"),
            ("Service", "SERVICE"),
            ("Mode", "MODE"),
            ("Balance", "BALANCE"),
            ("Ready", "READY"),
            ("Draining", "DRAINING"),
            ("All", "ALL"),
            ("Flows", "FLOWS"),
            ("State", "STATE"),
        ],
        further: &[
            ("Target", "TARGET"),
            ("Protocol", "PROTOCOL"),
            ("Published", "PUBLISHED"),
            ("ServiceID", "SERVICE ID"),
            ("Listen", "LISTEN"),
            ("Sources", "SOURCES"),
            ("NewFlows", "NEW FLOWS"),
        ],
        rows: report.list("/Ports").iter().filter(wanted).map(row).collect(),
    };
    let format = if flags.quiet { Some("{{.Port}}") } else { flags.format.as_deref() };
    Ok(session.out.write_all(listing.render(format)?.as_bytes())?)
}

fn row(port: &Value) -> Row {
    let backends = port.list("/Backends");
    let count = |state: &str| backends.iter().filter(|b| b.text("/State") == state).count().to_string();
    vec![
        ("Port", port_name(port)),
        ("Service", port.text("/Service/Name").to_owned()),
        ("Mode", port.text("/Mode").to_owned()),
        ("Balance", balance(port)),
        ("Ready", count("ready")),
        ("Draining", count("draining")),
        ("All", backends.len().to_string()),
        ("Flows", port["OpenFlows"].as_u64().map_or_else(String::new, |n| n.to_string())),
        ("State", port_state(port).to_owned()),
        ("Target", port.int("/Target").to_string()),
        ("Protocol", port.text("/Protocol").to_owned()),
        ("Published", port.int("/Published").to_string()),
        ("ServiceID", port.text("/Service/ID").to_owned()),
        ("Listen", port.texts("/Listen").join(",")),
        ("Sources", port.texts("/Sources").join(",")),
        ("NewFlows", port.int("/Traffic/Flows").to_string()),
    ]
}

/// How flows are given to tasks, and what narrows who is served.
fn balance(port: &Value) -> String {
    let mut words = vec![port.text("/Balance").to_owned()];
    if port.yes("/ClientAffinity") {
        words.push("client-ip".to_owned());
    }
    for (what, pointer) in [("on", "/Listen"), ("from", "/Sources")] {
        let list = port.texts(pointer);
        if !list.is_empty() {
            words.push(format!("{what} {}", list.join(" ")));
        }
    }
    words.join(", ")
}
