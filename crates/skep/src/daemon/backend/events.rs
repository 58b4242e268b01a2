//! What happens to containers and volumes of this node, as the API tells it.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use skep_agent::container_id;
use skep_engine::backend::cluster::{Changed, ContainerEvent, SwarmChange};
use skep_runtime::{ContainerAction, ContainerId, Happened, NodeEvent, VolumeAction};
use tokio_stream::wrappers::BroadcastStream;

use crate::daemon::node::LocalNode;

/// Events from now on. A listener that is too slow misses some.
pub(super) fn of(node: &Arc<LocalNode>) -> BoxStream<'static, SwarmChange> {
    let node = node.clone();
    let heard = BroadcastStream::new(node.events.subscribe()).filter_map(async |event| event.ok());
    heard.then(move |event| told(node.clone(), event)).boxed()
}

async fn told(node: Arc<LocalNode>, NodeEvent { at, what }: NodeEvent) -> SwarmChange {
    let object = match what {
        Happened::Volume { name, action } => Changed::Volume { name, action: word(action) },
        Happened::Container { id, labels, action } => {
            let (action, exit_code) = match action {
                ContainerAction::Create => ("create", None),
                ContainerAction::Start => ("start", None),
                ContainerAction::Die(code) => ("die", code),
                ContainerAction::Destroy => ("destroy", None),
            };
            let name = labels.get("com.docker.swarm.task.name").cloned().unwrap_or_else(|| id.short().to_owned());
            let image = image(&node, &id).await;
            Changed::Container(ContainerEvent { id: id.to_string(), action, name, image, labels, exit_code })
        }
    };
    SwarmChange { at, object }
}

fn word(action: VolumeAction) -> &'static str {
    match action {
        VolumeAction::Create => "create",
        VolumeAction::Mount => "mount",
        VolumeAction::Unmount => "unmount",
        VolumeAction::Destroy => "destroy",
    }
}

/// The image of a container as its service names it.
async fn image(node: &LocalNode, id: &ContainerId) -> String {
    let known = node.member().await.as_ref().map(|member| member.agent.assignments());
    let task = known.iter().flat_map(|known| known.tasks.values()).find(|task| container_id(&task.id) == *id);
    task.map(|task| task.spec.container.image.clone()).unwrap_or_default()
}
