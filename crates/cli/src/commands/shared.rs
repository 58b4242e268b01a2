//! What several nouns do alike: flags of lists, inspecting.

use clap::Args;
use serde_json::Value;

use crate::client::percent;
use crate::output::{Listing, Template, indent};
use crate::session::Session;
use crate::values::filters;

/// The flags of every list.
#[derive(Debug, Args)]
pub struct ListFlags {
    /// Show only what has this: key=value
    #[arg(short, long)]
    pub(super) filter: Vec<String>,
    /// A Go template, "table TEMPLATE", or "json"
    #[arg(long)]
    pub(super) format: Option<String>,
    /// Show only the identifiers
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl ListFlags {
    /// The query with the filters in it.
    pub(super) fn query(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        Ok(filters(&self.filter)?.map(|f| ("filters", f)).into_iter().collect())
    }

    /// Writes the list; `quiet` shows the column "ID" alone.
    pub(super) fn show(&self, session: &mut Session, listing: &Listing) -> anyhow::Result<()> {
        let format = if self.quiet { Some("{{.ID}}") } else { self.format.as_deref() };
        Ok(session.out.write_all(listing.render(format)?.as_bytes())?)
    }
}

/// The flags of inspecting things that have a form for people.
#[derive(Debug, Args)]
pub struct InspectFlags {
    /// A Go template over the object, or "json"
    #[arg(short, long)]
    pub(super) format: Option<String>,
    /// Show the things that matter to people
    #[arg(long, conflicts_with = "format")]
    pub(super) pretty: bool,
    /// Names or identifiers
    #[arg(required = true)]
    pub(super) names: Vec<String>,
}

/// A segment of a path.
pub(super) fn segment(name: &str) -> String {
    percent(name)
}

/// Shows objects: as JSON, through a template, or as `pretty` says. Those that fail are reported at once.
pub(super) async fn inspect(
    session: &mut Session,
    flags: &InspectFlags,
    path: impl Fn(&str) -> String,
    query: &[(&str, String)],
    pretty: impl Fn(&Value) -> String,
) -> anyhow::Result<()> {
    let mut raw = Vec::new();
    for name in &flags.names {
        match session.client.get_raw(&path(name), query).await {
            Ok(bytes) => raw.push(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => session.report(&error),
        }
    }
    if flags.pretty {
        for text in &raw {
            session.line(pretty(&serde_json::from_str(text)?))?;
        }
        return Ok(());
    }
    show_objects(session, flags.format.as_deref(), &raw)
}

/// Shows objects as JSON or through a template.
pub(super) fn show_objects(session: &mut Session, format: Option<&str>, raw: &[String]) -> anyhow::Result<()> {
    match format {
        None => Ok(session.line(indent(&format!("[{}]", raw.join(","))))?),
        Some("json") => Ok(session.line(format!("[{}]", raw.iter().map(|r| r.trim()).collect::<Vec<_>>().join(",")))?),
        Some(text) => {
            let template = Template::parse(text)?;
            for object in raw {
                session.line(template.render(&serde_json::from_str(object)?)?)?;
            }
            Ok(())
        }
    }
}
