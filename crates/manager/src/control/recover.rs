//! A swarm that has lost the majority of its managers goes on with the one that is left.

use std::net::SocketAddr;

use skep_model::{ManagerStatus, Node, NodeId, Reachability, Role};
use skep_store::{Change, Tables};

/// What is to be written once the manager `own` has made itself the only one: the other managers are workers, and may be promoted again.
/// Services, ports and addresses stay as they are.
#[must_use]
pub fn manage_alone(tables: &Tables, own: &NodeId, raft_id: u64, addr: SocketAddr) -> Vec<Change> {
    let changed = tables.all::<Node>().filter_map(|before| {
        let mut node = Node::clone(before);
        if node.id == *own {
            node.spec.role = Role::Manager;
            node.status.addr = Some(addr.ip());
            node.manager = Some(ManagerStatus { raft_id, addr, leader: true, reachability: Reachability::Reachable });
        } else {
            node.spec.role = Role::Worker;
            node.manager = None;
        }
        (node != **before).then(|| node.into())
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Sim, publish, spec};
    use skep_model::{PublishMode, Service};

    #[test]
    fn the_others_become_workers_and_all_else_stays() {
        let mut sim = Sim::new(2);
        let nodes = sim.nodes();
        for (node, raft_id) in nodes.iter().zip(1..) {
            let addr = format!("192.0.2.{raft_id}:2377").parse().unwrap();
            let seat = ManagerStatus { raft_id, addr, leader: raft_id == 1, reachability: Reachability::Reachable };
            sim.node(node, |node| (node.spec.role, node.manager) = (Role::Manager, Some(seat)));
        }
        let web = sim.create(publish(spec("web", 1), &[(80, None, PublishMode::Ingress)])).unwrap();
        let before = sim.tables.get::<Service>(&web).unwrap().clone();
        let addr: SocketAddr = "192.0.2.77:2377".parse().unwrap();
        sim.apply(manage_alone(&sim.tables, &nodes[1], 2, addr));
        for node in &nodes {
            let node = sim.tables.get::<Node>(node).unwrap();
            let own = node.id == nodes[1];
            assert_eq!(node.spec.role == Role::Manager, own);
            assert_eq!(node.manager.as_ref().map(|m| (m.raft_id, m.addr, m.leader)), own.then_some((2, addr, true)));
        }
        assert_eq!(*sim.tables.get::<Service>(&web).unwrap(), before);
        assert_eq!(manage_alone(&sim.tables, &nodes[1], 2, addr), []);
    }
}
