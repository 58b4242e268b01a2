//! Nodes.

use skep_model::{Node, NodeId, NodeSpec, NodeState, Role, Version};
use skep_store::{Change, Key, Tables};

use super::{Control, in_sequence};
use crate::ControlError;

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
    /// When the node is not there or has changed since; when its role should change; or when it cannot be written.
    pub async fn update_node(&self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), ControlError> {
        self.write(|tables| {
            let mut node = find(tables, id)?.clone();
            in_sequence(version, node.meta.version)?;
            match (node.spec.role, spec.role) {
                (Role::Worker, Role::Manager) => return Err(ControlError::Promotion(id.clone())),
                // There is one manager.
                (Role::Manager, Role::Worker) => return Err(ControlError::LastManager),
                (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => {}
            }
            node.spec = spec;
            Ok(((), vec![node.into()]))
        })
        .await
    }

    /// Removes a node. It is let in no more, and its tasks are replaced.
    ///
    /// # Errors
    /// When the node is not there, is a manager, or answers while `removal` is not by force; or when it cannot be written.
    pub async fn remove_node(&self, id: &NodeId, removal: NodeRemoval) -> Result<(), ControlError> {
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
