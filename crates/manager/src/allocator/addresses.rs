//! Addresses of networks.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skep_model::{Network, NetworkId, Node, Service, Task, TaskState};
use skep_store::Tables;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// All of the network's pool is in use.
    #[error("no address is left on network {network} ({subnet}): {way_out}")]
    Exhausted {
        /// The network's name.
        network: String,
        /// What its addresses are given from.
        subnet: Ipv4Net,
        /// What can be done about it.
        way_out: &'static str,
    },
    /// The network was removed.
    #[error("network {0} is not there any more: take the service off it (docker service update --network-rm {0})")]
    NoNetwork(NetworkId),
}

/// The free addresses of all networks, when the nodes, services and tasks of the tables have what they have. They are looked through once,
/// and only when an address is asked for.
pub(crate) struct Pools<'a> {
    tables: &'a Tables,
    built: Option<HashMap<&'a NetworkId, Pool<'a>>>,
}

impl<'a> Pools<'a> {
    pub(crate) fn new(tables: &'a Tables) -> Self {
        Self { tables, built: None }
    }

    /// Whether [`Self::take`] would find an address.
    ///
    /// # Errors
    /// When it would not.
    pub(crate) fn check(&mut self, network: &NetworkId) -> Result<(), AddressError> {
        let pool = self.pool(network)?;
        if pool.has_room() { Ok(()) } else { Err(pool.exhausted()) }
    }

    /// The next free address, with the length of the network's prefix.
    ///
    /// # Errors
    /// When there is none, or no such network.
    pub(crate) fn take(&mut self, network: &NetworkId) -> Result<Ipv4Net, AddressError> {
        let pool = self.pool(network)?;
        pool.take().ok_or_else(|| pool.exhausted())
    }

    /// The networks that addresses were taken of: they are to remember which was the last.
    pub(crate) fn into_changed(self) -> impl Iterator<Item = Network> {
        let pools = self.built.into_iter().flat_map(HashMap::into_values);
        pools
            .filter(|pool| pool.network.last != pool.last)
            .map(|pool| Network { last: pool.last, ..Network::clone(pool.network) })
    }

    fn pool(&mut self, network: &NetworkId) -> Result<&mut Pool<'a>, AddressError> {
        let built = self.built.get_or_insert_with(|| build(self.tables));
        built.get_mut(network).ok_or_else(|| AddressError::NoNetwork(network.clone()))
    }
}

/// The first `count` addresses of a network that nobody has an address of yet. It is to remember the last of them.
///
/// # Errors
/// When it has fewer.
pub(crate) fn first_of(network: &Arc<Network>, count: usize) -> Result<Vec<Ipv4Addr>, AddressError> {
    let mut pool = Pool::new(network);
    (0..count).map(|_| Ok(pool.take().ok_or_else(|| pool.exhausted())?.addr())).collect()
}

fn build(tables: &Tables) -> HashMap<&NetworkId, Pool<'_>> {
    let mut pools: HashMap<_, _> = tables.all::<Network>().map(|network| (&network.id, Pool::new(network))).collect();
    let mut mark = |network: &NetworkId, addr: Ipv4Addr| {
        if let Some(pool) = pools.get_mut(network) {
            pool.mark(addr);
        }
    };
    if let Some(home) = tables.home() {
        tables.all::<Node>().filter_map(|node| node.overlay_addr).for_each(|addr| mark(&home.id, addr));
    }
    for vip in tables.all::<Service>().flat_map(|service| &service.endpoint.virtual_ips) {
        mark(&vip.network, vip.addr.addr());
    }
    for attachment in tables.all::<Task>().filter(|task| holds(task)).flat_map(|task| &task.attachments) {
        mark(&attachment.network, attachment.addr.addr());
    }
    pools
}

/// Whether somebody may use the task's addresses: it has not ended, and what was never given to a node must still be wanted.
pub(super) fn holds(task: &Task) -> bool {
    !task.status.state.is_terminal() && (task.status.state >= TaskState::Assigned || task.is_live())
}

/// The addresses of one network.
///
/// They are given out onward from the one that was given last, and from the start again only at the end of the pool.
struct Pool<'a> {
    network: &'a Arc<Network>,
    /// The first address, and how many there are from it on.
    first: u32,
    size: u32,
    /// How far from the first those are that somebody has.
    taken: HashSet<u32>,
    last: Option<Ipv4Addr>,
}

impl<'a> Pool<'a> {
    fn new(network: &'a Arc<Network>) -> Self {
        let ipam = &network.spec.ipam;
        let (mut first, mut end) = (u32::from(ipam.subnet.network()) + 1, u32::from(ipam.subnet.broadcast()));
        if let Some(range) = ipam.range {
            first = first.max(range.network().into());
            end = end.min(u32::from(range.broadcast()).saturating_add(1));
        }
        let size = end.saturating_sub(first);
        let mut pool = Self { network, first, size, taken: HashSet::new(), last: network.last };
        pool.mark(ipam.gateway);
        pool
    }

    fn place(&self, addr: Ipv4Addr) -> Option<u32> {
        u32::from(addr).checked_sub(self.first).filter(|place| *place < self.size)
    }

    fn mark(&mut self, addr: Ipv4Addr) {
        self.taken.extend(self.place(addr));
    }

    fn has_room(&self) -> bool {
        self.taken.len() < self.size as usize
    }

    fn take(&mut self) -> Option<Ipv4Net> {
        if !self.has_room() {
            return None;
        }
        let start = self.last.and_then(|last| self.place(last)).map_or(0, |place| place + 1);
        let place = (start..self.size).chain(0..start).find(|place| !self.taken.contains(place))?;
        self.taken.insert(place);
        let addr = Ipv4Addr::from(self.first + place);
        self.last = Some(addr);
        Some(Ipv4Net::new_assert(addr, self.network.spec.ipam.subnet.prefix_len()))
    }

    fn exhausted(&self) -> AddressError {
        let spec = &self.network.spec;
        let way_out = match spec.ingress {
            true => "remove services or tasks, or replace the ingress network by a larger one",
            false => "remove services or tasks from it, or put some on another network",
        };
        let subnet = spec.ipam.range.unwrap_or(spec.ipam.subnet);
        AddressError::Exhausted { network: spec.name.clone(), subnet, way_out }
    }
}
