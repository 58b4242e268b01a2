//! Containers in memory, for tests of those who use a [`Runtime`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use skep_model::usage::{ContainerProcess, ContainerUsage};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Runtime;
use crate::container::{Container, ContainerId, ContainerInfo, ContainerState, Exit, LogLine, LogOptions, LogStream};
use crate::error::RuntimeError;
use crate::exec::{Exec, ExecCommand};

#[derive(Debug, Clone)]
struct Entry {
    container: Container,
    created: Timestamp,
    state: ContainerState,
    logs: Vec<LogLine>,
}

#[derive(Debug, Clone, Default)]
struct Inner {
    containers: BTreeMap<ContainerId, Entry>,
    signals: Vec<(ContainerId, i32)>,
    refused: Option<String>,
    stubborn: bool,
    next_pid: i32,
    execs: Vec<(ContainerId, ExecCommand)>,
    exec: FakeExec,
}

/// How further programs in containers go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeExec {
    /// They write this, and end with this code.
    End(i32, String),
    /// They run until they are dropped.
    Hang,
    /// They cannot be started, for this reason.
    Refuse(String),
}

impl Default for FakeExec {
    fn default() -> Self {
        Self::End(0, String::new())
    }
}

/// A runtime whose containers are entries in a map: they run until [`FakeRuntime::exit`] or a signal ends them.
#[derive(Debug)]
pub struct FakeRuntime {
    inner: watch::Sender<Inner>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self { inner: watch::Sender::new(Inner { next_pid: 1000, ..Inner::default() }) }
    }
}

impl FakeRuntime {
    /// A runtime without containers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends a running container with `code`.
    pub fn exit(&self, id: &ContainerId, code: i32) {
        self.inner.send_modify(|inner| {
            if let Some(entry) = inner.containers.get_mut(id) {
                end(entry, Some(code));
            }
        });
    }

    /// Makes the container write `line` to its standard output.
    pub fn write(&self, id: &ContainerId, line: &str) {
        self.inner.send_modify(|inner| {
            if let Some(entry) = inner.containers.get_mut(id) {
                let line = line.as_bytes().to_vec();
                entry.logs.push(LogLine { timestamp: Timestamp::now(), stream: LogStream::Stdout, line });
            }
        });
    }

    /// Makes every following start fail with `reason`, or succeed again.
    pub fn refuse_starts(&self, reason: Option<&str>) {
        self.inner.send_modify(|inner| inner.refused = reason.map(str::to_owned));
    }

    /// Whether containers ignore every signal except `SIGKILL`.
    pub fn ignore_signals(&self, stubborn: bool) {
        self.inner.send_modify(|inner| inner.stubborn = stubborn);
    }

    /// How every following further program goes.
    pub fn exec_goes(&self, exec: FakeExec) {
        self.inner.send_modify(|inner| inner.exec = exec);
    }

    /// Every further program that was asked for, oldest first.
    #[must_use]
    pub fn execs(&self) -> Vec<(ContainerId, ExecCommand)> {
        self.inner.borrow().execs.clone()
    }

    /// Every signal that was sent, oldest first.
    #[must_use]
    pub fn signals(&self) -> Vec<(ContainerId, i32)> {
        self.inner.borrow().signals.clone()
    }

    /// The container as it was prepared.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> Option<Container> {
        self.inner.borrow().containers.get(id).map(|entry| entry.container.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut result = None;
        self.inner.send_modify(|inner| result = Some(change(inner)));
        result.expect("send_modify calls its argument")
    }
}

fn end(entry: &mut Entry, code: Option<i32>) {
    if matches!(entry.state, ContainerState::Running { .. }) {
        entry.state = ContainerState::Exited(Exit { code, at: Timestamp::now() });
    }
}

