//! What people do to the containers of tasks by hand. To the managers such a task has ended by itself, and they replace it where it should run.

use std::sync::Arc;
use std::time::Duration;

use skep_model::{Task, TaskId};
use skep_runtime::RuntimeError;
use tokio::time::timeout;

use crate::context::Context;
use crate::{Agent, AgentError, containers};

/// What no process can refuse (signal(7)).
const SIGKILL: i32 = 9;

impl Agent {
    /// Removes the container of a task because a person says so: new flows go elsewhere first, those that it has get the usual time, then it
    /// is killed. To the managers the task has failed, and they replace it. Nothing happens when there is no such container.
    ///
    /// # Errors
    /// When the runtime cannot remove it.
    pub fn remove_container(&self, task: &TaskId) -> impl Future<Output = Result<(), AgentError>> + Send + use<> {
        let (context, task) = (self.context.clone(), self.assignments().tasks.get(task).cloned());
        async move {
            if let Some(task) = task {
                // Whoever asks may hang up: a task is not left where it takes no flows and runs on.
                let removal = tokio::spawn(async move {
                    context.retire(&task).await;
                    context.runtime.remove(&containers::container_id(&task.id)).await
                });
                removal.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            }
            Ok(())
        }
    }

    /// Stops the container of a task because a person says so, as the task would be stopped: new flows go elsewhere first, those that it has get
    /// the usual time, then it is asked to stop, and killed after `grace` or its own grace period. Returns when it has ended; the managers
    /// replace the task where it should run on. Nothing happens when there is no such container.
    ///
    /// # Errors
    /// When the runtime cannot tell it.
    pub fn stop_container(
        &self,
        task: &TaskId,
        grace: Option<Duration>,
    ) -> impl Future<Output = Result<(), AgentError>> + Send + use<> {
        let (context, task) = (self.context.clone(), self.assignments().tasks.get(task).cloned());
        async move {
            if let Some(task) = task {
                // As for its removal.
                let stopping = tokio::spawn(async move { stop(&context, &task, grace).await });
                stopping.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            }
            Ok(())
        }
    }
}

/// Out of the mesh for new flows; then the container is asked to stop, and killed when it takes longer than `grace` or its own grace period.
async fn stop(context: &Arc<Context>, task: &Task, grace: Option<Duration>) -> Result<(), RuntimeError> {
    let container = containers::container_id(&task.id);
    context.retire(task).await;
    context.runtime.signal(&container, context.stop_signal(task).await).await?;
    let ended = context.runtime.wait(&container);
    let grace = grace.unwrap_or_else(|| task.spec.container.grace_period());
    if timeout(grace, ended).await.is_err() {
        context.runtime.signal(&container, SIGKILL).await?;
        context.runtime.wait(&container).await?;
    }
    Ok(())
}
