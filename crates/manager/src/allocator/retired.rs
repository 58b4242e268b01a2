//! What was the routing mesh's network and is so no more. Tasks keep their addresses on it for as long as they live; what is published later is served by
//! tasks on the network that came after it.

use skep_model::{Network, NetworkId, PublishMode, Service, Task};
use skep_store::Tables;

use super::addresses::holds;
use crate::draft::Draft;

/// Forgets such networks when there is another one for nodes and new tasks, and nobody has an address on them any more.
pub(super) fn sweep(draft: &mut Draft<'_>) {
    let tables = draft.tables();
    if tables.ingress().is_none() {
        return;
    }
    for network in tables.all::<Network>().filter(|network| network.retired && is_unused(tables, &network.id)) {
        draft.delete_network(&network.id);
    }
}

/// Whether no task has an address on the network.
pub(crate) fn is_unused(tables: &Tables, network: &NetworkId) -> bool {
    let on = |task: &Task| holds(task) && task.attachments.iter().any(|attachment| attachment.network == *network);
    !tables.all::<Task>().any(|task| on(task))
}

/// Whether the service has tasks that cannot serve the ports that it publishes.
pub(crate) fn moves_to_ingress(tables: &Tables, service: &Service) -> bool {
    tables.tasks_of_service(&service.id).any(|task| holds(task) && is_elsewhere(tables, service, task))
}

/// Whether the service publishes ports on the routing mesh's network and the task is not on it, and so cannot serve them.
pub(crate) fn is_elsewhere(tables: &Tables, service: &Service, task: &Task) -> bool {
    let Some(ingress) = tables.ingress() else { return false };
    task.attachments.first().is_some_and(|first| first.network != ingress.id)
        && service.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress)
}
