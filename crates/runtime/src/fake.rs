//! A runtime in memory, for tests of those who use one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use skep_model::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::container::{
    Container, ContainerId, ContainerInfo, ContainerState, Exit, LogLine, LogOptions, Pid, Runtime,
};
use crate::error::RuntimeError;

/// Containers that exist in memory only. They run until [`FakeRuntime::exit`] or a signal ends them, and their failures are scripted.
#[derive(Debug)]
pub struct FakeRuntime {
    state: Mutex<State>,
    /// Counts changes, to wake those who wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<ContainerId, Fake>,
    fail_prepare: BTreeMap<ContainerId, String>,
    fail_start: BTreeMap<ContainerId, String>,
    deaf: bool,
    started: u32,
    signals: Vec<(ContainerId, i32)>,
}

#[derive(Debug)]
struct Fake {
    container: Container,
    created: Timestamp,
    state: ContainerState,
    lines: Vec<LogLine>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl FakeRuntime {
    /// A runtime without containers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next [`Runtime::prepare`] of this container fails with `reason`.
    pub fn fail_prepare(&self, id: &ContainerId, reason: &str) {
        self.state().fail_prepare.insert(id.clone(), reason.to_owned());
    }

    /// The next [`Runtime::start`] of this container fails with `reason`.
    pub fn fail_start(&self, id: &ContainerId, reason: &str) {
        self.state().fail_start.insert(id.clone(), reason.to_owned());
    }

    /// From now on containers take no notice of any signal but `SIGKILL`.
    pub fn ignore_signals(&self) {
        self.state().deaf = true;
    }

    /// Ends a container that runs; `None` is an exit that nobody saw. Does nothing for others.
    pub fn exit(&self, id: &ContainerId, code: Option<i32>) {
        self.change(|state| {
            if let Some(fake) = state.containers.get_mut(id)
                && matches!(fake.state, ContainerState::Running { .. })
            {
                fake.state = ContainerState::Exited(Exit { code, at: Timestamp::now() });
            }
        });
    }

    /// Has a container write a line.
    pub fn write(&self, id: &ContainerId, line: LogLine) {
        self.change(|state| {
            if let Some(fake) = state.containers.get_mut(id) {
                fake.lines.push(line);
            }
        });
    }

    /// The container as it was prepared.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> Option<Container> {
        self.state().containers.get(id).map(|fake| fake.container.clone())
    }

    /// All signals sent so far, in order.
    #[must_use]
    pub fn signals(&self) -> Vec<(ContainerId, i32)> {
        self.state().signals.clone()
    }

    /// A receiver that changes whenever any container does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_modify(|n| *n += 1);
        result
    }
}

impl State {
    fn get(&mut self, id: &ContainerId) -> Result<&mut Fake, RuntimeError> {
        self.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn prepare(&self, container: Container) -> Result<(), RuntimeError> {
        self.change(|state| {
            if let Some(reason) = state.fail_prepare.remove(&container.id) {
                return Err(RuntimeError::Start(reason));
            }
            let (created, new) = (Timestamp::now(), ContainerState::Created);
            let id = container.id.clone();
            state.containers.entry(id).or_insert(Fake { container, created, state: new, lines: Vec::new() });
            Ok(())
        })
    }

    async fn start(&self, id: &ContainerId) -> Result<Pid, RuntimeError> {
        self.change(|state| {
            if let Some(reason) = state.fail_start.remove(id) {
                return Err(RuntimeError::Start(reason));
            }
            let next = 1000 + i32::try_from(state.started).unwrap_or(0);
            let fake = state.get(id)?;
            match fake.state {
                ContainerState::Running { pid } => return Ok(pid),
                ContainerState::Exited(_) => return Err(RuntimeError::HasRun(id.clone())),
                ContainerState::Created => fake.state = ContainerState::Running { pid: next },
            }
            state.started += 1;
            Ok(next)
        })
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            match self.state().get(id)?.state {
                ContainerState::Exited(exit) => return Ok(exit),
                ContainerState::Created => return Err(RuntimeError::NotRunning(id.clone())),
                ContainerState::Running { .. } => {}
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let ends = self.change(|state| {
            if !matches!(state.get(id)?.state, ContainerState::Running { .. }) {
                return Err(RuntimeError::NotRunning(id.clone()));
            }
            state.signals.push((id.clone(), signal));
            Ok(signal == libc::SIGKILL || !state.deaf)
        })?;
        if ends {
            self.exit(id, Some(128 + signal));
        }
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.change(|state| state.containers.remove(id));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerInfo>, RuntimeError> {
        let state = self.state();
        let info = |(id, fake): (&ContainerId, &Fake)| ContainerInfo {
            id: id.clone(),
            labels: fake.container.labels.clone(),
            created: fake.created,
            state: fake.state,
        };
        Ok(state.containers.iter().map(info).collect())
    }

    async fn logs(&self, id: &ContainerId, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError> {
        let mut lines: Vec<LogLine> =
            self.state().get(id)?.lines.iter().filter(|l| options.wants(l)).cloned().collect();
        if let Some(tail) = options.tail {
            let skip = lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
            lines.drain(..skip);
        }
        let (sender, receiver) = mpsc::channel(lines.len().max(1));
        for line in lines {
            // The channel has room for all of them.
            let _ = sender.try_send(line);
        }
        Ok(receiver)
    }
}
