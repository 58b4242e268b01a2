//! Nodes.

use std::time::Duration;

use skep_model::{Node, NodeId, NodeSpec, NodeState, Role, Version};
use skep_store::{Change, Key, Tables};

use super::{Control, in_sequence};
use crate::ControlError;
use crate::group::may_go;

/// How long a node that was just demoted may need to leave the group of managers.
const DEMOTION: Duration = Duration::from_secs(10);

/// Whether a node that still answers may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRemoval {
    /// Only one that is down.
    IfDown,
    /// Any worker.
    Force,
}

impl Control {
    /// Replaces a node's spec. `version` is that of the node as the caller has seen it.
    ///
    /// # Errors
    /// When the node is not there or has changed since; when it is the last manager and should be none, or too few of those that are left
    /// answer; or when it cannot be written.
    pub async fn update_node(&self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), ControlError> {
        self.write(|tables| {
            let mut node = find(tables, id)?.clone();
            in_sequence(version, &node.meta)?;
            if (node.spec.role, spec.role) == (Role::Manager, Role::Worker) {
                may_go(tables, self.group.as_ref(), &node)?;
            }
            node.spec = spec;
            Ok(((), vec![node.into()]))
        })
        .await
    }

    /// Waits until a node that was demoted has left the group of managers.
    async fn demoted(&self, id: &NodeId) {
        let mut events = self.store().watch();
        let leaving = |tables: &Tables| {
            tables.get::<Node>(id).is_some_and(|node| node.spec.role == Role::Worker && node.manager.is_some())
        };
        let left = async { while self.store().view(leaving) && events.next().await.is_some() {} };
        // It may be this manager that leaves: then the next one is asked, and it is told at once that nothing was done.
        let left = futures::future::select(Box::pin(left), Box::pin(self.hub.leads_no_more()));
        // What it is then, the removal says.
        let _ = tokio::time::timeout(DEMOTION, left).await;
    }

    /// Removes a node. It is let in no more, and its tasks are replaced.
    ///
    /// # Errors
    /// When the node is not there, is a manager, or answers while `removal` is not by force; or when it cannot be written.
    pub async fn remove_node(&self, id: &NodeId, removal: NodeRemoval) -> Result<(), ControlError> {
        self.demoted(id).await;
        self.write(|tables| {
            let node = find(tables, id)?;
            if node.spec.role == Role::Manager || node.manager.is_some() {
                return Err(ControlError::IsManager(id.clone()));
            }
            let down = matches!(node.status.state, NodeState::Down | NodeState::Disconnected);
            if !down && removal == NodeRemoval::IfDown {
                return Err(ControlError::NotDown(id.clone()));
            }
            Ok(((), vec![Change::Delete(Key::Node(id.clone()))]))
        })
        .await
    }
}

fn find<'a>(tables: &'a Tables, id: &NodeId) -> Result<&'a Node, ControlError> {
    let node = tables.get::<Node>(id).map(AsRef::as_ref);
    node.ok_or_else(|| ControlError::NotFound { what: "node", id: id.to_string() })
}
