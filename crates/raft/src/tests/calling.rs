//! Whom members call.

use skep_model::{ManagerStatus, Reachability};
use skep_store::Store;

use super::rig;
use crate::network::rpc::Rpc;

#[test]
fn a_member_is_looked_for_on_the_node_that_has_its_number() {
    let store = Store::default();
    let network = Rpc::new(rig::identity(), store.clone());
    assert_eq!(network.node(7), None, "a member that nobody has written down yet");
    let mut node = rig::node();
    let addr = "192.0.2.1:2377".parse().unwrap();
    node.manager = Some(ManagerStatus { raft_id: 7, addr, leader: false, reachability: Reachability::Unknown });
    for node in [&rig::node(), &node] {
        store.apply(rig::proposal(node)).unwrap();
    }
    assert_eq!(network.node(7), Some(node.id));
    assert_eq!(network.node(8), None);
}
