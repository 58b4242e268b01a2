//! Health checks of one task: run in its container, on time, for as long as it should run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Health, HealthCheck, HealthResult, HealthState, TaskId, Timestamp};
use skep_runtime::{ContainerId, Exec, ExecCommand, ExecFiles, LogStream, Runtime, RuntimeError, Stdin};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::{AgentError, disk};

/// Bytes of what a check writes that are kept, as in Docker.
const OUTPUT: usize = 4096;
/// How long what a check has started may hold its output after its end.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// The checks of a task's container. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Checks {
    health: watch::Receiver<Health>,
    running: AbortHandle,
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// What is checked, and where that is written down.
#[derive(Debug)]
struct Checked {
    container: ContainerId,
    check: HealthCheck,
    file: PathBuf,
}

/// Where the health of a task is kept over a restart of the daemon.
pub(crate) fn file(tasks_dir: &Path, task: &TaskId) -> PathBuf {
    tasks_dir.join(format!("{task}.health.json"))
}

/// What was written down last.
pub(crate) fn known(tasks_dir: &Path, task: &TaskId) -> Option<Health> {
    match disk::read_json(&file(tasks_dir, task)) {
        Ok(health) => health,
        Err(e) => {
            warn!(%task, "its health is not known any more: {e}");
            None
        }
    }
}

/// Why a task was given up, for people.
pub(crate) fn verdict(tasks_dir: &Path, task: &TaskId) -> String {
    const WORDS: &str = "task: unhealthy container";
    let Some(health) = known(tasks_dir, task) else { return WORDS.to_owned() };
    let Some(last) = health.results.back() else { return WORDS.to_owned() };
    let said: String = last.output.lines().next().unwrap_or_default().chars().take(200).collect();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("{WORDS}: {} health checks in a row failed, the last with code {}{said}", health.failing, last.exit_code)
}

impl Checks {
    /// Goes on with those of a container that runs, from what was written down.
    pub(crate) fn go_on(
        runtime: Arc<dyn Runtime>,
        container: ContainerId,
        check: HealthCheck,
        (tasks_dir, task): (&Path, &TaskId),
    ) -> Result<Self, AgentError> {
        let file = file(tasks_dir, task);
        let health = match known(tasks_dir, task) {
            Some(health) => health,
            None => {
                let health = Health::new(Timestamp::now());
                // The start period is counted from here, whoever goes on with it.
                disk::write_json(&file, &health)?;
                health
            }
        };
        let (told, health) = watch::channel(health);
        let checked = Checked { container, check, file };
        let running = tokio::spawn(checked.run(runtime, told)).abort_handle();
        Ok(Self { health, running })
    }

    /// Hears of its health.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether it is given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.health.borrow().state == HealthState::Unhealthy
    }
}

/// Returns when it is healthy or given up; at once for what is not checked.
pub(crate) async fn decided(health: Option<watch::Receiver<Health>>) {
    let Some(mut health) = health else { return };
    if health.wait_for(|health| health.state != HealthState::Starting).await.is_err() {
        // The container is gone, and somebody else hears of that.
        std::future::pending::<()>().await;
    }
}

/// Returns when it is given up; never for what is not checked.
pub(crate) async fn given_up(health: Option<watch::Receiver<Health>>) {
    if let Some(mut health) = health
        && health.wait_for(|health| health.state == HealthState::Unhealthy).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

impl Checked {
    /// Until it is given up, or there is nothing to check any more.
    async fn run(self, runtime: Arc<dyn Runtime>, health: watch::Sender<Health>) {
        while health.borrow().state != HealthState::Unhealthy {
            let pause = health.borrow().pause(&self.check, Timestamp::now());
            sleep(pause).await;
            let Some(result) = self.once(&*runtime).await else { return };
            let before = health.borrow().state;
            health.send_modify(|health| health.record(&self.check, result));
            if health.borrow().state != before {
                let now = health.borrow().clone();
                // Losing it costs a few checks after a restart.
                if let Err(e) = disk::write_json(&self.file, &now) {
                    warn!(container = %self.container, "{e}");
                }
            }
        }
    }

    /// What comes of one check; `None` when the container does not run.
    async fn once(&self, runtime: &dyn Runtime) -> Option<HealthResult> {
        let start = Timestamp::now();
        let command = ExecCommand {
            args: self.check.command.clone(),
            env: Vec::new(),
            user: None,
            dir: None,
            files: ExecFiles::Pipes { stdin: Stdin::Empty },
        };
        let whole = async {
            let mut exec = runtime.exec(&self.container, command).await?;
            Ok(outcome(&mut exec).await)
        };
        // What takes too long is killed: it is dropped.
        let (exit_code, output) = match timeout(self.check.timeout, whole).await {
            Ok(Ok((code, output))) => (code.unwrap_or(-1), output),
            Ok(Err(RuntimeError::NotRunning(_) | RuntimeError::NotFound(_))) => return None,
            Ok(Err(e)) => (-1, e.to_string()),
            Err(_) => (-1, format!("Health check exceeded timeout ({:?})", self.check.timeout)),
        };
        Some(HealthResult { start, end: Timestamp::now(), exit_code, output })
    }
}

/// The exit code of a check, and the beginning of what it wrote.
async fn outcome(exec: &mut Exec) -> (Option<i32>, String) {
    let (_, nothing) = mpsc::channel(1);
    let (mut output, mut bytes) = (std::mem::replace(&mut exec.output, nothing), Vec::new());
    let ended = tokio::select! {
        code = exec.ended() => Some(code),
        () = read(&mut output, &mut bytes) => None,
    };
    let code = match ended {
        None => exec.ended().await,
        Some(code) => {
            // There is more only when something else holds it.
            let _ = timeout(AFTERWARDS, read(&mut output, &mut bytes)).await;
            code
        }
    };
    let cut = bytes.len() > OUTPUT;
    bytes.truncate(OUTPUT);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (code, if cut { text + "..." } else { text })
}

async fn read(output: &mut mpsc::Receiver<(LogStream, Vec<u8>)>, bytes: &mut Vec<u8>) {
    while let Some((_, piece)) = output.recv().await {
        // The rest is taken too, so that nobody waits for room.
        let room = (OUTPUT + 1).saturating_sub(bytes.len());
        bytes.extend(piece.into_iter().take(room));
    }
}
