//! Containers as their directories and the kernel show them. Everything here blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use skep_model::Timestamp;

use super::program::Program;
use super::{EmbeddedConfig, Shim};
use crate::bundle::{self, Places, memory};
use crate::cgroup;
use crate::container::{Container, ContainerId, ContainerInfo, ContainerState, Exit};
use crate::error::RuntimeError;
use crate::events::ContainerAction;
use crate::files::{self, CONTAINER, EXIT, Made, Process, SHIM};
use crate::logs::LOGS;
use crate::oci_runtime::OciRuntime;
use crate::shim::{External, STATE};
use crate::volumes::Live;

/// How long a shim may take to end after its container, in milliseconds.
const PATIENCE: u16 = 10_000;

/// Where a container is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// Not started, or being started.
    Created,
    /// It runs, and its shim watches it.
    Running { init: Process, shim: Process },
    /// Its shim is gone and has not said how it ended.
    Lost,
    /// It has ended.
    Exited(Exit),
}

impl Found {
    pub(super) fn state(self) -> ContainerState {
        match self {
            Self::Created | Self::Lost => ContainerState::Created,
            Self::Running { init, .. } => ContainerState::Running { pid: init.pid },
            Self::Exited(exit) => ContainerState::Exited(exit),
        }
    }
}

impl Made {
    pub(super) fn info(self, state: ContainerState) -> ContainerInfo {
        let Self { id, image, labels, created, command, hostname, netns, volumes, .. } = self;
        ContainerInfo { id, labels, created, image, command, hostname, netns, volumes, state }
    }
}

/// The directory of all containers.
#[derive(Debug)]
pub(super) struct Containers {
    config: EmbeddedConfig,
    program: OnceLock<Program>,
    /// Containers whose end nobody has been told of, with their labels.
    live: Mutex<BTreeMap<ContainerId, BTreeMap<String, String>>>,
}

impl Containers {
    pub(super) fn open(mut config: EmbeddedConfig) -> Result<Self, RuntimeError> {
        let root = &mut config.root;
        fs::create_dir_all(&*root).map_err(RuntimeError::io("create", root))?;
        *root = fs::canonicalize(&*root).map_err(RuntimeError::io("resolve", root))?;
        let all = Self { config, program: OnceLock::new(), live: Mutex::default() };
        for id in all.ids()? {
            // One that resists does not keep the daemon from starting; its next use says the same.
            if let Err(e) = all.recover(&id) {
                tracing::warn!(container = %id, "not recovered: {e}");
            }
        }
        all.restore_volumes()?;
        Ok(all)
    }

    /// Which volumes the containers of earlier daemons use.
    fn restore_volumes(&self) -> Result<(), RuntimeError> {
        for made in self.all()? {
            let ended = matches!(self.find(&made.id), Ok(None | Some(Found::Exited(_))));
            if !ended {
                self.live().insert(made.id.clone(), made.labels.clone());
            }
            let names = made.volumes.into_values().collect();
            self.config.volumes.restore(&made.id, &names, if ended { Live::No } else { Live::Yes });
        }
        self.config.volumes.settle();
        Ok(())
    }

    fn recover(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        if files::read::<Made>(&dir, CONTAINER)?.is_none() {
            // Half made or half removed.
            return self.remove(id);
        }
        match self.settle(id)? {
            Some(Found::Created) if dir.join(SHIM).exists() => self.take_back(id),
            _ => Ok(()),
        }
    }

    pub(super) fn dir(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join(id.as_str())
    }

    /// Its cgroup, from the root of each hierarchy.
    pub(super) fn cgroup(&self, id: &ContainerId) -> String {
        cgroup::path(&self.config.cgroup_parent, id)
    }

    fn ids(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        let failed = || RuntimeError::io("read", &self.config.root);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.config.root).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// All that are prepared, in the order of their ids.
    pub(super) fn all(&self) -> Result<Vec<Made>, RuntimeError> {
        let mut all = Vec::new();
        for id in self.ids()? {
            match files::read::<Made>(&self.dir(&id), CONTAINER) {
                Ok(made) => all.extend(made),
                Err(e) => tracing::warn!(container = %id, "left out of the list: {e}"),
            }
        }
        Ok(all)
    }

