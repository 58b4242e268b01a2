//! The runtime of real containers.

mod exec;
mod files_of;
mod program;

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use skep_model::usage::{ContainerProcess, ContainerUsage};
use tokio::sync::{OwnedMutexGuard, mpsc, watch};

use crate::Runtime;
use crate::container::{Container, ContainerId, ContainerInfo, ContainerState, Exit, LogLine, LogOptions};
use crate::error::RuntimeError;
use crate::events::{ContainerAction, NodeEvents};
use crate::exec::{Exec, ExecCommand};
use crate::files::{self, Process};
use crate::images::Images;
use crate::logs;
use crate::oci_runtime::OciRuntime;
use crate::shim::Report;
use crate::volumes::Volumes;
use crate::{cgroup, usage};
use files_of::{Containers, Found};

/// Which program is the shim of a container.
#[derive(Debug, Clone)]
pub enum Shim {
    /// The one that runs now, with `shim` as its first argument: its `main` must call [`crate::shim_main`] then.
    Myself,
    /// The one at this path, in the same way.
    Program(PathBuf),
}

/// What [`Embedded`] works with.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The directory of the containers; made when absent.
    pub root: PathBuf,
    /// The volumes of the node.
    pub volumes: Arc<Volumes>,
    /// Where root file systems come from.
    pub images: Arc<Images>,
    /// The cgroup that containers' cgroups are made in, from the root of each hierarchy: `skep`.
    pub cgroup_parent: String,
    /// The shim's program.
    pub shim: Shim,
    /// What makes containers, where it is not libcontainer.
    pub oci_runtime: Option<OciRuntime>,
    /// Where what happens to containers is told.
    pub events: NodeEvents,
}

/// Runs containers, each in a shim of its own. See the crate's description.
#[derive(Debug)]
pub struct Embedded {
    containers: Arc<Containers>,
    /// One lock for each container, so that what changes it happens one after the other.
    locks: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    /// Told about every start and removal, for those who wait for a container that is not started yet.
    changes: watch::Sender<()>,
}

impl Embedded {
    /// Opens the runtime, finds what an earlier daemon left, finishes what it had begun to remove, and takes back starts that
    /// nobody was told about. It may block for some milliseconds for each container.
    ///
    /// # Errors
    /// When the directories cannot be made or read.
    pub fn open(config: EmbeddedConfig) -> Result<Self, RuntimeError> {
        let containers = Containers::open(config)?;
        Ok(Self { containers: Arc::new(containers), locks: Mutex::default(), changes: watch::Sender::new(()) })
    }

