//! `image`, and its short forms `images` and `load`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;

use super::archive::{self, ImportFlags, SaveFlags};
use super::registry::{self, PullFlags};
use super::shared::{self, InspectFlags, segment};
use crate::client::file_body;
use crate::output::{Listing, Row, ago, decimal_size, short_id};
use crate::session::Session;
use crate::view::View as _;

/// The verbs of images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List images
    Ls(ListFlags),
    /// Load images from an archive
    Load(LoadFlags),
    /// Pull an image from its registry
    Pull(PullFlags),
    /// Write images into an archive
    Save(SaveFlags),
    /// Make an image of a root file system
    Import(ImportFlags),
    /// Remove images
    Rm(RmFlags),
    /// Remove images that are of no use
    Prune(PruneFlags),
    /// Show images as JSON
    Inspect(InspectFlags),
    /// Give an image another name
    Tag {
        /// The image
        source: String,
        /// The new name, with or without a tag
        target: String,
    },
}

/// Flags of `image ls`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ListFlags {
    #[command(flatten)]
    list: shared::ListFlags,
    /// Show whole identifiers
    #[arg(long)]
    no_trunc: bool,
    /// Show also images without a name
    #[arg(short, long)]
    all: bool,
    /// Show only this repository, or repository:tag
    repository: Option<String>,
}

/// Flags of `image rm`.
#[derive(Debug, Args)]
pub struct RmFlags {
    /// Remove although something uses it
    #[arg(short, long)]
    force: bool,
    /// References or identifiers
    #[arg(required = true)]
    images: Vec<String>,
}

/// Flags of `image prune`.
#[derive(Debug, Args)]
pub struct PruneFlags {
    /// Remove all images that no container uses, not only those without a tag
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Flags of `image load`.
#[derive(Debug, Args)]
pub struct LoadFlags {
    /// The archive; otherwise stdin
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Show nothing of the progress
    #[arg(short, long)]
    quiet: bool,
}

/// Carries out a verb.
pub(super) async fn run(session: &mut Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls(flags) => list(session, flags).await,
        Command::Load(flags) => load(session, flags).await,
        Command::Pull(flags) => registry::pull(session, flags).await,
        Command::Save(flags) => archive::save(session, flags).await,
        Command::Import(flags) => archive::import(session, flags).await,
        Command::Rm(flags) => remove(session, flags).await,
        Command::Prune(flags) => prune(session, &flags).await,
        Command::Inspect(flags) => {
            let path = |name: &str| format!("/images/{}/json", segment(name));
            shared::inspect(session, &flags, path, &[], |v| crate::output::indent(&v.to_string())).await
        }
        Command::Tag { source, target } => tag(session, &source, &target).await,
    }
}

/// `image rm`.
pub(super) async fn remove(session: &mut Session, flags: RmFlags) -> anyhow::Result<()> {
    let query = if flags.force { vec![("force", "1".to_owned())] } else { Vec::new() };
    for image in flags.images {
        match session.client.delete(&format!("/images/{}", segment(&image)), &query).await {
            Ok(removed) => show_removed(session, &removed)?,
            Err(error) => session.report(&error),
        }
    }
    Ok(())
}

/// `image tag`.
pub(super) async fn tag(session: &mut Session, source: &str, target: &str) -> anyhow::Result<()> {
    let (repository, tag) = split_tag(target);
    let query = [("repo", repository.to_owned()), ("tag", tag.unwrap_or_default().to_owned())];
    session.client.post(&format!("/images/{}/tag", segment(source)), &query, &Value::Null).await?;
    Ok(())
}

async fn prune(session: &mut Session, flags: &PruneFlags) -> anyhow::Result<()> {
    if !flags.force {
        let which = if flags.all { "that no container uses" } else { "without a tag" };
        eprint!("This removes all images {which}. Go on? [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
    }
    let filters = serde_json::json!({ "dangling": { (if flags.all { "false" } else { "true" }): true } });
    let pruned = session.client.post("/images/prune", &[("filters", filters.to_string())], &Value::Null).await?;
    show_removed(session, &pruned["ImagesDeleted"])?;
    Ok(session.line(format!("Total reclaimed space: {}", decimal_size(pruned.int("/SpaceReclaimed"))))?)
}

fn show_removed(session: &mut Session, removed: &Value) -> anyhow::Result<()> {
    for entry in removed.list("") {
        for key in ["Untagged", "Deleted"] {
            if let Some(text) = entry[key].as_str() {
                session.line(format!("{key}: {text}"))?;
            }
        }
    }
    Ok(())
}

/// A colon after the last slash begins a tag; one before it, a port.
fn split_tag(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (reference, None),
    }
}

/// `image ls`.
pub(super) async fn list(session: &mut Session, mut flags: ListFlags) -> anyhow::Result<()> {
    flags.list.filter.extend(flags.repository.take().map(|r| format!("reference={r}")));
    let mut query = flags.list.query()?;
    if flags.all {
        query.push(("all", "1".to_owned()));
    }
    let images = session.client.get("/images/json", &query).await?;
    let mut images: Vec<&Value> = images.list("").iter().collect();
    images.sort_by_key(|i| -i.int("/Created"));
    let now = Timestamp::now();
    let rows = images.into_iter().flat_map(|image| image_rows(image, flags.no_trunc, now)).collect();
    let columns = &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ];
    flags.list.show(session, &Listing { columns, further: &[], rows })
}

fn image_rows(image: &Value, whole: bool, now: Timestamp) -> Vec<Row> {
    let mut names: Vec<String> = image.texts("/RepoTags").into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        // What a registry calls by its digest alone.
        let repositories = image.texts("/RepoDigests").into_iter().filter_map(|name| Some(name.split_once('@')?.0));
        names.extend(repositories.map(|name| format!("{name}:<none>")));
    }
    if names.is_empty() {
        names.push("<none>:<none>".to_owned());
    }
    let id = if whole { image.text("/Id") } else { short_id(image.text("/Id")) };
    let created = Timestamp::from_second(image.int("/Created")).map(|t| t.to_string()).unwrap_or_default();
    let row = |name: &str| {
        let (repository, tag) = split_tag(name);
        vec![
            ("Repository", repository.to_owned()),
            ("Tag", tag.unwrap_or("<none>").to_owned()),
            ("ID", id.to_owned()),
            ("CreatedSince", ago(&created, now)),
            ("Size", decimal_size(image.int("/Size"))),
        ]
    };
    names.iter().map(|name| row(name)).collect()
}

/// `image load`.
pub(super) async fn load(session: &mut Session, flags: LoadFlags) -> anyhow::Result<()> {
    let body = match &flags.input {
        Some(path) => file_body(
            tokio::fs::File::open(path).await.with_context(|| format!("cannot read the archive {}", path.display()))?,
        ),
        None => file_body(tokio::io::stdin()),
    };
    let quiet = if flags.quiet { "1" } else { "0" };
    let mut answer = session.client.upload("/images/load", &[("quiet", quiet.to_owned())], body).await?;
    let mut lines = super::system::Lines::default();
    while let Some(frame) = answer.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        for message in lines.push(&bytes)? {
            if let Some(error) = message["error"].as_str() {
                anyhow::bail!("{error}");
            }
            if let Some(text) = message["stream"].as_str() {
                session.line(text.trim_end())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        assert_eq!(split_tag("web:1"), ("web", Some("1")));
        assert_eq!(split_tag("host:5000/web"), ("host:5000/web", None));
        assert_eq!(split_tag("host:5000/web:2"), ("host:5000/web", Some("2")));
    }
}
