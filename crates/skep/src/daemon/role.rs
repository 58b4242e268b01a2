//! The role that the managers give this node, and the node that follows it.

use std::sync::Weak;
use std::time::Duration;

use skep_model::{Node, Role};
use tokio::sync::watch;
use tracing::warn;

use super::node::LocalNode;

/// When it is tried again to become what is wanted.
const AGAIN: Duration = Duration::from_secs(1);

/// What a node is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Manager,
    Worker,
}

/// What the managers want. `None` while they are about to do without this node: it goes on until they do, for they may need it for that.
fn wanted(told: &Node) -> Option<Wanted> {
    match (told.spec.role, &told.manager) {
        (Role::Manager, _) => Some(Wanted::Manager),
        (Role::Worker, None) => Some(Wanted::Worker),
        (Role::Worker, Some(_)) => None,
    }
}

/// Follows what the managers say of this node, until nobody can any more.
pub(crate) async fn follow(node: Weak<LocalNode>, mut told: watch::Receiver<Option<Node>>) {
    loop {
        let wanted = told.borrow_and_update().as_ref().and_then(wanted);
        let Some(node) = node.upgrade() else { return };
        let followed = match wanted {
            Some(wanted) => node.follow(wanted).await,
            None => Ok(()),
        };
        drop(node);
        let again = followed.is_err();
        if let Err(e) = followed {
            warn!(?wanted, "cannot become what the managers want this node to be: {e:#}");
        }
        tokio::select! {
            changed = told.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(AGAIN), if again => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{
        Availability, ManagerStatus, Meta, NodeId, NodeSpec, NodeState, NodeStatus, Reachability, Timestamp,
    };

    use super::*;

    #[test]
    fn a_demoted_node_stays_until_the_others_do_without_it() {
        let manager = ManagerStatus {
            raft_id: 7,
            addr: "192.0.2.1:2377".parse().unwrap(),
            leader: false,
            reachability: Reachability::Reachable,
        };
        let told = |role, manager| Node {
            id: NodeId::random(),
            meta: Meta::new(Timestamp::UNIX_EPOCH),
            spec: NodeSpec { name: None, labels: [].into(), role, availability: Availability::Active },
            description: None,
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                addr: None,
                port_conflicts: Vec::new(),
            },
            manager,
            overlay_addr: None,
            credential: String::new(),
        };
        assert_eq!(wanted(&told(Role::Manager, None)), Some(Wanted::Manager));
        assert_eq!(wanted(&told(Role::Manager, Some(manager.clone()))), Some(Wanted::Manager));
        assert_eq!(wanted(&told(Role::Worker, Some(manager))), None);
        assert_eq!(wanted(&told(Role::Worker, None)), Some(Wanted::Worker));
    }
}
