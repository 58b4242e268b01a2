//! `network`.

use clap::Subcommand;

use super::shared::{self, InspectFlags, ListFlags, segment};
use crate::output::{Listing, short_id};
use crate::session::Session;
use crate::view::View as _;

/// The verbs of networks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List networks
    Ls {
        #[command(flatten)]
        list: ListFlags,
        /// Show whole identifiers
        #[arg(long)]
        no_trunc: bool,
    },
    /// Show networks as JSON
    Inspect(InspectFlags),
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls { list, no_trunc } => {
            let mut networks = session.client.get("/networks", &list.query()?).await?;
            let networks = networks.as_array_mut().map(std::mem::take).unwrap_or_default();
            let mut rows: Vec<_> = networks
                .iter()
                .map(|n| {
                    let id = n.text("/Id");
                    let id = if no_trunc { id } else { short_id(id) };
                    vec![
                        ("ID", id.to_owned()),
                        ("Name", n.text("/Name").to_owned()),
                        ("Driver", n.text("/Driver").to_owned()),
                        ("Scope", n.text("/Scope").to_owned()),
                    ]
                })
                .collect();
            rows.sort_by(|a, b| a[1].1.cmp(&b[1].1));
            let columns = &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];
            list.show(session, &Listing { columns, further: &[], rows })
        }
        Command::Inspect(flags) => {
            let path = |name: &str| format!("/networks/{}", segment(name));
            shared::inspect(session, &flags, path, &[], |v| crate::output::indent(&v.to_string())).await
        }
    }
}
