//! Addresses of a network.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use skep_model::{Meta, Network, NetworkId, Node, Service, Task, Timestamp};
use skep_store::Tables;

/// A network has no address left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no address is left on network {network} ({subnet}): remove services or tasks, or start the swarm with a larger pool"
)]
pub struct Exhausted {
    /// The network's name.
    network: String,
    /// Its pool.
    subnet: Ipv4Net,
}

/// The free addresses of one network.
///
/// They are given out onward from the one that was given last, and from the start again only at the end of the pool: an address
/// that became free is left alone for as long as possible, because other nodes may still have flows to it.
pub(crate) struct Pool {
    name: String,
    subnet: Ipv4Net,
    taken: HashSet<Ipv4Addr>,
    last: Ipv4Addr,
}

/// The address that was given last among those seen so far.
struct Newest(Option<(Timestamp, Ipv4Addr)>);

impl Newest {
    fn see(&mut self, meta: &Meta, addr: Ipv4Addr) {
        self.0 = self.0.max(Some((meta.created, addr)));
    }
}

impl Pool {
    /// What is free of `network` when the nodes, services and tasks of `tables` have what they have.
    pub(crate) fn of(network: &Network, tables: &Tables) -> Self {
        let mut taken = HashSet::from([network.spec.ipam.gateway]);
        let mut newest = Newest(None);
        for node in tables.all::<Node>() {
            if let Some(addr) = node.overlay_addr.filter(|_| network.spec.ingress) {
                taken.insert(addr);
                newest.see(&node.meta, addr);
            }
        }
        for service in tables.all::<Service>() {
            for vip in service.endpoint.virtual_ips.iter().filter(|vip| vip.network == network.id) {
                taken.insert(vip.addr.addr());
                newest.see(&service.meta, vip.addr.addr());
            }
        }
        for task in tables.all::<Task>() {
            if let Some(addr) = on(task, &network.id) {
                // The address of an ended task is free, and still the one that was given last.
                newest.see(&task.meta, addr);
                if !task.status.state.is_terminal() {
                    taken.insert(addr);
                }
            }
        }
        let last = newest.0.map_or(network.spec.ipam.gateway, |(_, addr)| addr);
        Self { name: network.spec.name.clone(), subnet: network.spec.ipam.subnet, taken, last }
    }

    /// The next free address, with the length of the network's prefix.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take(&mut self) -> Result<Ipv4Net, Exhausted> {
        let (first, end) = (u32::from(self.subnet.network()) + 1, u32::from(self.subnet.broadcast()));
        let size = end.saturating_sub(first);
        let start = u32::from(self.last).wrapping_sub(first).wrapping_add(1);
        let candidates = (0..size).map(|step| Ipv4Addr::from(first + ((start % size).wrapping_add(step)) % size));
        let exhausted = || Exhausted { network: self.name.clone(), subnet: self.subnet };
        let free = candidates.into_iter().find(|addr| !self.taken.contains(addr)).ok_or_else(exhausted)?;
        self.taken.insert(free);
        self.last = free;
        Ok(Ipv4Net::new_assert(free, self.subnet.prefix_len()))
    }
}

fn on(task: &Task, network: &NetworkId) -> Option<Ipv4Addr> {
    task.attachments.iter().find(|attachment| attachment.network == *network).map(|a| a.addr.addr())
}
