//! Ports are property: published ones are kept from other processes of the node, and those that a process has already are left to it.
//!
//! What is wanted follows from what the data plane should be; what is there is asked of the kernel, again at every look. So a port that its process
//! lets go is taken over at the next one, and one that a process has got hold of in between is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use skep_mesh::{Desired, OwnNode};
use skep_model::{ListenOn, PortConflict, PortOptions, Protocol, PublishedPort};
use skep_network::{Listener, NodePorts, PortAddress, Reservation, ReserveError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Conflicts that are told to managers, at most.
const TOLD: usize = 1000;

/// Every port that the node should answer on, and on which addresses.
pub(crate) fn wanted(desired: &Desired) -> BTreeSet<PortAddress> {
    let services = desired.services.iter().map(|service| (&service.ports, &service.options));
    let tasks = desired.local_tasks.iter().map(|task| (&task.host_ports, &task.host_options));
    let mut wanted = BTreeSet::new();
    for (ports, options) in services.chain(tasks) {
        let options: BTreeMap<_, _> = options.iter().map(|o| ((o.protocol, o.published), o)).collect();
        for port in ports {
            want(port, options.get(&(port.protocol, port.published)).copied(), &desired.node, &mut wanted);
        }
    }
    wanted
}

fn want(port: &PublishedPort, options: Option<&PortOptions>, node: &OwnNode, wanted: &mut BTreeSet<PortAddress>) {
    let on = |address| PortAddress { protocol: port.protocol, port: port.published, address };
    match options {
        Some(options) if !options.answers => {}
        Some(options) if !options.options.listen.is_empty() => {
            let addresses = options.options.listen.iter().flat_map(|listen| addresses(listen, node));
            wanted.extend(addresses.map(|address| on(Some(address))));
        }
        _ => drop(wanted.insert(on(None))),
    }
}

/// The node's own addresses that are meant, loopback ones too.
fn addresses(listen: &ListenOn, node: &OwnNode) -> Vec<IpAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    match listen {
        ListenOn::Interface(name) if name == "lo" => loopback.to_vec(),
        ListenOn::Interface(name) => node.addresses.iter().filter(|(_, at)| *at == name).map(|(a, _)| *a).collect(),
        ListenOn::Net(net) if single(net) && net.addr().is_loopback() => vec![net.addr()],
        ListenOn::Net(net) => node.addresses.keys().chain(&loopback).copied().filter(|a| net.contains(a)).collect(),
    }
}

fn single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Which of the ports belong to somebody else, and to whom.
fn conflicts<'p, 'l>(
    ports: impl Iterator<Item = &'p PortAddress>,
    listeners: &'l [Listener],
) -> BTreeMap<(Protocol, u16), &'l Listener> {
    let mut by_port: BTreeMap<(Protocol, u16), Vec<&Listener>> = BTreeMap::new();
    for listener in listeners {
        by_port.entry((listener.protocol, listener.port)).or_default().push(listener);
    }
    let met = ports.filter_map(|port| {
        let key = (port.protocol, port.port.get());
        let listener = by_port.get(&key)?.iter().find(|listener| port.meets(listener))?;
        Some((key, *listener))
    });
    met.collect()
}

/// Keeps ports.
pub(crate) struct Reservations {
    ports: Arc<dyn NodePorts>,
    held: BTreeMap<PortAddress, Reservation>,
    /// Wanted, and neither held nor somebody else's, as far as is known.
    open: BTreeSet<PortAddress>,
    /// Whose ports are whose, as people are told. `None` until it was looked at.
    told: watch::Sender<Option<Vec<PortConflict>>>,
    /// The same as it was looked at last. What is in the way no more is told once the port is reserved: until then somebody else can take it.
    seen: Vec<PortConflict>,
    /// Who has the sockets that are in the way, by their numbers: to find out takes a walk through all processes.
    holders: BTreeMap<u32, String>,
    /// What has been complained about.
    warned: BTreeSet<PortAddress>,
}

/// Whether the ports are as they were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Yes,
    /// A process has a port that seemed to be free: look again.
    No,
}

impl Reservations {
    pub(crate) fn new(ports: Arc<dyn NodePorts>) -> Self {
        Self {
            ports,
            held: BTreeMap::new(),
            open: BTreeSet::new(),
            told: watch::Sender::default(),
            seen: Vec::new(),
            holders: BTreeMap::new(),
            warned: BTreeSet::new(),
        }
    }

