//! Drives one task: asks [`next`] what to do, does it, says what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{ContainerStatus, EndpointState, Health, HealthState, Task, TaskState, TaskStatus, Timestamp};
use skep_runtime::{ContainerFile, ContainerId, ContainerState, RuntimeError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::endpoint::{Step, close, open};
use super::health::{self, Checks};
use super::machine::{Action, Container, Ending, next};
use super::readiness;
use crate::context::{Context, StepError};
use crate::images::{Local, ReadyImage};
use crate::{AgentError, containers, disk};

/// What no process can refuse (signal(7)).
const SIGKILL: i32 = 9;

/// Until a task that could not be put into the mesh is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the node was told about a task.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The task as managers know it.
    pub(crate) task: Task,
    /// Managers have forgotten it: nothing of it may stay.
    pub(crate) removed: bool,
}

impl Wanted {
    fn desired(&self) -> TaskState {
        if self.removed { TaskState::Remove } else { self.task.desired }
    }
}

/// What came of waiting for a task to take connections.
enum Readiness {
    /// It does.
    Ready,
    /// Its container has ended or is given up, or something else is wanted.
    Interrupted,
}

/// A task could not be put into the mesh. It was said why.
struct Unreachable;

/// Drives one task until nothing of it is left. Dropping it leaves the container as it is.
pub(crate) struct Controller {
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    /// Its templates are filled in.
    task: Task,
    /// Why they are not.
    flaw: Option<String>,
    container: ContainerId,
    status: TaskStatus,
    file: PathBuf,
    /// Its health checks, while its container runs and should.
    checks: Option<Checks>,
    /// Its health checks have said that it does not do its work, and that stays so.
    given_up: bool,
}

