//! What is shown while a service converges, and how: polled, compared with what it should be, drawn when it changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::client::percent;
use crate::session::Session;
use crate::view::View as _;

/// How long between two looks.
const POLL: Duration = Duration::from_millis(200);
/// More tasks than this are only counted, not drawn one by one.
const DRAWN: usize = 20;
/// How long a service is watched when its spec does not say, in nanoseconds.
const MONITOR: i64 = 5_000_000_000;
/// The states of a task on its way, in order; the bar grows with them.
const STATES: [&str; 9] =
    ["new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

/// One look at a service.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// The lines to draw: the sum first.
    lines: Vec<String>,
    /// Whether all tasks run that should.
    converged: bool,
}

/// What an update has come to, when it came to an end of its own.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on, or there is none.
    Open,
    /// The old spec is back.
    RolledBack(String),
    /// It stopped, and waits for somebody.
    Paused(String),
}

/// Draws a service until it has converged and stayed so for its monitoring period. Ctrl-C leaves it to itself.
///
/// # Errors
/// When the update paused, or the daemon refused to answer.
pub(crate) async fn follow(session: &mut Session, id: &str, quiet: bool) -> anyhow::Result<()> {
    tokio::select! {
        outcome = watch(session, id, quiet) => return outcome,
        _ = tokio::signal::ctrl_c() => {}
    }
    session.line(format!("Operation continuing in background.\nUse `skep service ps {id}` to check progress."))?;
    Ok(())
}

async fn watch(session: &mut Session, id: &str, quiet: bool) -> anyhow::Result<()> {
    let path = format!("/services/{}", percent(id));
    let filter = json!({ "service": { id: true }, "_up-to-date": { "true": true } }).to_string();
    let mut canvas = Canvas::new(quiet);
    let mut since: Option<Instant> = None;
    let mut ticks = tokio::time::interval(POLL);
    loop {
        ticks.tick().await;
        let service = session.client.get(&path, &[("insertDefaults", "false".to_owned())]).await?;
        let tasks = session.client.get("/tasks", &[("filters", filter.clone())]).await?;
        let nodes = session.client.get("/nodes", &[]).await?;
        match ending(&service) {
            Ending::Paused(message) => bail!("{message}"),
            Ending::RolledBack(message) => return canvas.verify(session, &format!("rollback: {message}")),
            Ending::Open => {}
        }
        let look = look(&service, tasks.list(""), nodes.list(""));
        canvas.draw(session, &look.lines)?;
        if !look.converged {
            since = None;
            canvas.verified = String::new();
            continue;
        }
        let period =
            service.pointer("/Spec/UpdateConfig/Monitor").and_then(Value::as_i64).filter(|m| *m > 0).unwrap_or(MONITOR);
        let left = Duration::from_nanos(period.unsigned_abs())
            .saturating_sub(since.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() {
            return canvas.verify(session, &format!("verify: Service {id} converged"));
        }
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        canvas.verify(session, &format!("verify: Waiting {seconds} seconds to verify that tasks are stable..."))?;
    }
}

fn ending(service: &Value) -> Ending {
    let message = service.text("/UpdateStatus/Message").to_owned();
    match service.text("/UpdateStatus/State") {
        "rollback_completed" => Ending::RolledBack(message),
        "paused" => Ending::Paused(format!("service update paused: {message}")),
        "rollback_paused" => Ending::Paused(format!("service rollback paused: {message}")),
        _ => Ending::Open,
    }
}

/// Pure: what there is to say of a service with these tasks on these nodes.
fn look(service: &Value, tasks: &[Value], nodes: &[Value]) -> Look {
    let usable = |id: &str| {
        nodes.iter().any(|n| {
            n.text("/ID") == id && n.text("/Status/State") != "down" && n.text("/Spec/Availability") != "drain"
        })
    };
    let replicas =
        service.pointer("/Spec/Mode/Replicated").map(|r| r.pointer("/Replicas").and_then(Value::as_i64).unwrap_or(1));
    // The newest task of each slot, or of each node for a global service.
    let mut newest: BTreeMap<(i64, &str), &Value> = BTreeMap::new();
    for task in tasks.iter().filter(|t| matches!(t.text("/DesiredState"), "running" | "ready")) {
        let key = if replicas.is_some() { (task.int("/Slot"), "") } else { (0, task.text("/NodeID")) };
        if replicas.is_none() && !usable(key.1) {
            continue;
        }
        let slot = newest.entry(key).or_insert(task);
        if slot.text("/CreatedAt") < task.text("/CreatedAt") {
            *slot = task;
        }
    }
    let total = replicas.map_or(newest.len(), |r| usize::try_from(r).unwrap_or(0));
    let runs = |t: &Value| {
        t.text("/Status/State") == "running" && t.text("/DesiredState") == "running" && usable(t.text("/NodeID"))
    };
    let running = newest.values().filter(|t| runs(t)).count();
    let mut lines = vec![format!("overall progress: {running} out of {total} tasks")];
    if total <= DRAWN {
        // A replica without a task yet still has its line.
        let tasks = newest.values().map(|t| Some(*t)).chain(std::iter::repeat(None)).take(total);
        lines.extend(tasks.enumerate().map(|(i, task)| task_line(i + 1, total, task)));
    }
    let updating = matches!(service.text("/UpdateStatus/State"), "updating" | "rollback_started");
    Look { lines, converged: running == total && (replicas.is_some() || total > 0) && !updating }
}

fn task_line(number: usize, total: usize, task: Option<&Value>) -> String {
    let Some(task) = task else { return format!("{number}/{total}: ") };
    let state = task.text("/Status/State");
    let error = task.text("/Status/Err");
    if !error.is_empty() {
        return format!("{number}/{total}: {error}");
    }
    let reached = STATES.iter().position(|s| *s == state).map_or(0, |i| i + 1);
    format!("{number}/{total}: {state:<9} [{:<width$}]", "=".repeat(reached * 5) + ">", width = STATES.len() * 5 + 1)
}

/// What has been drawn.
#[derive(Debug, Default)]
pub(crate) struct Canvas {
    quiet: bool,
    drawn: Vec<String>,
    verified: String,
}

impl Canvas {
    /// An empty one; nothing is ever drawn on a quiet one.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    /// Draws what changed: on a terminal over the old lines, elsewhere only the sum, with the tasks once.
    pub(crate) fn draw(&mut self, session: &mut Session, lines: &[String]) -> anyhow::Result<()> {
        if self.quiet || self.drawn == lines {
            return Ok(());
        }
        if session.tty {
            let up = self.drawn.len() + usize::from(!self.verified.is_empty());
            if up > 0 {
                write!(session.out, "\x1b[{up}A\x1b[J")?;
            }
            for line in lines {
                session.line(line)?;
            }
        } else if self.drawn.first() != lines.first() {
            session.line(&lines[0])?;
        }
        self.verified.clear();
        self.drawn = lines.to_vec();
        Ok(session.out.flush()?)
    }

    fn verify(&mut self, session: &mut Session, line: &str) -> anyhow::Result<()> {
        if self.quiet || self.verified == line {
            return Ok(());
        }
        if session.tty && !self.verified.is_empty() {
            write!(session.out, "\x1b[1A\x1b[2K")?;
        }
        line.clone_into(&mut self.verified);
        session.line(line)?;
        Ok(session.out.flush()?)
    }
}