impl FakeRuntime {
    /// Whether it runs.
    fn look(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.inner.borrow().containers.get(id).map(|entry| entry.state) {
            Some(ContainerState::Running { .. }) => Ok(()),
            Some(_) => Err(RuntimeError::NotRunning(id.clone())),
            None => Err(RuntimeError::NotFound(id.clone())),
        }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn prepare(&self, container: Container) -> Result<(), RuntimeError> {
        self.change(|inner| {
            inner.containers.entry(container.id.clone()).or_insert(Entry {
                container,
                created: Timestamp::now(),
                state: ContainerState::Created,
                logs: Vec::new(),
            });
        });
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<i32, RuntimeError> {
        self.change(|inner| {
            let entry = inner.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
            match entry.state {
                ContainerState::Running { pid } => Ok(pid),
                ContainerState::Exited(_) => Err(RuntimeError::Ended(id.clone())),
                ContainerState::Created => {
                    if let Some(reason) = &inner.refused {
                        return Err(RuntimeError::Start { id: id.clone(), reason: reason.clone() });
                    }
                    inner.next_pid += 1;
                    entry.state = ContainerState::Running { pid: inner.next_pid };
                    Ok(inner.next_pid)
                }
            }
        })
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, RuntimeError> {
        Ok(self.inner.borrow().containers.get(id).map(|entry| entry.state))
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let mut changes = self.inner.subscribe();
        loop {
            match changes.borrow_and_update().containers.get(id).map(|entry| entry.state) {
                None => return Err(RuntimeError::NotFound(id.clone())),
                Some(ContainerState::Exited(exit)) => return Ok(exit),
                Some(_) => {}
            }
            if changes.changed().await.is_err() {
                return Err(RuntimeError::NotFound(id.clone()));
            }
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        self.change(|inner| {
            let entry = inner.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
            inner.signals.push((id.clone(), signal));
            if signal == libc::SIGKILL || !inner.stubborn {
                end(entry, Some(128 + signal));
            }
            Ok(())
        })
    }

    async fn exec(&self, id: &ContainerId, command: ExecCommand) -> Result<Exec, RuntimeError> {
        let goes = self.change(|inner| {
            let entry = inner.containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
            if !matches!(entry.state, ContainerState::Running { .. }) {
                return Err(RuntimeError::NotRunning(id.clone()));
            }
            inner.execs.push((id.clone(), command));
            inner.next_pid += 1;
            Ok((inner.exec.clone(), inner.next_pid))
        });
        let (goes, pid) = goes?;
        let (sender, output) = mpsc::channel(1);
        let (ends, ended) = oneshot::channel();
        let (alive, gone) = oneshot::channel::<()>();
        match goes {
            FakeExec::Refuse(reason) => return Err(RuntimeError::Exec { id: id.clone(), reason }),
            FakeExec::End(code, text) => {
                // Nobody has gone yet, and there is room for one piece.
                let _ = sender.try_send((LogStream::Stdout, text.into_bytes()));
                let _ = ends.send(Some(code));
            }
            FakeExec::Hang => drop(tokio::spawn(async move {
                let _ = gone.await;
                drop(sender);
                let _ = ends.send(Some(137));
            })),
        }
        Ok(Exec { pid, input: None, output, terminal: None, ended, _alive: alive })
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.change(|inner| inner.containers.remove(id));
        Ok(())
    }

    async fn usage(&self, id: &ContainerId) -> Result<ContainerUsage, RuntimeError> {
        self.look(id).map(|()| ContainerUsage::default())
    }

    async fn processes(&self, id: &ContainerId) -> Result<Vec<ContainerProcess>, RuntimeError> {
        self.look(id).map(|()| Vec::new())
    }

    async fn list(&self) -> Result<Vec<ContainerInfo>, RuntimeError> {
        let inner = self.inner.borrow();
        let info = |entry: &Entry| ContainerInfo {
            id: entry.container.id.clone(),
            labels: entry.container.labels.clone(),
            created: entry.created,
            image: entry.container.image,
            command: [&entry.container.spec.command[..], &entry.container.spec.args[..]].concat(),
            hostname: entry.container.hostname.clone(),
            netns: entry.container.netns.clone(),
            volumes: BTreeMap::new(),
            state: entry.state,
        };
        Ok(inner.containers.values().map(info).collect())
    }

    async fn logs(&self, id: &ContainerId, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError> {
        let mut changes = self.inner.subscribe();
        let wanted = move |entry: &Entry| -> Vec<LogLine> {
            entry.logs.iter().filter(|l| options.wants(l.timestamp, l.stream)).cloned().collect()
        };
        let mut lines = changes
            .borrow_and_update()
            .containers
            .get(id)
            .map(wanted)
            .ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
        let mut seen = lines.len();
        if let Some(tail) = options.tail {
            lines.drain(..lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        }
        let (sender, receiver) = mpsc::channel(64);
        let id = id.clone();
        tokio::spawn(async move {
            loop {
                for line in lines.drain(..) {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                let entry = changes.borrow_and_update().containers.get(&id).cloned();
                let Some(entry) = entry.filter(|_| options.follow) else { return };
                lines = wanted(&entry).split_off(seen);
                seen += lines.len();
                if lines.is_empty() {
                    let ended = matches!(entry.state, ContainerState::Exited(_));
                    let changed = async { changes.changed().await.is_ok() };
                    if ended || !tokio::select! { changed = changed => changed, () = sender.closed() => false } {
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}