impl Controller {
    /// For a task that `wanted` tells of. Goes on from the status on disk if there is one.
    pub(crate) fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>) -> Result<Self, AgentError> {
        let given = wanted.borrow().task.clone();
        let (task, flaw) = match context.expanded(&given) {
            Ok(task) => (task, None),
            Err(flaw) => (given, Some(flaw.to_string())),
        };
        let file = context.tasks_dir.join(format!("{}.json", task.id));
        let status = disk::read_json(&file)?.unwrap_or_else(|| task.status.clone());
        let container = containers::container_id(&task.id);
        context.reporter.update(&task.id, status.clone());
        let health = health::known(&context.tasks_dir, &task.id);
        let given_up = health.is_some_and(|health| health.state == HealthState::Unhealthy);
        Ok(Self { context, wanted, task, flaw, container, status, file, checks: None, given_up })
    }

    /// Runs until managers have forgotten the task and nothing of it is left.
    pub(crate) async fn run(mut self) {
        loop {
            let desired = self.wanted.borrow_and_update().desired();
            let action = match self.container_state().await {
                Ok(container) => next(self.status.state, desired, container),
                Err(e) => {
                    self.reject(&e.to_string()).await;
                    continue;
                }
            };
            debug!(task = %self.task.id, ?action, state = ?self.status.state, ?desired, "next");
            match action {
                Action::Accept => self.say(TaskState::Accepted, "accepted"),
                Action::Prepare => self.prepare().await,
                Action::MarkReady => self.say(TaskState::Ready, "prepared"),
                Action::Start => self.start().await,
                Action::MarkRunning => self.mark_running().await,
                Action::Watch => self.watch().await,
                Action::Stop => self.stop().await,
                Action::Settle(ending) => self.settle(ending).await,
                Action::Wait if self.is_forgotten() => break,
                Action::Wait => {
                    if self.wanted.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        self.erase().await;
    }

    fn is_forgotten(&self) -> bool {
        self.status.state.is_terminal() && self.wanted.borrow().removed
    }

    async fn container_state(&mut self) -> Result<Container, RuntimeError> {
        self.given_up |= self.checks.as_ref().is_some_and(Checks::is_given_up);
        Ok(match self.context.runtime.state(&self.container).await? {
            None => Container::Absent,
            Some(ContainerState::Created) => Container::Created,
            Some(ContainerState::Running { .. }) if self.given_up => Container::Unhealthy,
            Some(ContainerState::Running { .. }) => Container::Running,
            Some(ContainerState::Exited(exit)) if self.given_up => Container::GivenUp(exit.code),
            Some(ContainerState::Exited(exit)) => Container::Exited(exit.code),
        })
    }

    fn say(&mut self, state: TaskState, message: &str) {
        self.status = TaskStatus {
            timestamp: Timestamp::now(),
            state,
            message: message.to_owned(),
            err: None,
            container: self.status.container.take(),
            host_ports: std::mem::take(&mut self.status.host_ports),
        };
        self.publish_status();
    }

    fn publish_status(&self) {
        // Losing the copy costs a repeated step after a restart, not the task: go on.
        if let Err(e) = disk::write_json(&self.file, &self.status) {
            warn!(task = %self.task.id, "{e}");
        }
        self.context.reporter.update(&self.task.id, self.status.clone());
    }

    async fn prepare(&mut self) {
        self.say(TaskState::Preparing, "preparing");
        if let Some(flaw) = self.flaw.clone() {
            return self.reject(&flaw).await;
        }
        let image = match self.image().await {
            Some(Ok(image)) => image,
            Some(Err(e)) => return self.reject(&e.to_string()).await,
            None => return,
        };
        let files = match self.await_files().await {
            Some(Ok(files)) => files,
            Some(Err(e)) => return self.reject(&e.to_string()).await,
            None => return,
        };
        match self.context.prepare(&self.task, &self.container, &image, files).await {
            Ok(host_ports) => {
                self.status.host_ports = host_ports;
                self.status.container = Some(self.container_status(0, None));
            }
            Err(e) => self.reject(&e.to_string()).await,
        }
    }

    /// The task's image, which may take its time to come. `None` when the task is to stop before.
    async fn image(&mut self) -> Option<Result<ReadyImage, StepError>> {
        let (context, task) = (self.context.clone(), self.task.clone());
        let local = match context.images.local(&task).await {
            Local::Image(image) => return Some(Ok(image)),
            local => local,
        };
        self.say(TaskState::Preparing, &format!("pulling image {}", task.spec.container.image));
        let mut pulling = std::pin::pin!(context.images.pull(&task, local));
        loop {
            tokio::select! {
                pulled = &mut pulling => return Some(pulled),
                Ok(()) = self.wanted.changed() => {
                    if self.wanted.borrow().desired() > TaskState::Running {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits until managers have handed over the task's secrets and configs; `None` when something else is wanted before. After a restart of
    /// the daemon they come once a manager is in reach.
    async fn await_files(&mut self) -> Option<Result<Vec<ContainerFile>, StepError>> {
        let mut handed = self.context.assignments.clone();
        loop {
            handed.mark_unchanged();
            if let Some(files) = self.context.files(&self.task) {
                return Some(files);
            }
            self.say(TaskState::Preparing, "waiting for secrets and configs from a manager");
            tokio::select! {
                changed = handed.changed() => changed.ok()?,
                _ = self.wanted.changed() => return None,
            }
        }
    }

    fn container_status(&self, pid: i32, exit_code: Option<i32>) -> ContainerStatus {
        ContainerStatus { id: self.container.to_string(), pid, exit_code }
    }

    /// The node cannot run the task.
    async fn reject(&mut self, reason: &str) {
        warn!(task = %self.task.display_name(), "rejected: {reason}");
        self.release().await;
        self.say(TaskState::Rejected, "preparing");
        self.status.err = Some(reason.to_owned());
        self.publish_status();
    }

    async fn start(&mut self) {
        self.say(TaskState::Starting, "starting");
        if let Err(e) = self.context.start(&self.task, &self.container, &self.status.host_ports).await {
            self.release().await;
            self.say(TaskState::Failed, "starting");
            self.status.err = Some(e.to_string());
            self.publish_status();
        }
    }

    /// A task counts as running once it takes connections, and not before: an update that trusts it goes on to stop another one.
    async fn mark_running(&mut self) {
        let pid = match self.context.runtime.state(&self.container).await {
            Ok(Some(ContainerState::Running { pid })) => pid,
            _ => return,
        };
        if let Readiness::Ready = self.become_ready().await {
            self.status.container = Some(self.container_status(pid, None));
            self.say(TaskState::Running, "started");
        }
    }

    /// Until the container ends or something else is wanted.
    async fn watch(&mut self) {
        if let Readiness::Ready = self.become_ready().await {
            let runtime = self.context.runtime.clone();
            let ended = async {
                // Nobody is to be sent to a dead process while its end is written down.
                if runtime.dead(&self.container).await.is_ok() {
                    self.context.announce(&self.task, EndpointState::Draining);
                }
                runtime.wait(&self.container).await
            };
            tokio::select! {
                _ = ended => {}
                () = health::given_up(self.health()) => {}
                _ = self.wanted.changed() => {}
            }
        }
    }

    fn health(&self) -> Option<watch::Receiver<Health>> {
        self.checks.as_ref().map(Checks::health)
    }

    /// Has its health checked from now on, where service or image say how.
    async fn check_health(&mut self) {
        if self.checks.is_some() {
            return;
        }
        let Some(check) = self.context.health_check(&self.task).await else { return };
        let (runtime, container) = (self.context.runtime.clone(), self.container.clone());
        match Checks::go_on(runtime, container, check, (&self.context.tasks_dir, &self.task.id)) {
            Ok(checks) => {
                self.context.show_health(&self.task.id, checks.health());
                self.checks = Some(checks);
            }
            // Without them it could never count as healthy.
            Err(e) => warn!(task = %self.task.display_name(), "its health is not checked yet: {e}"),
        }
    }

    /// Waits until the task is healthy, where that is checked, and listens; gives it connections from then on.
    async fn become_ready(&mut self) -> Readiness {
        self.check_health().await;
        let (context, task, health) = (self.context.clone(), self.task.clone(), self.health());
        loop {
            let waited = match open(context.endpoint(&task)) {
                Step::Enter(state) => match self.enter(state).await {
                    Ok(()) => continue,
                    Err(Unreachable) => self.unless_interrupted(sleep(RETRY)).await,
                },
                Step::AwaitListening => {
                    let able = async {
                        health::decided(health.clone()).await;
                        readiness::until_ready(&context, &task).await;
                    };
                    let listening = self.unless_interrupted(able).await;
                    if let Readiness::Ready = listening {
                        context.announce(&task, EndpointState::Ready);
                    }
                    listening
                }
                _ => return Readiness::Ready,
            };
            if let Readiness::Interrupted = waited {
                return waited;
            }
        }
    }

    /// Waits for something, unless the container ends or is given up, or something else is wanted before.
    async fn unless_interrupted(&mut self, waiting: impl Future<Output = ()>) -> Readiness {
        let (runtime, health) = (self.context.runtime.clone(), self.health());
        tokio::select! {
            biased;
            () = health::given_up(health) => Readiness::Interrupted,
            _ = runtime.wait(&self.container) => Readiness::Interrupted,
            _ = self.wanted.changed() => Readiness::Interrupted,
            () = waiting => Readiness::Ready,
        }
    }

    /// After a restart of the daemon: the mesh learns again what runs here.
    async fn enter(&self, state: EndpointState) -> Result<(), Unreachable> {
        let entered = self.context.enter_mesh(&self.task, &self.status.host_ports, state).await;
        entered.map_err(|e| {
            warn!(task = %self.task.display_name(), "not in the mesh: {e}");
            Unreachable
        })
    }

    async fn stop(&mut self) {
        self.checks = None;
        let runtime = self.context.runtime.clone();
        if let Step::Enter(state) = close(self.context.endpoint(&self.task)) {
            // It is told to stop even when its flows cannot be cared for.
            let _ = self.enter(state).await;
        }
        let mut ended = std::pin::pin!(runtime.wait(&self.container));
        tokio::select! {
            _ = &mut ended => return,
            () = self.context.retire(&self.task) => {}
        }
        let signal = self.context.stop_signal(&self.task).await;
        self.signal(signal).await;
        if timeout(self.task.spec.container.grace_period(), &mut ended).await.is_ok() {
            return;
        }
        self.signal(SIGKILL).await;
        if let Err(e) = ended.await {
            warn!(task = %self.task.display_name(), "{e}");
        }
    }

    async fn signal(&self, signal: i32) {
        if let Err(e) = self.context.runtime.signal(&self.container, signal).await {
            warn!(task = %self.task.display_name(), "{e}");
        }
    }

    async fn settle(&mut self, ending: Ending) {
        self.checks = None;
        self.release().await;
        self.status.container = Some(self.container_status(0, ending.exit_code()));
        let message = match ending {
            Ending::Shutdown(_) => "shutdown",
            Ending::Complete => "finished",
            Ending::Failed(_) | Ending::Unhealthy(_) => "started",
        };
        self.say(ending.state(), message);
        let reason = match ending {
            Ending::Shutdown(_) | Ending::Complete => return,
            Ending::Failed(Some(code)) => format!("task: non-zero exit ({code})"),
            Ending::Failed(None) => "task: its container is gone, and nobody saw how it ended".to_owned(),
            Ending::Unhealthy(_) => health::verdict(&self.context.tasks_dir, &self.task.id),
        };
        self.status.err = Some(reason);
        self.publish_status();
    }

    /// Out of the mesh, off the network. The container's logs stay until managers forget the task.
    async fn release(&self) {
        for e in self.context.release(&self.task).await {
            warn!(task = %self.task.display_name(), "{e}");
        }
    }

    async fn erase(&self) {
        if let Err(e) = self.context.runtime.remove(&self.container).await {
            warn!(task = %self.task.display_name(), "{e}");
        }
        for file in [&self.file, &health::file(&self.context.tasks_dir, &self.task.id)] {
            if let Err(e) = disk::remove(file) {
                warn!("{e}");
            }
        }
        self.context.forget_health(&self.task.id);
        self.context.reporter.forget(&self.task.id);
    }
}

#[cfg(test)]
pub(crate) mod tests;
