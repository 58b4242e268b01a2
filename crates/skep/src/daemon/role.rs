//! The role that the managers give this node, and the node that follows it.

use std::sync::Weak;
use std::time::Duration;

use skep_model::{Node, Role};
use skep_rpc::NodeIdentity;
use tokio::sync::watch;
use tracing::warn;

use super::node::LocalNode;

/// When it is tried again to become what is wanted.
const AGAIN: Duration = Duration::from_secs(1);

/// What the managers want a node to be. `None` while they are about to do without it: it goes on until they do, for they may need it for that.
pub(crate) fn wanted(told: &Node) -> Option<Role> {
    match (told.spec.role, &told.manager) {
        (Role::Manager, _) => Some(Role::Manager),
        (Role::Worker, None) => Some(Role::Worker),
        (Role::Worker, Some(_)) => None,
    }
}

/// Follows what the managers say of this node, until nobody can any more.
pub(crate) async fn follow(node: Weak<LocalNode>, mut told: watch::Receiver<Option<Node>>, identity: NodeIdentity) {
    loop {
        let held = identity.credentials();
        // A manager needs a certificate that says so first.
        let wanted = told
            .borrow_and_update()
            .as_ref()
            .and_then(wanted)
            .filter(|role| *role == Role::Worker || held.identity().role == Role::Manager);
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
            _ = identity.changed_from(&held) => {}
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
                machine_answers: false,
            },
            manager,
            overlay_addr: None,
            credential: String::new(),
        };
        assert_eq!(wanted(&told(Role::Manager, None)), Some(Role::Manager));
        assert_eq!(wanted(&told(Role::Manager, Some(manager.clone()))), Some(Role::Manager));
        assert_eq!(wanted(&told(Role::Worker, Some(manager))), None);
        assert_eq!(wanted(&told(Role::Worker, None)), Some(Role::Worker));
    }
}
