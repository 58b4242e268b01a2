//! What the mesh sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_model::{EndpointKey, EndpointRecord, Member, NodeId};

/// An endpoint and the node that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The node.
    pub owner: NodeId,
    /// What the node says of the endpoint; with a weight of 0 when the node is not heard of and others can take its new flows.
    pub record: EndpointRecord,
}

/// All members, and the endpoints of those that are alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The members, also those that are not alive.
    pub members: BTreeMap<NodeId, Member>,
    /// The endpoints on this node and on members that are alive.
    pub endpoints: BTreeMap<EndpointKey, Located>,
    /// By what other members that are alive are asked, as they say themselves.
    pub addresses: BTreeSet<IpAddr>,
}
