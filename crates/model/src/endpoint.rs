//! Discovery: what runs where right now, as nodes tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{NetworkId, NodeId, PortOptions, PublishedPort, ServiceId, ServiceNetwork, TaskId, Version, VirtualIp};

/// Whether an endpoint takes new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointState {
    /// Runs, and does not listen yet.
    Starting,
    /// Takes new flows.
    Ready,
    /// Keeps the flows that it has and takes no new ones.
    Draining,
}

/// Which endpoint: a task on a network, written by the node that owns it and by nobody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The network that the address belongs to.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The service that it serves.
    pub service: ServiceId,
    /// The task's address on the network.
    pub addr: Ipv4Addr,
    /// Whether it takes new flows.
    pub state: EndpointState,
    /// Its share of new flows relative to the other endpoints of the service; 1 unless an operator says otherwise.
    pub weight: u32,
    /// Further names that it answers to.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The ports of its node that lead to it alone. Told of its address on the network of the routing mesh only.
    #[serde(default)]
    pub host_ports: Vec<PublishedPort>,
}

/// All that one node says of itself: its endpoints and addresses, at one version of that node's own counting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnerTable {
    /// Grows with every change that the owner makes, also over restarts (it starts from the clock, in milliseconds).
    pub version: u64,
    /// The endpoints, shared with whoever looks at them. As a list on the wire, because keys of JSON objects are texts.
    #[serde(with = "as_list")]
    pub records: BTreeMap<EndpointKey, Arc<EndpointRecord>>,
    /// The node's addresses outside of the mesh, by which it is asked too.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
}

mod as_list {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{EndpointKey, EndpointRecord};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<EndpointKey, Arc<EndpointRecord>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<EndpointKey, Arc<EndpointRecord>>, D::Error> {
        Ok(Vec::<(EndpointKey, Arc<EndpointRecord>)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// A node as the mesh needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub hostname: String,
    /// Where overlay packets for it go.
    pub underlay: IpAddr,
    /// Its own address on the ingress network.
    pub overlay: Ipv4Addr,
    /// Whether it is believed to be alive: the endpoints of one that is not are hidden.
    pub alive: bool,
    /// Whether its daemon has been gone for too long while its machine answers: its tasks are replaced, and may run there still.
    #[serde(default)]
    pub away: bool,
}

/// A service as every node's mesh needs to know it. Kept on disk by each node, so that it outlives the managers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// The service.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// The store's version of it, to tell which of two entries is newer.
    pub version: Version,
    /// The ports that every node answers on. Host-mode ports are known to the task's own node only.
    pub ports: Vec<PublishedPort>,
    /// Options of those ports that have any, and of ports in host mode that have any.
    #[serde(default)]
    pub options: Vec<PortOptions>,
    /// Its addresses; none when names lead to its tasks themselves.
    pub virtual_ips: Vec<VirtualIp>,
    /// The networks that it is on besides that of the routing mesh.
    #[serde(default)]
    pub networks: Vec<ServiceNetwork>,
}

impl ServiceEntry {
    /// The options of those of `ports` that have any.
    #[must_use]
    pub fn options_of(&self, ports: &[PublishedPort]) -> Vec<PortOptions> {
        let asked: BTreeSet<_> = ports.iter().map(|port| (port.protocol, port.published)).collect();
        self.options.iter().filter(|o| asked.contains(&(o.protocol, o.published))).cloned().collect()
    }
}