    /// Ports that processes of the node have, whenever that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Vec<PortConflict>>> {
        self.told.subscribe()
    }

    /// Lets go of what is not wanted any more, and says which ports are somebody else's: the data plane must leave them alone. Nothing is
    /// bound yet, so it takes no time however many ports are new.
    pub(crate) fn look(&mut self, wanted: &BTreeSet<PortAddress>) -> BTreeSet<(Protocol, u16)> {
        // First: what is let go must not be taken for somebody else's.
        self.held.retain(|port, _| wanted.contains(port));
        self.warned.retain(|port| wanted.contains(port));
        self.open = wanted.iter().filter(|port| !self.held.contains_key(port)).copied().collect();
        let listeners = if self.open.is_empty() { Vec::new() } else { self.listeners() };
        let taken = conflicts(self.open.iter(), &listeners);
        self.open.retain(|port| !taken.contains_key(&(port.protocol, port.port.get())));
        self.seen = self.named(&taken);
        let before = self.told.borrow().clone().unwrap_or_default();
        let over = before.into_iter().filter(|conflict| !self.seen.contains(conflict));
        let so_far: Vec<_> = self.seen.iter().cloned().chain(over).collect();
        let taken = taken.into_keys().collect();
        self.tell(so_far);
        taken
    }

    /// Reserves what is open. To be called once the data plane has it.
    pub(crate) fn settle(&mut self) -> Settled {
        let (mut in_use, mut refused) = (Vec::new(), Vec::new());
        for port in std::mem::take(&mut self.open) {
            match self.ports.reserve(&port) {
                Ok(reservation) => {
                    self.warned.remove(&port);
                    self.held.insert(port, reservation);
                }
                Err(ReserveError::InUse) => in_use.push(port),
                Err(ReserveError::Unsupported(protocol)) => debug!(%port, "not reserved: no {protocol} on this node"),
                Err(error) => refused.extend(self.warned.insert(port).then_some((port, error))),
            }
        }
        if let Some((port, error)) = refused.first() {
            // One reason is most often everybody's: ten thousand lines would say no more.
            let others = refused.len() - 1;
            warn!(%port, others, "published, but a process of this node could bind it too: {error}");
        }
        // A client's socket is no reason to take the port away from the mesh; it is tried again at the next look.
        let late = !in_use.is_empty() && !conflicts(in_use.iter(), &self.listeners()).is_empty();
        self.tell(self.seen.clone());
        if late { Settled::No } else { Settled::Yes }
    }

    /// Those of `ports`, which a task wants to itself on all addresses, that a process of the node has.
    pub(crate) fn taken(&self, ports: impl Iterator<Item = (Protocol, NonZeroU16)>) -> Vec<PortConflict> {
        let mut listeners = self.listeners();
        listeners.retain(|listener| !self.holds(listener.protocol, listener.port));
        let wanted: Vec<_> = ports.map(|(protocol, port)| PortAddress { protocol, port, address: None }).collect();
        let taken = conflicts(wanted.iter(), &listeners);
        let conflict = |port: &PortAddress| {
            let listener = taken.get(&(port.protocol, port.port.get()))?;
            let holder = self.ports.holder(listener).unwrap_or_default();
            Some(PortConflict { protocol: port.protocol, port: port.port, holder })
        };
        wanted.iter().filter_map(conflict).collect()
    }

    /// Whether the port is reserved, on whichever address.
    fn holds(&self, protocol: Protocol, port: u16) -> bool {
        let Some(port) = NonZeroU16::new(port) else { return false };
        let first = PortAddress { protocol, port, address: None };
        self.held.range(first..).next().is_some_and(|(held, _)| (held.protocol, held.port) == (protocol, port))
    }

    /// What listens on the node now.
    fn listeners(&self) -> Vec<Listener> {
        self.ports.listeners().unwrap_or_else(|error| {
            warn!("cannot see which ports processes of this node have: {error}");
            Vec::new()
        })
    }

    /// Whose the ports are that are taken.
    fn named(&mut self, taken: &BTreeMap<(Protocol, u16), &Listener>) -> Vec<PortConflict> {
        self.holders.retain(|inode, _| taken.values().any(|listener| listener.inode == *inode));
        let mut conflict = |(&(protocol, number), listener): (&(Protocol, u16), &&Listener)| {
            let port = number.try_into().ok()?;
            let seen = || self.ports.holder(listener).unwrap_or_default();
            let holder = self.holders.entry(listener.inode).or_insert_with(seen).clone();
            Some(PortConflict { protocol, port, holder })
        };
        taken.iter().take(TOLD).filter_map(&mut conflict).collect()
    }

    fn tell(&mut self, now: Vec<PortConflict>) {
        let before = self.told.borrow().clone().unwrap_or_default();
        for conflict in now.iter().filter(|c| !before.contains(c)) {
            warn!("published {conflict} on this node, and left to it: other nodes answer");
        }
        for conflict in before.iter().filter(|c| !now.contains(c)) {
            info!("published port {}/{} is not taken on this node any more", conflict.port, conflict.protocol);
        }
        self.told.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&now);
            *told = Some(now);
            changed
        });
    }

    /// Lets go of everything.
    pub(crate) fn close(&mut self) {
        self.held.clear();
        self.open.clear();
    }
}

#[cfg(test)]
mod tests;
