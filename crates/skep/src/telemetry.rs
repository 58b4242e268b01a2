//! The daemon's own log: one line per event, to standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Begins logging at `level` (`debug`, `info`, `warn`, `error`), or as `RUST_LOG` says.
///
/// # Errors
/// When `level` is no level.
pub(crate) fn start(level: &str) -> anyhow::Result<()> {
    let level = if level == "fatal" { "error" } else { level };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives:?}"))?,
        // Libraries speak up only when something is wrong. Openraft does when a manager is away, which skep says itself.
        Err(_) => EnvFilter::try_new(format!("warn,openraft=off,skep={level}"))
            .with_context(|| format!("--log-level {level:?}: use debug, info, warn or error"))?,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
