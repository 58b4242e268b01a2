//! Further programs in a running container.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};

use crate::container::LogStream;
pub use crate::terminal::TerminalSize;

/// A program to be run in a container beside the one that the container is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCommand {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in addition to what the container's first program was given, which they override.
    pub env: Vec<String>,
    /// Who it runs as, as [`skep_model::ContainerSpec::user`] says it; `None` is who the first program runs as.
    pub user: Option<String>,
    /// The directory that it begins in; `None` is where the first program began.
    pub dir: Option<String>,
    /// What its three standard files are.
    pub files: ExecFiles,
}

/// What the three standard files of such a program are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFiles {
    /// Nothing. It goes on without whoever started it, also over a restart of the daemon.
    Nothing,
    /// Pipes.
    Pipes {
        /// Whether its standard input is one, or nothing.
        stdin: Stdin,
    },
    /// A terminal of the container, of this size.
    Terminal(TerminalSize),
}

/// Whether a program is given something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// It reads what it is given.
    Open,
    /// It finds the end at once.
    Empty,
}

/// A program that runs in a container. It is killed when this is dropped, unless its files are [`ExecFiles::Nothing`].
pub struct Exec {
    /// Its process, as the node numbers it.
    pub pid: i32,
    /// What it reads; it finds the end when this is dropped. With a terminal, what is typed.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it writes, as it comes: with a terminal all of it to standard output. Ends when nobody can write any more.
    pub output: mpsc::Receiver<(LogStream, Vec<u8>)>,
    /// Its terminal, when it has one.
    pub terminal: Option<Arc<dyn Terminal>>,
    pub(crate) ended: oneshot::Receiver<Option<i32>>,
    /// Dropped with this.
    pub(crate) _alive: oneshot::Sender<()>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Exec {
    /// Waits for its end: the exit code, 128 and the signal's number when a signal ended it, `None` when nobody saw it. What it has written
    /// before may come out of [`Self::output`] later. To be called once.
    pub async fn ended(&mut self) -> Option<i32> {
        (&mut self.ended).await.ok().flatten()
    }
}

/// The terminal of a program.
pub trait Terminal: Send + Sync {
    /// Gives it another size.
    ///
    /// # Errors
    /// When the program has ended.
    fn resize(&self, size: TerminalSize) -> std::io::Result<()>;
}
