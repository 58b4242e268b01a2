//! `swarm ca`: the root of the nodes' certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::progress::Canvas;
use crate::session::Session;
use crate::values::parse_duration;
use crate::view::View as _;

/// How long between two looks.
const POLL: Duration = Duration::from_millis(200);
/// Nodes that are named before it becomes "and so many more".
const NAMED: usize = 5;

/// Flags of `swarm ca`.
#[derive(Debug, Args)]
pub struct CaFlags {
    /// Put another root certificate in its place, and give every node a certificate under it
    #[arg(long)]
    rotate: bool,
    /// The root certificate to put in its place, in PEM; without it the swarm makes one
    #[arg(long, value_name = "FILE", requires = "rotate")]
    ca_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM (PKCS #8)
    #[arg(long, value_name = "FILE", requires = "rotate")]
    ca_key: Option<PathBuf>,
    /// How long a node's certificate is valid from now on: a duration
    #[arg(long, value_parser = parse_duration, requires = "rotate")]
    cert_expiry: Option<i64>,
    /// Not in skep: its managers sign certificates themselves
    #[arg(long, value_name = "EXTERNAL-CA", requires = "rotate")]
    external_ca: Vec<String>,
    /// Return at once
    #[arg(short, long)]
    detach: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// Shows the root, or replaces it.
pub(super) async fn run(session: &mut Session, flags: CaFlags) -> anyhow::Result<()> {
    let swarm = session.client.get("/swarm", &[]).await?;
    if !flags.rotate {
        return print(session, &swarm);
    }
    super::update(session, &swarm, &spec(&swarm["Spec"], &flags)?, None).await?;
    if flags.detach {
        return Ok(());
    }
    tokio::select! {
        replaced = watch(session, flags.quiet) => replaced?,
        _ = tokio::signal::ctrl_c() => {
            session.line("Operation continuing in background.\nUse `skep info` on a manager to see who is waited for.")?;
            return Ok(());
        }
    }
    if flags.quiet {
        return Ok(());
    }
    let swarm = session.client.get("/swarm", &[]).await?;
    print(session, &swarm)
}

/// The swarm's spec with what is asked of its root.
fn spec(before: &Value, flags: &CaFlags) -> anyhow::Result<Value> {
    let mut spec = before.clone();
    let ca = &mut spec["CAConfig"];
    if ca.is_null() {
        *ca = json!({});
    }
    if let Some(expiry) = flags.cert_expiry {
        ca["NodeCertExpiry"] = expiry.into();
    }
    if !flags.external_ca.is_empty() {
        ca["ExternalCAs"] = flags.external_ca.iter().map(|text| json!({ "URL": text })).collect();
    }
    match (&flags.ca_cert, &flags.ca_key) {
        (None, None) => ca["ForceRotate"] = (before.int("/CAConfig/ForceRotate") + 1).into(),
        (None, Some(_)) => bail!("--ca-key needs the certificate that it belongs to: give --ca-cert too"),
        (Some(certificate), key) => {
            ca["SigningCACert"] = read(certificate)?.into();
            if let Some(key) = key {
                ca["SigningCAKey"] = read(key)?.into();
            }
        }
    }
    Ok(spec)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn print(session: &mut Session, swarm: &Value) -> anyhow::Result<()> {
    Ok(session.line(swarm.text("/TLSInfo/TrustRoot").trim())?)
}

async fn watch(session: &mut Session, quiet: bool) -> anyhow::Result<()> {
    let mut canvas = Canvas::new(quiet);
    let mut ticks = tokio::time::interval(POLL);
    loop {
        ticks.tick().await;
        let swarm = session.client.get("/swarm", &[]).await?;
        let nodes = session.client.get("/nodes", &[]).await?;
        let look = look(&swarm, nodes.list(""));
        canvas.draw(session, &look.lines)?;
        if look.done {
            return Ok(());
        }
    }
}

/// One look at the swarm.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    lines: Vec<String>,
    done: bool,
}

/// Pure: how far the nodes have come.
fn look(swarm: &Value, nodes: &[Value]) -> Look {
    let wanted = &swarm["TLSInfo"];
    let tls = |node: &Value, field: &str| node["Description"]["TLSInfo"][field] == wanted[field];
    let certified = |node: &&Value| tls(node, "CertIssuerPublicKey") && tls(node, "CertIssuerSubject");
    let open = swarm.yes("/RootRotationInProgress");
    // As long as it is open, everybody trusts the old root too.
    let trusting = |node: &&Value| !open && tls(node, "TrustRoot");
    let (with, trust) = (nodes.iter().filter(certified).count(), nodes.iter().filter(trusting).count());
    let done = with == nodes.len() && trust == nodes.len();
    let rest = |node: &&Value| !certified(node) || (!open && !trusting(node));
    let name = |node: &Value| {
        let state = node.text("/Status/State");
        let name = node.text("/Description/Hostname").to_owned();
        if state == "ready" { name } else { format!("{name} ({state})") }
    };
    let waiting: Vec<String> = nodes.iter().filter(rest).map(name).collect();
    let more = waiting.len().saturating_sub(NAMED);
    let named = waiting.iter().take(NAMED).cloned().chain((more > 0).then(|| format!("{more} more")));
    let named = named.collect::<Vec<_>>().join(", ");
    let mut first = format!("certificates under the new root: {with} out of {} nodes", nodes.len());
    if !done {
        let waited = if named.is_empty() { "the old root to be forgotten".to_owned() } else { named };
        first = format!("{first}, waiting for {waited}");
    }
    let second = format!("the old root is forgotten by: {trust} out of {} nodes", nodes.len());
    Look { lines: vec![first, second], done }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, roots: &str, key: &str) -> Value {
        json!({
            "Status": { "State": state },
            "Description": {
                "Hostname": name,
                "TLSInfo": { "TrustRoot": roots, "CertIssuerSubject": "s", "CertIssuerPublicKey": key },
            },
        })
    }

    #[test]
    fn who_is_waited_for_is_named_and_it_is_over_when_all_have_forgotten_the_old_root() {
        let swarm = |open: bool, roots: &str| {
            json!({
                "RootRotationInProgress": open,
                "TLSInfo": { "TrustRoot": roots, "CertIssuerSubject": "s", "CertIssuerPublicKey": "new" },
            })
        };
        let nodes = [node("a", "ready", "old new", "new"), node("b", "down", "old", "old")];
        let seen = look(&swarm(true, "old new"), &nodes);
        assert_eq!(seen.lines[0], "certificates under the new root: 1 out of 2 nodes, waiting for b (down)");
        assert_eq!(seen.lines[1], "the old root is forgotten by: 0 out of 2 nodes");
        let nodes = [node("a", "ready", "new", "new"), node("b", "ready", "old new", "new")];
        let seen = look(&swarm(false, "new"), &nodes);
        assert_eq!(seen.lines[0], "certificates under the new root: 2 out of 2 nodes, waiting for b");
        assert!(!seen.done);
        let nodes = [node("a", "ready", "new", "new"), node("b", "ready", "new", "new")];
        let seen = look(&swarm(false, "new"), &nodes);
        assert!(seen.done && seen.lines[1].ends_with("2 out of 2 nodes"), "{seen:?}");
    }
}
