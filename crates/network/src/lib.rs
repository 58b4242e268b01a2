//! Links, namespaces, addresses and sockets: what skep asks the kernel's network for.
//!
//! A node has one overlay device and, for each task, a pair of virtual Ethernet devices: one end in the node's namespace, the other,
//! `eth0`, in the task's. [`NodeNetwork`] makes, repairs, lists and removes them, and tells what else the node has ([`Facts`]), so that
//! an advertise address can be chosen and the mesh knows the node's own addresses. [`KernelNetwork`] does it with netlink in the
//! namespace in which the daemon runs; [`FakeNetwork`] is the same in memory.
//!
//! [`Namespace`] is a namespace that a path holds on to. [`Listeners`] asks the kernel what listens in one, cheaply enough to be
//! asked many times a second: that is how a starting task is known to be ready. [`NodePorts`] tells which ports of the node its own
//! processes have, and keeps others for the mesh ([`Reservation`]). [`Wiring`] lays cables between namespaces, for labs
//! and tests.
//!
//! Everything here is level-triggered: a call compares what is there with what should be and changes the difference, so each may be
//! repeated at any time, and [`Changes`] says only *that* something changed. Nothing here routes packets (that is the mesh's),
//! touches nftables or a link that is not skep's, and no netlink type leaves the crate.

mod changes;
mod driver;
mod dump;
mod error;
mod facts;
mod fake;
mod ipsec;
mod listeners;
mod namespace;
mod node;
mod ports;
mod probe;
mod sysctl;
mod wiring;

pub use changes::Changes;
pub use driver::KernelNetwork;
pub use error::NetworkError;
pub use facts::{Address, Facts, Link, Way};
pub use fake::FakeNetwork;
pub use listeners::{Listener, Listeners, listeners};
pub use namespace::{Namespace, NamespaceKind};
pub use node::{
    Attachment, GATEWAY, GATEWAY6, HOST_MAC, HostLink, MacAddr, NodeNetwork, OVERLAY_MAC, Overlay, OverlayLink,
    TASK_LINK_PREFIX, TaskAddress, TaskLink, host_link_name, task_mac,
};
pub use ports::{FakePorts, KernelPorts, NodePorts, PortAddress, Reservation, ReserveError, raise_file_limit};
pub use probe::send_in_anothers_name;
pub use wiring::Wiring;
