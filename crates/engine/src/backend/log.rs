//! The output of containers.

use bytes::Bytes;
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a line comes from within the swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOrigin {
    /// The node that the task runs on.
    pub node: NodeId,
    /// The service.
    pub service: ServiceId,
    /// The task.
    pub task: TaskId,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Which task wrote it.
    pub origin: LogOrigin,
    /// Which output.
    pub stream: LogStream,
    /// When.
    pub at: Timestamp,
    /// The line with its line feed, if it had one.
    pub data: Bytes,
}

/// Whose output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSource {
    /// All tasks of a service, also those to come when following.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// No more than so many of the lines already written, per container; `None` is all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
}
