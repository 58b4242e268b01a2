//! What the mesh sees.

mod endpoints;
mod viewer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use skep_model::{EndpointRecord, Member, NodeId};

pub use self::endpoints::Endpoints;
pub(crate) use self::viewer::{Shown, Viewer};

/// An endpoint and the node that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The node.
    pub owner: NodeId,
    /// What the node says of the endpoint; with a weight of 0 when the node is not heard of and others can take its new flows.
    pub record: Arc<EndpointRecord>,
}

/// All members, and the endpoints of those that are alive. Cheap to clone: what has not changed is shared with what was seen before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The members, also those that are not alive.
    pub members: Arc<BTreeMap<NodeId, Member>>,
    /// The endpoints on this node and on members that are alive.
    pub endpoints: Endpoints,
    /// By what other members that are alive are asked, as they say themselves.
    pub addresses: Arc<BTreeSet<IpAddr>>,
}
