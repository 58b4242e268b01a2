//! The output of tasks, wherever they run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use skep_model::{NodeId, Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use skep_rpc::proto::manager_message::Message;
use skep_rpc::proto::{LogCancel, LogRequest};
use skep_store::{Events, Store, Tables};
use tokio::sync::mpsc;

use super::Control;
use crate::ControlError;
use crate::dispatcher::{Hub, LogLine};

/// Lines on their way to a reader.
const LINES: usize = 1024;

/// Whose output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskLogSource {
    /// All tasks of a service, also those to come when following.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// No more than so many of the lines already written, per task; `None` is all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
}

impl Control {
    /// The output of tasks, in the order in which it arrives. Ends when all nodes have sent what there was, or never when following.
    /// Nodes that are not in session are left out. Dropping the receiver ends it.
    ///
    /// # Errors
    /// When the service or task is not there.
    pub fn task_logs(
        &self,
        source: TaskLogSource,
        options: TaskLogOptions,
    ) -> Result<mpsc::Receiver<LogLine>, ControlError> {
        let events = self.store().watch();
        self.store().view(|tables| exists(tables, &source))?;
        let (sink, lines) = mpsc::channel(LINES);
        let reading = Reading {
            hub: self.hub.clone(),
            store: self.store().clone(),
            source,
            options,
            sink,
            asked: BTreeSet::new(),
            numbers: Vec::new(),
        };
        tokio::spawn(reading.run(events));
        Ok(lines)
    }
}

fn exists(tables: &Tables, source: &TaskLogSource) -> Result<(), ControlError> {
    let (found, what, id) = match source {
        TaskLogSource::Service(id) => (tables.get::<Service>(id).is_some(), "service", id.to_string()),
        TaskLogSource::Task(id) => (tables.get::<Task>(id).is_some(), "task", id.to_string()),
    };
    if found { Ok(()) } else { Err(ControlError::NotFound { what, id }) }
}

/// One reader's subscription.
struct Reading {
    hub: Arc<Hub>,
    store: Store,
    source: TaskLogSource,
    options: TaskLogOptions,
    sink: mpsc::Sender<LogLine>,
    asked: BTreeSet<TaskId>,
    numbers: Vec<u64>,
}

impl Reading {
    async fn run(mut self, mut events: Events) {
        self.ask();
        while self.options.follow {
            tokio::select! {
                event = events.next() => match event {
                    Some(_) => self.ask(),
                    None => break,
                },
                () = self.sink.closed() => break,
            }
        }
        if self.options.follow {
            self.cancel();
        }
        // Else the requests hold the only other ends: when the last node is done, the reader is.
    }

    /// Asks the nodes of tasks that have not been asked for yet.
    fn ask(&mut self) {
        let mut nodes: BTreeMap<NodeId, Vec<TaskId>> = BTreeMap::new();
        for (task, node) in self.store.view(|tables| wanted(tables, &self.source)) {
            if self.asked.insert(task.clone()) {
                nodes.entry(node).or_default().push(task);
            }
        }
        for (node, tasks) in nodes {
            let ids = tasks.iter().map(ToString::to_string).collect();
            let expected: HashSet<_> = tasks.into_iter().collect();
            let number = self.hub.logs.expect(node.clone(), expected, self.sink.clone());
            if self.hub.tell(&node, Message::Logs(request(number, ids, &self.options))) {
                self.numbers.push(number);
            } else {
                self.hub.logs.forget(number);
            }
        }
    }

    fn cancel(&self) {
        for number in &self.numbers {
            if let Some(node) = self.hub.logs.forget(*number) {
                self.hub.tell(&node, Message::LogCancel(LogCancel { subscription: *number }));
            }
        }
    }
}

/// Tasks whose node may have output of them: those that have come as far as a container.
fn wanted(tables: &Tables, source: &TaskLogSource) -> Vec<(TaskId, NodeId)> {
    let pair = |task: &Arc<Task>| {
        let begun = task.status.state >= TaskState::Starting;
        Some((task.id.clone(), task.node.clone().filter(|_| begun)?))
    };
    match source {
        TaskLogSource::Service(id) => tables.tasks_of_service(id).filter_map(pair).collect(),
        TaskLogSource::Task(id) => tables.get::<Task>(id).and_then(pair).into_iter().collect(),
    }
}

fn request(subscription: u64, task_ids: Vec<String>, options: &TaskLogOptions) -> LogRequest {
    LogRequest {
        subscription,
        task_ids,
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
        tail: options.tail.map_or(-1, |tail| i64::try_from(tail).unwrap_or(i64::MAX)),
        since: options.since.map_or(0, |since| i64::try_from(since.as_nanosecond()).unwrap_or(i64::MAX)),
    }
}
