//! `secret` and `config`.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::shared::{self, InspectFlags, ListFlags, segment};
use crate::output::{Listing, ago};
use crate::session::Session;
use crate::values::key_value;
use crate::view::View as _;

/// The verbs of both.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep a file, or what comes in with "-"
    Create(CreateFlags),
    /// List them
    Ls(ListFlags),
    /// Show them as JSON
    Inspect(InspectFlags),
    /// Remove them
    Rm {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Flags of `create`.
#[derive(Debug, Args)]
pub struct CreateFlags {
    /// Label it
    #[arg(short, long)]
    label: Vec<String>,
    /// Take the content for a template, which each task's node fills in: golang
    #[arg(long)]
    template_driver: Option<String>,
    /// Its name
    name: String,
    /// The file, or "-" for what comes in
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Which of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Config,
}

impl Kind {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Secret => "/secrets",
            Self::Config => "/configs",
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, kind: Kind, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(flags) => create(session, kind, flags).await,
        Command::Ls(flags) => list(session, kind, &flags).await,
        Command::Inspect(flags) => {
            let path = |name: &str| format!("{}/{}", kind.path(), segment(name));
            shared::inspect(session, &flags, path, &[], pretty).await
        }
        Command::Rm { names } => {
            for name in &names {
                match session.client.delete(&format!("{}/{}", kind.path(), segment(name)), &[]).await {
                    Ok(_) => session.line(name)?,
                    Err(error) => session.report(&error),
                }
            }
            Ok(())
        }
    }
}

async fn create(session: &mut Session, kind: Kind, flags: CreateFlags) -> anyhow::Result<()> {
    let mut content = Vec::new();
    if flags.file.as_os_str() == "-" {
        tokio::io::stdin().read_to_end(&mut content).await.context("cannot read what comes in")?;
    } else {
        let read = std::fs::read(&flags.file);
        content = read.with_context(|| format!("cannot read {}", flags.file.display()))?;
    }
    let labels: serde_json::Map<String, Value> =
        flags.label.iter().map(|label| key_value(label)).map(|(key, value)| (key, json!(value))).collect();
    let mut spec = json!({ "Name": flags.name, "Labels": labels, "Data": STANDARD.encode(&content) });
    if let Some(driver) = flags.template_driver {
        spec["Templating"] = json!({ "Name": driver });
    }
    let created = session.client.post(&format!("{}/create", kind.path()), &[], &spec).await?;
    Ok(session.line(created.text("/ID"))?)
}

async fn list(session: &mut Session, kind: Kind, flags: &ListFlags) -> anyhow::Result<()> {
    let all = session.client.get(kind.path(), &flags.query()?).await?;
    let now = Timestamp::now();
    let mut rows: Vec<_> = all
        .list("")
        .iter()
        .map(|item| {
            vec![
                ("ID", item.text("/ID").to_owned()),
                ("Name", item.text("/Spec/Name").to_owned()),
                ("CreatedAt", ago(item.text("/CreatedAt"), now)),
                ("UpdatedAt", ago(item.text("/UpdatedAt"), now)),
            ]
        })
        .collect();
    rows.sort_by(|a, b| a[1].1.cmp(&b[1].1));
    let columns = &[("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")];
    flags.show(session, &Listing { columns, further: &[], rows })
}

fn pretty(item: &Value) -> String {
    let mut text = format!("ID:\t\t{}\nName:\t\t{}\n", item.text("/ID"), item.text("/Spec/Name"));
    text.push_str("Labels:\n");
    for (key, value) in item.pointer("/Spec/Labels").and_then(Value::as_object).into_iter().flatten() {
        text.push_str(&format!(" - {key}={}\n", value.as_str().unwrap_or_default()));
    }
    text + &format!("Created at:\t{}\nUpdated at:\t{}", item.text("/CreatedAt"), item.text("/UpdatedAt"))
}