    pub(super) fn prepare(&self, container: &Container) -> Result<(), RuntimeError> {
        let dir = self.dir(&container.id);
        if dir.join(CONTAINER).exists() {
            return Ok(());
        }
        self.wipe(&dir)?;
        let made = self.make(&dir, container);
        if made.is_err() {
            // The first error is the one to tell; what stays is wiped by the next attempt.
            let _ = self.wipe(&dir);
            self.config.volumes.forget(&container.id);
        }
        made
    }

    fn make(&self, dir: &Path, container: &Container) -> Result<(), RuntimeError> {
        let image = self.config.images.find(&container.image.to_string())?.config;
        let command = bundle::args(&container.spec, &image)?;
        if let Some(OciRuntime { program, init: None }) = &self.config.oci_runtime
            && container.spec.init == Some(true)
        {
            return Err(RuntimeError::NoInit(program.clone()));
        }
        let logs = dir.join(LOGS);
        fs::create_dir_all(&logs).map_err(RuntimeError::io("create", &logs))?;
        let rootfs = self.config.images.mount(&container.image, dir)?;
        let cgroup = cgroup::path(&self.config.cgroup_parent, &container.id);
        let (id, volumes) = (&container.id, &*self.config.volumes);
        let places = Places { dir, rootfs: &rootfs, id, volumes, cgroup: &cgroup };
        let volumes = bundle::write(&places, container, &image)?;
        let made = Made {
            id: container.id.clone(),
            image: container.image,
            labels: container.labels.clone(),
            created: Timestamp::now(),
            command,
            hostname: container.hostname.clone(),
            netns: container.netns.clone(),
            cgroup,
            open_stdin: container.spec.open_stdin,
            tty: container.spec.tty,
            oci_runtime: self.config.oci_runtime.clone(),
            groups: container.spec.groups.clone(),
            in_memory: !container.files.is_empty(),
            volumes,
        };
        files::write(dir, CONTAINER, &made)?;
        self.live().insert(made.id.clone(), made.labels.clone());
        self.tell(&made.id, ContainerAction::Create);
        Ok(())
    }

    /// Where the container is; `None` when there is none.
    pub(super) fn find(&self, id: &ContainerId) -> Result<Option<Found>, RuntimeError> {
        let dir = self.dir(id);
        if let Some(exit) = files::read(&dir, EXIT)? {
            return Ok(dir.join(CONTAINER).exists().then_some(Found::Exited(exit)));
        }
        if !dir.join(CONTAINER).exists() {
            return Ok(None);
        }
        let Some(files::Shim { shim, init: Some(init) }) = files::read(&dir, SHIM)? else {
            return Ok(Some(Found::Created));
        };
        if shim.alive() {
            return Ok(Some(Found::Running { init, shim }));
        }
        // It may have written the file and ended between the two looks.
        Ok(Some(files::read(&dir, EXIT)?.map_or(Found::Lost, Found::Exited)))
    }

    /// As [`Self::find`]; what is mounted for a container that has ended is unmounted.
    pub(super) fn look(&self, id: &ContainerId) -> Result<Option<Found>, RuntimeError> {
        let found = self.find(id)?;
        if let Some(Found::Exited(exit)) = found {
            self.config.volumes.release(id);
            self.ended(id, exit.code);
        }
        Ok(found)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<ContainerId, BTreeMap<String, String>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has happened to a container whose end was not told of yet.
    pub(super) fn tell(&self, id: &ContainerId, action: ContainerAction) {
        if let Some(labels) = self.live().get(id) {
            self.config.events.container(id, labels, action);
        }
    }

    /// Tells of the end of a container, once.
    fn ended(&self, id: &ContainerId, code: Option<i32>) {
        if let Some(labels) = self.live().remove(id) {
            self.config.events.container(id, &labels, ContainerAction::Die(code));
        }
    }

    /// As [`Self::find`], but ends a container whose shim is gone: its output has nowhere to go and its end nobody to see it.
    pub(super) fn settle(&self, id: &ContainerId) -> Result<Option<Found>, RuntimeError> {
        let Some(Found::Lost) = self.find(id)? else { return self.find(id) };
        self.kill(id)?;
        let exit = Exit { code: None, at: Timestamp::now() };
        files::write(&self.dir(id), EXIT, &exit)?;
        self.clear(id)?;
        memory::drop_files(&self.dir(id))?;
        self.config.volumes.release(id);
        self.ended(id, exit.code);
        Ok(Some(Found::Exited(exit)))
    }

    /// Kills shim and container.
    fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let shim = files::read::<files::Shim>(&self.dir(id), SHIM).ok().flatten();
        let init = shim.and_then(|shim| shim.init);
        if let Some(files::Shim { shim, init: None }) = shim {
            // In the middle of a start: it goes first, so that it cannot take the end of the container for one of its own.
            shim.signal(libc::SIGKILL);
            shim.ended_within(PATIENCE);
        }
        if let Some(init) = init {
            init.signal(libc::SIGKILL);
        }
        cgroup::kill(id, &cgroup::path(&self.config.cgroup_parent, id))?;
        if init.is_some_and(|init| !init.ended_within(PATIENCE)) {
            return Err(RuntimeError::Unkillable { id: id.clone(), pids: init.iter().map(|p| p.pid).collect() });
        }
        let Some(files::Shim { shim, .. }) = shim else { return Ok(()) };
        // It ends with its container, after writing down how; one that hangs is not waited for.
        if !shim.ended_within(PATIENCE) {
            shim.signal(libc::SIGKILL);
            shim.ended_within(PATIENCE);
        }
        Ok(())
    }

