//! What nodes report of their tasks. While one commit is under way, whatever else comes in is gathered for the next.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skep_model::{NodeId, Task, TaskId, TaskStatus};
use skep_store::{Change, Tables};
use tokio::sync::Notify;

use super::{Hub, lock};

/// Pause after a commit failed.
const RETRY: Duration = Duration::from_millis(200);

type Reports = BTreeMap<TaskId, (NodeId, TaskStatus)>;

/// The latest report on each task that is not written yet.
#[derive(Default)]
pub(super) struct StatusQueue {
    reports: Mutex<Reports>,
    added: Notify,
}

impl StatusQueue {
    pub(super) fn put(&self, node: &NodeId, task: TaskId, status: TaskStatus) {
        let mut reports = lock(&self.reports);
        // A late report must not take the place of a newer one.
        if reports.get(&task).is_none_or(|(_, known)| known.state <= status.state) {
            reports.insert(task, (node.clone(), status));
        }
        drop(reports);
        self.added.notify_one();
    }

    fn put_back(&self, old: Reports) {
        for (task, (node, status)) in old {
            self.put(&node, task, status);
        }
    }
}

impl Hub {
    /// Writes what nodes report. Never ends.
    pub(crate) async fn write_statuses(self: Arc<Self>) {
        loop {
            self.statuses.added.notified().await;
            let reports = std::mem::take(&mut *lock(&self.statuses.reports));
            let written = self.writer.update(|tables| Ok::<_, Infallible>(((), observe(tables, &reports)))).await;
            if let Err(error) = written {
                tracing::warn!("cannot write what nodes report: {error}");
                tokio::time::sleep(RETRY).await;
                self.statuses.put_back(reports);
            }
        }
    }
}

/// The tasks as they are with what their nodes report. Reports on tasks of other nodes, and late ones, change nothing.
fn observe(tables: &Tables, reports: &Reports) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, (node, status)) in reports {
        let Some(task) = tables.get::<Task>(id).filter(|task| task.node.as_ref() == Some(node)) else { continue };
        let mut observed = Task::clone(task);
        if observed.status != *status && observed.observe(status.clone()).is_ok() {
            changes.push(observed.into());
        }
    }
    changes
}