    async fn lock(&self, id: &ContainerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds are not needed any more.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(id.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Does `work` on a container, alone with it, where it may block. It is finished even when the caller goes away.
    async fn alone<T: Send + 'static>(
        &self,
        id: &ContainerId,
        work: impl FnOnce(&Containers, &ContainerId) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let guard = self.lock(id).await;
        let (containers, id, changes) = (self.containers.clone(), id.clone(), self.changes.clone());
        blocking(move || {
            let _guard = guard;
            let result = work(&containers, &id);
            changes.send_replace(());
            result
        })
        .await
    }

    /// The first process of a container that runs.
    async fn running(&self, id: &ContainerId) -> Result<Process, RuntimeError> {
        match self.find(id).await? {
            Some(Found::Running { init, .. }) => Ok(init),
            Some(_) => Err(RuntimeError::NotRunning(id.clone())),
            None => Err(RuntimeError::NotFound(id.clone())),
        }
    }

    /// Where the container is. The death of a shim is noticed here, and written down.
    async fn find(&self, id: &ContainerId) -> Result<Option<Found>, RuntimeError> {
        let (containers, owned) = (self.containers.clone(), id.clone());
        match blocking(move || containers.look(&owned)).await? {
            Some(Found::Lost) => self.alone(id, Containers::settle).await,
            found => Ok(found),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| Err(RuntimeError::BrokenOff(e.to_string())))
}

/// Returns when the process has ended.
async fn ended(id: &ContainerId, process: Process) -> Result<(), RuntimeError> {
    let failed =
        |e: std::io::Error| RuntimeError::Shim { id: id.clone(), reason: format!("it cannot be watched: {e}") };
    if let Some(fd) = process.open() {
        drop(files::watch(fd).map_err(failed)?.readable().await.map_err(failed)?);
    }
    Ok(())
}

/// Starts a container that is created.
fn start(containers: &Containers, id: &ContainerId) -> Result<i32, RuntimeError> {
    begin(containers, id).inspect_err(|_| containers.rest(id))
}

fn begin(containers: &Containers, id: &ContainerId) -> Result<i32, RuntimeError> {
    match containers.settle(id)? {
        None => return Err(RuntimeError::NotFound(id.clone())),
        Some(Found::Running { init, .. }) => return Ok(init.pid),
        Some(Found::Exited(_)) => return Err(RuntimeError::Ended(id.clone())),
        Some(Found::Created | Found::Lost) => {}
    }
    let dir = containers.ready(id)?;
    let failed = |reason: String| RuntimeError::Shim { id: id.clone(), reason };
    let words =
        std::fs::File::create(dir.join("shim.log")).map_err(RuntimeError::io("create", &dir.join("shim.log")))?;
    let mut child = Command::new(containers.program()?)
        .arg("shim")
        .arg(&dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(words)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let mut report = Vec::new();
    let told = child.stdout.take().map_or(Ok(0), |mut out| out.read_to_end(&mut report));
    let status = child.wait();
    told.map_err(|e| failed(e.to_string()))?;
    match serde_json::from_slice(&report) {
        Ok(Report::Started(pid)) => {
            containers.tell(id, ContainerAction::Start);
            Ok(pid)
        }
        Ok(Report::Failed(reason)) => Err(RuntimeError::Start { id: id.clone(), reason }),
        Err(_) => {
            containers.take_back(id)?;
            let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
            let words = std::fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
            Err(failed(format!("it went away without a word ({status}) {}", words.trim())))
        }
    }
}

#[async_trait]
impl Runtime for Embedded {
    async fn prepare(&self, container: Container) -> Result<(), RuntimeError> {
        let id = container.id.clone();
        self.alone(&id, move |containers, _| containers.prepare(&container)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<i32, RuntimeError> {
        self.alone(id, start).await
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, RuntimeError> {
        Ok(self.find(id).await?.map(Found::state))
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let mut changes = self.changes.subscribe();
        loop {
            // Seen before the look, so that no change falls between.
            changes.mark_unchanged();
            match self.find(id).await? {
                None => return Err(RuntimeError::NotFound(id.clone())),
                Some(Found::Exited(exit)) => return Ok(exit),
                Some(Found::Running { shim, .. }) => ended(id, shim).await?,
                // The sender lives as long as this runtime.
                Some(Found::Created | Found::Lost) => drop(changes.changed().await),
            }
        }
    }

    async fn dead(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.find(id).await? {
            Some(Found::Running { init, .. }) => ended(id, init).await,
            _ => self.wait(id).await.map(|_| ()),
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        if !(1..=crate::signal::MAX).contains(&signal) {
            return Err(RuntimeError::BadSignal(signal.to_string()));
        }
        match self.find(id).await? {
            None => return Err(RuntimeError::NotFound(id.clone())),
            Some(Found::Running { init, .. }) => init.signal(signal),
            Some(_) => {}
        }
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.alone(id, Containers::remove).await
    }

    async fn exec(&self, id: &ContainerId, command: ExecCommand) -> Result<Exec, RuntimeError> {
        // Noticed here when its shim has died.
        self.find(id).await?;
        let (containers, owned) = (self.containers.clone(), id.clone());
        let begun = blocking(move || exec::begin(&containers, &owned, command)).await?;
        begun.follow().map_err(|e| RuntimeError::Shim { id: id.clone(), reason: e.to_string() })
    }

    async fn usage(&self, id: &ContainerId) -> Result<ContainerUsage, RuntimeError> {
        let init = self.running(id).await?;
        let cgroup = self.containers.cgroup(id);
        blocking(move || Ok(usage::of(cgroup::dirs(&cgroup), init.pid))).await
    }

    async fn processes(&self, id: &ContainerId) -> Result<Vec<ContainerProcess>, RuntimeError> {
        self.running(id).await?;
        let cgroup = self.containers.cgroup(id);
        blocking(move || Ok(usage::processes(&cgroup::pids(&cgroup)))).await
    }

    async fn list(&self) -> Result<Vec<ContainerInfo>, RuntimeError> {
        let containers = self.containers.clone();
        let mut all = Vec::new();
        for made in blocking(move || containers.all()).await? {
            // Removed meanwhile, or damaged: the others are shown all the same.
            let state = match self.find(&made.id).await {
                Ok(Some(found)) => found.state(),
                Ok(None) => continue,
                Err(e) => {
                    tracing::warn!(container = %made.id, "left out of the list: {e}");
                    continue;
                }
            };
            all.push(made.info(state));
        }
        Ok(all)
    }

    async fn logs(&self, id: &ContainerId, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError> {
        if self.find(id).await?.is_none() {
            return Err(RuntimeError::NotFound(id.clone()));
        }
        logs::read(&self.containers.dir(id), options)
    }
}
