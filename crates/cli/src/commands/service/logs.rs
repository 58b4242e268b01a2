//! `service logs`.

use clap::Args;
use http_body_util::BodyExt as _;

use super::super::container;
use super::super::shared::segment;
use super::super::tasks::Names;
use crate::client::is_not_found;
use crate::client::stdcopy::Demux;
use crate::output::short_id;
use crate::session::Session;
use crate::view::View as _;

/// Flags of `service logs`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct LogsFlags {
    #[command(flatten)]
    common: container::LogsFlags,
    /// Show lines as they were written, without the task
    #[arg(long)]
    raw: bool,
    /// Show identifiers in place of names
    #[arg(long)]
    no_resolve: bool,
    /// Show whole identifiers
    #[arg(long)]
    no_trunc: bool,
    /// Leave the task's identifier out
    #[arg(long)]
    no_task_ids: bool,
}

/// `service logs`, of a service or of one task.
pub(super) async fn logs(session: &mut Session, flags: &LogsFlags) -> anyhow::Result<()> {
    let name = segment(&flags.common.name);
    let (path, tty) = match session.client.get(&format!("/services/{name}"), &[]).await {
        Ok(service) => (format!("/services/{name}/logs"), service.yes("/Spec/TaskTemplate/ContainerSpec/TTY")),
        Err(error) if is_not_found(&error) => {
            let task = session.client.get(&format!("/tasks/{name}"), &[]).await.map_err(|e| {
                if is_not_found(&e) { anyhow::anyhow!("no such task or service: {}", flags.common.name) } else { e }
            })?;
            (format!("/tasks/{name}/logs"), task.yes("/Spec/ContainerSpec/TTY"))
        }
        Err(error) => return Err(error),
    };
    let mut query = flags.common.query()?;
    if !flags.raw {
        query.push(("details", "1".to_owned()));
    }
    if tty && !flags.raw {
        anyhow::bail!("tty service logs only supported with --raw");
    }
    let mut answer = session.client.stream(&path, &query).await?;
    let mut demux = Demux::default();
    let mut prefixes = Prefixes::default();
    while let Some(frame) = answer.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        if tty {
            session.out.write_all(&bytes)?;
        } else {
            demux.push(&bytes);
        }
        while let Some((stream, payload)) = demux.next()? {
            let line = if flags.raw { payload.to_vec() } else { prefixes.line(session, flags, &payload).await? };
            container::write(session, stream, &line)?;
        }
        session.out.flush()?;
    }
    Ok(())
}

/// The start of each line, by what the daemon says of its task.
#[derive(Default)]
struct Prefixes {
    names: Names,
    known: std::collections::BTreeMap<String, String>,
}

impl Prefixes {
    /// `name.slot.task@node    | text`, with the time before the text when it was asked for.
    async fn line(&mut self, session: &Session, flags: &LogsFlags, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (time, rest) = if flags.common.timestamps { cut(payload) } else { (&b""[..], payload) };
        let (details, text) = cut(rest);
        let details = String::from_utf8_lossy(details).into_owned();
        if !self.known.contains_key(&details) {
            let prefix = self.prefix(session, flags, &details).await?;
            self.known.insert(details.clone(), prefix);
        }
        let mut out = format!("{}    | ", self.known[&details]).into_bytes();
        if !time.is_empty() {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        Ok(out)
    }

    async fn prefix(&mut self, session: &Session, flags: &LogsFlags, details: &str) -> anyhow::Result<String> {
        let of = |key: &str| {
            details
                .split(',')
                .find_map(|d| d.strip_prefix("com.docker.swarm.")?.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let (task, node) = (of("task.id"), of("node.id"));
        let shown = if flags.no_trunc { task } else { short_id(task) };
        if flags.no_resolve {
            return Ok(format!("{shown}@{node}"));
        }
        self.names = Names::of(session).await?;
        let name = match session.client.get(&format!("/tasks/{}", segment(task)), &[]).await {
            Ok(task) => self.names.task(&task),
            Err(_) => self.names.get(of("service.id")).to_owned(),
        };
        let id = if flags.no_task_ids { String::new() } else { format!(".{shown}") };
        Ok(format!("{name}{id}@{}", self.names.get(node)))
    }
}

/// What is before the first space, and what is after it.
fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == b' ') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (b"", bytes),
    }
}
