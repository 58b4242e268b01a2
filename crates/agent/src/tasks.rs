//! One controller per task that this node was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::TaskId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::containers::container_id;
use crate::context::Context;
use crate::task::{Controller, Wanted};
use crate::{AgentError, Assignments};

/// The controllers of all tasks. Dropping it leaves the containers as they are.
pub(crate) struct Tasks {
    context: Arc<Context>,
    controllers: BTreeMap<TaskId, watch::Sender<Wanted>>,
    running: JoinSet<TaskId>,
}

impl Tasks {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, controllers: BTreeMap::new(), running: JoinSet::new() }
    }

    /// Follows the assignments until `leaving`; then until nothing of any task is left.
    pub(crate) async fn run(
        mut self,
        mut assignments: watch::Receiver<Arc<Assignments>>,
        mut leaving: watch::Receiver<bool>,
    ) {
        loop {
            let wanted = assignments.borrow_and_update().clone();
            if *leaving.borrow_and_update() {
                self.follow(&Assignments::default());
                if self.controllers.is_empty() {
                    return;
                }
            } else {
                self.follow(&wanted);
            }
            tokio::select! {
                Ok(()) = assignments.changed() => {}
                Ok(()) = leaving.changed() => {}
                Some(ended) = self.running.join_next() => self.ended(ended),
            }
        }
    }

    fn ended(&mut self, ended: Result<TaskId, tokio::task::JoinError>) {
        match ended {
            Ok(task) => {
                self.controllers.remove(&task);
            }
            Err(e) => {
                error!("a task's controller failed; its container goes on, and the next daemon takes it over: {e}");
            }
        }
    }

    fn follow(&mut self, wanted: &Assignments) {
        for task in wanted.tasks.values() {
            let now = Wanted { task: task.clone(), removed: false };
            match self.controllers.get(&task.id) {
                Some(told) => tell(told, |known| *known = now),
                None => self.begin(now),
            }
        }
        for (_, told) in self.controllers.iter().filter(|(id, _)| !wanted.tasks.contains_key(*id)) {
            tell(told, |known| known.removed = true);
        }
    }

    fn begin(&mut self, wanted: Wanted) {
        let id = wanted.task.id.clone();
        let (told, listening) = watch::channel(wanted);
        match Controller::new(self.context.clone(), listening) {
            Ok(controller) => {
                self.controllers.insert(id.clone(), told);
                self.running.spawn(async move {
                    controller.run().await;
                    id
                });
            }
            Err(e) => error!(task = %id, "{e}"),
        }
    }

    /// Removes what no assigned task owns: left behind by a daemon that was killed in the middle of something.
    pub(crate) async fn sweep(context: &Context, wanted: &Assignments) -> Result<(), AgentError> {
        let ours: BTreeSet<_> = wanted.tasks.keys().map(container_id).collect();
        for container in context.runtime.list().await?.into_iter().filter(|c| !ours.contains(&c.id)) {
            warn!(container = %container.id, "belongs to no task of this node: removed");
            context.runtime.remove(&container.id).await?;
        }
        for link in context.network.task_links().await? {
            if !link.task.as_ref().is_some_and(|task| wanted.tasks.contains_key(task)) {
                context.network.remove_link(&link).await?;
            }
        }
        Ok(())
    }
}

fn tell(told: &watch::Sender<Wanted>, change: impl FnOnce(&mut Wanted)) {
    told.send_if_modified(|known| {
        let before = known.clone();
        change(known);
        before.removed != known.removed || before.task.desired != known.task.desired
    });
}