    /// Takes away what only a running container needs.
    fn clear(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        let made = files::read::<Made>(&dir, CONTAINER).ok().flatten();
        if let Some(runtime) = made.as_ref().and_then(|made| External::of(&dir, made)) {
            runtime.delete();
        }
        cgroup::clear(id, &cgroup::path(&self.config.cgroup_parent, id))?;
        files::delete_dir(&self.dir(id).join(STATE))
    }

    /// Makes a start undone that was broken off.
    pub(super) fn take_back(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.kill(id)?;
        self.clear(id)?;
        files::delete(&self.dir(id), SHIM)
    }

    /// A start has failed: what is mounted for the container is not needed until the next one.
    pub(super) fn rest(&self, id: &ContainerId) {
        self.config.volumes.release(id);
    }

    /// The directory of a container that can be started: mounted again after the machine was.
    pub(super) fn ready(&self, id: &ContainerId) -> Result<PathBuf, RuntimeError> {
        let dir = self.dir(id);
        let made: Made = files::read(&dir, CONTAINER)?.ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
        let netns = |source| RuntimeError::NoNetns { path: made.netns.clone(), source };
        fs::metadata(&made.netns).map_err(netns)?;
        if made.in_memory && !memory::is_there(&dir) {
            return Err(RuntimeError::FilesGone(id.clone()));
        }
        self.config.images.mount(&made.image, &dir)?;
        self.config.volumes.take_again(id, &made.volumes.into_values().collect())?;
        Ok(dir)
    }

    pub(super) fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        self.kill(id)?;
        cgroup::clear(id, &cgroup::path(&self.config.cgroup_parent, id))?;
        let made: Option<Made> = files::read(&dir, CONTAINER).ok().flatten();
        // It may have died of this, which is told; one that was never started has not.
        let _ = self.look(id);
        self.live().remove(id);
        // Whoever sees that it is gone may remove its volumes.
        self.config.volumes.forget(id);
        // From here on there is no such container, whatever happens.
        files::delete(&dir, CONTAINER)?;
        if let Some(made) = made {
            self.config.events.container(id, &made.labels, ContainerAction::Destroy);
        }
        self.wipe(&dir)
    }

    fn wipe(&self, dir: &Path) -> Result<(), RuntimeError> {
        if dir.exists() {
            memory::drop_files(dir)?;
            self.config.images.unmount(dir)?;
        }
        files::delete_dir(dir)
    }

    /// The path of the shim's program, for children of this process.
    pub(super) fn program(&self) -> Result<PathBuf, RuntimeError> {
        if let Some(program) = self.program.get() {
            return Ok(program.path());
        }
        let path = match &self.config.shim {
            Shim::Myself => Path::new("/proc/self/exe"),
            Shim::Program(path) => path,
        };
        let copy = Program::copy(path).map_err(RuntimeError::io("copy", path))?;
        Ok(self.program.get_or_init(|| copy).path())
    }
}
