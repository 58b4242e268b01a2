//! Log lines on their way from nodes to people.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use skep_model::{NodeId, TaskId, Timestamp};
use skep_rpc::proto::LogChunk;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::lock;

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The node that it ran on.
    pub node: NodeId,
    /// The task.
    pub task: TaskId,
    /// Which output.
    pub stream: LogStream,
    /// When it was written, by the node's clock.
    pub at: Timestamp,
    /// Without the line end.
    pub data: Bytes,
}

/// What one node was asked for.
struct Request {
    node: NodeId,
    tasks: HashSet<TaskId>,
    sink: mpsc::Sender<LogLine>,
}

/// Everything that nodes were asked for and have not finished.
#[derive(Default)]
pub(crate) struct Logs(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    requests: HashMap<u64, Request>,
}

impl Logs {
    /// Expects lines of some tasks of a node. The number is what the node is to be asked with; lines of other tasks are dropped.
    pub(crate) fn expect(&self, node: NodeId, tasks: HashSet<TaskId>, sink: mpsc::Sender<LogLine>) -> u64 {
        let mut open = lock(&self.0);
        open.last += 1;
        let number = open.last;
        open.requests.insert(number, Request { node, tasks, sink });
        number
    }

    /// Expects them no more. Says which node to tell.
    pub(crate) fn forget(&self, number: u64) -> Option<NodeId> {
        lock(&self.0).requests.remove(&number).map(|request| request.node)
    }

    /// Nothing more comes from a node that has no session.
    pub(super) fn node_gone(&self, node: &NodeId) {
        lock(&self.0).requests.retain(|_, request| request.node != *node);
    }

    /// Takes what a node pushes, until it ends or nobody listens any more.
    pub(super) async fn take(&self, node: &NodeId, mut chunks: Streaming<LogChunk>) -> Result<(), Status> {
        let mut number = None;
        let ended = loop {
            match chunks.message().await {
                Ok(Some(chunk)) => {
                    number = Some(chunk.subscription);
                    if let Err(status) = self.pass(node, chunk).await {
                        break Err(status);
                    }
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        if let Some(number) = number.filter(|number| self.is_of(*number, node)) {
            self.forget(number);
        }
        ended
    }

    fn is_of(&self, number: u64, node: &NodeId) -> bool {
        lock(&self.0).requests.get(&number).is_some_and(|request| request.node == *node)
    }

    async fn pass(&self, node: &NodeId, chunk: LogChunk) -> Result<(), Status> {
        let unwanted = || Status::cancelled("nobody reads these logs any more");
        let (sink, tasks) = {
            let open = lock(&self.0);
            let request = open.requests.get(&chunk.subscription).filter(|request| request.node == *node);
            let request = request.ok_or_else(unwanted)?;
            (request.sink.clone(), request.tasks.clone())
        };
        for line in chunk.lines {
            let Ok(task) = line.task_id.parse::<TaskId>() else { continue };
            if !tasks.contains(&task) {
                continue;
            }
            let line = LogLine {
                node: node.clone(),
                task,
                stream: if line.stream == 2 { LogStream::Stderr } else { LogStream::Stdout },
                at: Timestamp::from_nanosecond(line.timestamp.into()).unwrap_or_default(),
                data: line.line,
            };
            sink.send(line).await.map_err(|_| unwanted())?;
        }
        // A reader that went away is noticed by an empty chunk too.
        if sink.is_closed() { Err(unwanted()) } else { Ok(()) }
    }
}
