//! `volume`: those of the node that is asked.

use std::io::BufRead as _;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::shared::{self, InspectFlags, ListFlags, segment};
use crate::client::is_not_found;
use crate::output::{Listing, decimal_size};
use crate::session::Session;
use crate::values::{filters, key_value};
use crate::view::View as _;

/// The verbs of volumes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a volume
    Create(CreateFlags),
    /// List volumes
    #[command(alias = "list")]
    Ls(ListFlags),
    /// Show volumes as JSON
    Inspect(InspectFlags),
    /// Remove volumes that no container has
    #[command(alias = "remove")]
    Rm {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not mind those that are not there
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the volumes without a name of their own that no container has
    Prune(PruneFlags),
}

/// Flags of `volume create`.
#[derive(Debug, Default, Args)]
pub struct CreateFlags {
    /// What makes it; there is one
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// An option of the driver: type=nfs, device=:/export, o=addr=10.0.0.1
    #[arg(short, long)]
    opt: Vec<String>,
    /// Label it
    #[arg(long)]
    label: Vec<String>,
    /// Its name; made up when left out
    #[arg(default_value = "")]
    name: String,
}

/// Flags of `volume prune`.
#[derive(Debug, Args)]
pub struct PruneFlags {
    /// Those with names too
    #[arg(short, long)]
    all: bool,
    /// Remove only these: label=key
    #[arg(long)]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(flags) => {
            let made = session.client.post("/volumes/create", &[], &created(&flags)).await?;
            Ok(session.line(made.text("/Name"))?)
        }
        Command::Ls(list) => ls(session, &list).await,
        Command::Inspect(flags) => {
            let path = |name: &str| format!("/volumes/{}", segment(name));
            shared::inspect(session, &flags, path, &[], |v| crate::output::indent(&v.to_string())).await
        }
        Command::Rm { names, force } => {
            for name in names {
                match session.client.delete(&format!("/volumes/{}", segment(&name)), &[]).await {
                    Ok(_) => session.line(name)?,
                    Err(error) if force && is_not_found(&error) => {}
                    Err(error) => session.report(&error),
                }
            }
            Ok(())
        }
        Command::Prune(flags) => prune(session, flags).await,
    }
}

/// The request for a volume.
fn created(flags: &CreateFlags) -> Value {
    let map = |pairs: &[String]| -> Map<String, Value> {
        pairs.iter().map(|pair| key_value(pair)).map(|(key, value)| (key, json!(value))).collect()
    };
    json!({
        "Name": flags.name, "Driver": flags.driver, "DriverOpts": map(&flags.opt), "Labels": map(&flags.label),
    })
}

async fn ls(session: &mut Session, list: &ListFlags) -> anyhow::Result<()> {
    let volumes = session.client.get("/volumes", &list.query()?).await?;
    let labels = |volume: &Value| {
        let labels = volume["Labels"].as_object().into_iter().flatten();
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
    };
    let row = |volume: &Value| {
        vec![
            // What --quiet shows: volumes have no other identity.
            ("ID", volume.text("/Name").to_owned()),
            ("Driver", volume.text("/Driver").to_owned()),
            ("Name", volume.text("/Name").to_owned()),
            ("Scope", volume.text("/Scope").to_owned()),
            ("Mountpoint", volume.text("/Mountpoint").to_owned()),
            ("Labels", labels(volume)),
        ]
    };
    let rows = volumes.list("/Volumes").iter().map(row).collect();
    let columns = &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")];
    list.show(
        session,
        &Listing { columns, further: &[("Scope", "SCOPE"), ("Mountpoint", "MOUNTPOINT"), ("Labels", "LABELS")], rows },
    )
}

async fn prune(session: &mut Session, flags: PruneFlags) -> anyhow::Result<()> {
    if !flags.force {
        let which = if flags.all { "all volumes" } else { "all volumes without a name of their own" };
        session.line(format!("WARNING! This will remove {which} that no container has."))?;
        session.line("Are you sure you want to continue? [y/N] ")?;
        session.out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        anyhow::ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "volume prune has been cancelled");
    }
    let mut wanted = flags.filter;
    wanted.extend(flags.all.then(|| "all=true".to_owned()));
    let query: Vec<_> = filters(&wanted)?.map(|filters| ("filters", filters)).into_iter().collect();
    let answer = session.client.post("/volumes/prune", &query, &Value::Null).await?;
    let deleted = answer.texts("/VolumesDeleted");
    if !deleted.is_empty() {
        session.line("Deleted Volumes:")?;
    }
    for name in deleted {
        session.line(name)?;
    }
    Ok(session.line(format!("Total reclaimed space: {}", decimal_size(answer.int("/SpaceReclaimed"))))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn what_docker_sends_for_the_same_flags() {
        let words = "skep create --label a=b -o type=nfs -o device=:/x -o o=addr=10.0.0.1,rw db";
        let Command::Create(flags) = Line::try_parse_from(words.split(' ')).unwrap().command else { panic!("another") };
        let options = json!({"type":"nfs","device":":/x","o":"addr=10.0.0.1,rw"});
        let want = json!({"Name":"db","Driver":"local","DriverOpts":options,"Labels":{"a":"b"}});
        assert_eq!(created(&flags), want);
    }
}
