//! `kill`, `stop` and `wait`: how containers of this node end.

use clap::Args;
use serde_json::Value;

use super::shared::segment;
use crate::session::Session;
use crate::view::View as _;

/// Flags of `kill`.
#[derive(Debug, Args)]
pub struct KillFlags {
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names or identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

/// Flags of `stop`.
#[derive(Debug, Args)]
pub struct StopFlags {
    /// Seconds before it is killed; -1 is never
    #[arg(short, long, alias = "timeout", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Names or identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub struct WaitFlags {
    /// Names or identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

/// `kill`.
pub(super) async fn kill(session: &mut Session, flags: KillFlags) -> anyhow::Result<()> {
    each(session, &flags.names, "kill", &[("signal", flags.signal)]).await
}

/// `stop`.
pub(super) async fn stop(session: &mut Session, flags: StopFlags) -> anyhow::Result<()> {
    let query: Vec<_> = flags.time.map(|seconds| ("t", seconds.to_string())).into_iter().collect();
    each(session, &flags.names, "stop", &query).await
}

async fn each(session: &mut Session, names: &[String], verb: &str, query: &[(&str, String)]) -> anyhow::Result<()> {
    for name in names {
        match session.client.post(&format!("/containers/{}/{verb}", segment(name)), query, &Value::Null).await {
            Ok(_) => session.line(name)?,
            Err(error) => session.report(&error),
        }
    }
    Ok(())
}

/// `wait`.
pub(super) async fn wait(session: &mut Session, flags: WaitFlags) -> anyhow::Result<()> {
    for name in &flags.names {
        match session.client.post(&format!("/containers/{}/wait", segment(name)), &[], &Value::Null).await {
            Ok(ended) => session.line(ended.int("/StatusCode").to_string())?,
            Err(error) => session.report(&error),
        }
    }
    Ok(())
}
