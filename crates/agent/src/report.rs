//! What this node has to say of its tasks: always the newest, to whichever manager listens.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{TaskId, TaskStatus};
use tokio::sync::watch;

/// The newest status of every task, each numbered by when it last changed, so that a session sends each change once and a new
/// session sends everything. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter(Arc<watch::Sender<Reports>>);

/// See [`Reporter`].
#[derive(Debug, Clone, Default)]
pub struct Reports {
    last: u64,
    statuses: BTreeMap<TaskId, (u64, TaskStatus)>,
}

impl Reports {
    /// The number of the newest change.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What changed after change number `seen`.
    pub fn since(&self, seen: u64) -> impl Iterator<Item = (&TaskId, &TaskStatus)> {
        self.statuses.iter().filter(move |(_, (at, _))| *at > seen).map(|(id, (_, status))| (id, status))
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Reports::default()).0))
    }
}

impl Reporter {
    /// The task is now so.
    pub fn update(&self, task: &TaskId, status: TaskStatus) {
        self.0.send_modify(|reports| {
            reports.last += 1;
            reports.statuses.insert(task.clone(), (reports.last, status));
        });
    }

    /// The task is nobody's business any more.
    pub fn forget(&self, task: &TaskId) {
        self.0.send_if_modified(|reports| {
            reports.statuses.remove(task);
            false
        });
    }

    /// Hears of changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Reports> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{TaskState, Timestamp};

    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        let timestamp = Timestamp::UNIX_EPOCH;
        TaskStatus { timestamp, state, message: String::new(), err: None, container: None, host_ports: Vec::new() }
    }

    #[test]
    fn each_change_is_told_once_and_a_new_session_is_told_everything() {
        let (a, b) = (TaskId::random(), TaskId::random());
        let reporter = Reporter::default();
        reporter.update(&a, status(TaskState::Accepted));
        reporter.update(&b, status(TaskState::Accepted));
        let seen = reporter.watch().borrow().last();
        reporter.update(&a, status(TaskState::Running));

        let reports = reporter.watch();
        let reports = reports.borrow();
        assert_eq!(reports.since(seen).map(|(id, s)| (id, s.state)).collect::<Vec<_>>(), [(&a, TaskState::Running)]);
        assert_eq!(reports.since(0).count(), 2);
    }
}
