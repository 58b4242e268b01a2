//! `mesh top`: two reports of the node make one look.

mod draw;
mod look;

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use self::look::Look;
use super::{ask, shown};
use crate::session::Session;
use crate::values::parse_duration;

/// Flags of `mesh top`.
#[derive(Debug, Args)]
pub struct Flags {
    /// How long between two looks
    #[arg(short, long, default_value = "1s", value_name = "SPAN", value_parser = span)]
    interval: Duration,
    /// Look once, over one interval, and end
    #[arg(long, visible_alias = "once")]
    no_stream: bool,
    /// Only ports of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// "json" (one object per look), or a Go template over that object
    #[arg(long)]
    format: Option<String>,
    /// Show whole task identifiers
    #[arg(long)]
    no_trunc: bool,
}

/// Rates over less than this are noise.
const SHORTEST: Duration = Duration::from_millis(100);

fn span(text: &str) -> Result<Duration, String> {
    let nanos = parse_duration(text)?;
    let span = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    if span < SHORTEST { Err("an interval is 100ms or longer, as in 500ms or 2s".to_owned()) } else { Ok(span) }
}

pub(super) async fn run(session: &mut Session, flags: &Flags) -> anyhow::Result<()> {
    let mut before = ask(session, "", &[]).await?;
    let mut ticks = interval(flags.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut screen = draw::Screen::default();
    loop {
        ticks.tick().await;
        match ask(session, "", &[]).await {
            Ok(now) => {
                show(session, flags, &mut screen, &before, &now)?;
                before = now;
            }
            // The mesh outlives the daemon; so does who watches it.
            Err(e) if session.tty && flags.format.is_none() && !flags.no_stream => {
                screen.lament(session, &format!("{e:#}"))?;
            }
            Err(e) => return Err(e),
        }
        if flags.no_stream {
            return Ok(());
        }
    }
}

fn show(
    session: &mut Session,
    flags: &Flags,
    screen: &mut draw::Screen,
    before: &Value,
    now: &Value,
) -> anyhow::Result<()> {
    let look = Look::new(before, now, flags.service.as_deref());
    if let Some(format) = &flags.format {
        shown(session, format, &look.json())?;
        return Ok(session.out.flush()?);
    }
    screen.draw(session, &draw::lines(&look, flags.no_trunc), flags.no_stream)
}
