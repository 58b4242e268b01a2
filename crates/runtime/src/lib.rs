//! Images and containers of one node.
//!
//! [`Runtime`] is what the agent knows: prepare a container, start it, wait for its end, remove it. [`Embedded`] does it with
//! the kernel, [`FakeRuntime`] in memory for tests of those above. [`images`] holds what root file systems are made of.
//!
//! A container is a directory below the runtime's root; everything that must survive the daemon is in it:
//!
//! ```text
//! container.json     what was asked for; there once the container is prepared
//! config.json        the OCI bundle, with rootfs/ (an overlay mount) and files/ beside it
//! shim.json          the shim: its process and the container's first process
//! exit.json          how it ended; there once it has ended
//! memory/            files that are in memory alone, as long as it may run (a mount)
//! logs/              what it wrote, with times, rotated
//! state/             libcontainer's own directory; nobody but the shim looks into it
//! ```
//!
//! One small process per container, the **shim**, starts it, is the parent of its first process, pumps its output into the log
//! files and writes down how it ended. Shims do not depend on the daemon: it may stop, crash or be replaced, and finds the
//! containers by reading the directories and watching the shims' pids. A shim runs from a sealed copy of the program in
//! memory, so that nothing in a container can reach the program on disk through `/proc/<pid>/exe`.
//!
//! A further program in a running container has a shim of its own for as long as it runs, and is confined as the first one is.
//!
//! Where the node's operator says so, shims let an [`OciRuntime`] of the machine make their containers, such as runc. Otherwise libcontainer
//! does: it is named here and nowhere else, and only called in shims. What it sets up and what is done by hand in the
//! container's first process right before its program (seccomp, user, capabilities) is told in the `confine` module.
//!
//! The crate never decides which containers there should be, never makes network namespaces, and never fetches images.

pub mod images;

mod bundle;
mod cgroup;
mod confine;
mod container;
mod devices;
mod embedded;
mod error;
mod events;
mod exec;
mod fake;
mod files;
mod logs;
mod message;
mod oci_runtime;
mod seccomp;
mod shim;
mod signal;
mod terminal;
mod usage;
mod volumes;

use async_trait::async_trait;
use skep_model::usage::{ContainerProcess, ContainerUsage};
use tokio::sync::mpsc;

pub use container::{
    BadContainerId, Container, ContainerFile, ContainerId, ContainerInfo, ContainerState, Exit, LogLine, LogOptions,
    LogStream,
};
pub use embedded::{Embedded, EmbeddedConfig, Shim};
pub use error::RuntimeError;
pub use events::{ContainerAction, Happened, NodeEvent, NodeEvents, VolumeAction};
pub use exec::{Exec, ExecCommand, ExecFiles, Stdin, Terminal, TerminalSize};
pub use fake::{FakeExec, FakeRuntime};
pub use oci_runtime::{BadOciRuntime, OciRuntime};
pub use shim::shim_main;
pub use signal::{parse as parse_signal, stop_signal};
pub use volumes::{ANONYMOUS, NewVolume, Volume, VolumeError, Volumes};

/// Containers of this node.
///
/// Every call may be repeated and may be made for containers that an earlier daemon started. Dropping a returned future does
/// no harm: what was begun is finished in the background, and the next call for the same container waits for it.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Mounts the root file system and writes the bundle. Does nothing when the container is prepared already.
    ///
    /// # Errors
    /// Says what in the container's description cannot be done on this node: an image, a user, a mount source that is not there.
    async fn prepare(&self, container: Container) -> Result<(), RuntimeError>;

    /// Starts it and returns the pid of its first process once its program has been executed. The pid of a running container
    /// is returned as it is.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] with the cause; [`RuntimeError::Ended`] when it ran before: containers run once.
    async fn start(&self, id: &ContainerId) -> Result<i32, RuntimeError>;

    /// What it is doing, `None` when there is none of that id. Cheap.
    ///
    /// # Errors
    /// [`RuntimeError::Damaged`] when its files make no sense.
    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, RuntimeError>;

    /// Waits until it has ended; for one that is not started yet, also until it is started.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], also when it is removed without ever having been started.
    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError>;

    /// Waits until its first process is dead. [`Runtime::wait`] takes a little longer: until it is written down how that came.
    ///
    /// # Errors
    /// As for [`Runtime::wait`].
    async fn dead(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.wait(id).await.map(|_| ())
    }

    /// Sends `signal` (its number) to the first process. No error when the container has ended or was never started.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::BadSignal`] for a number that is none.
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError>;

    /// Runs a further program in it, confined as the first one is. Returns once the program has been executed.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::NotRunning`], and [`RuntimeError::Exec`] with the cause.
    async fn exec(&self, id: &ContainerId, command: ExecCommand) -> Result<Exec, RuntimeError>;

    /// Kills it when it runs, unmounts and deletes everything of it except named volumes, which live on in [`Volumes`].
    ///
    /// # Errors
    /// When something could not be removed; the rest is, and a repetition tries again.
    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// What it uses now.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::NotRunning`].
    async fn usage(&self, id: &ContainerId) -> Result<ContainerUsage, RuntimeError>;

    /// Its processes, in the order of their numbers.
    ///
    /// # Errors
    /// As for [`Runtime::usage`].
    async fn processes(&self, id: &ContainerId) -> Result<Vec<ContainerProcess>, RuntimeError>;

    /// All containers, also those of earlier daemons, in the order of their ids.
    ///
    /// # Errors
    /// When the directory of containers cannot be read.
    async fn list(&self) -> Result<Vec<ContainerInfo>, RuntimeError>;

    /// What it wrote, oldest first. The channel ends after the last line, with [`LogOptions::follow`] when the container has
    /// ended; dropping the receiver ends the reading.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn logs(&self, id: &ContainerId, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError>;
}
