//! Further programs in containers of this node.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::log::LogStream;

/// A program to be run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// `NAME=value`, over those of the container.
    pub env: Vec<String>,
    /// Who it runs as; `None` is who the container's own program runs as.
    pub user: Option<String>,
    /// Where it begins; `None` is where the container's own program began.
    pub dir: Option<String>,
    /// What its standard files are.
    pub files: ExecFiles,
}

/// What the standard files of such a program are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecFiles {
    /// Nothing: it goes on alone.
    Nothing,
    /// Pipes, without anything to read.
    Output,
    /// Pipes.
    InputAndOutput,
    /// A terminal of this size.
    Terminal(WindowSize),
}

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Gives a terminal another size.
pub type Resize = Arc<dyn Fn(WindowSize) -> io::Result<()> + Send + Sync>;

/// A program that runs. Dropping `ended` kills it, unless it goes on alone.
pub struct ExecSession {
    /// Its process, as the node numbers it.
    pub pid: i32,
    /// What it reads.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it writes.
    pub output: BoxStream<'static, (LogStream, Bytes)>,
    /// Its terminal's size, when it has one.
    pub resize: Option<Resize>,
    /// Its end: the exit code, `None` when nobody saw it.
    pub ended: BoxFuture<'static, Option<i32>>,
}
