//! The routing mesh: how a packet for a published port of any node reaches a task, and how the answer finds its way back.
//!
//! Three layers, each usable without the ones below it:
//! * [`Desired`] says in the swarm's words what a node's mesh should be; [`compile`] turns it into [`Tables`], the things that are
//!   looked up per flow. Both are plain data. [`maglev`] is the part of it that chooses backends, the same on every node.
//! * [`Datapath`] is something that can be brought to the state that [`Tables`] describe. [`Fake`] does so in memory.
//! * [`Bpf`] does so in the kernel: five eBPF programs (in the repository's `bpf/`), their maps, pinned so that traffic goes on
//!   while no daemon runs, and their attachments to devices.
//!
//! The crate makes no devices, addresses or routes, and knows interfaces only by the indexes that it is given. It keeps no state
//! of its own: what is in the kernel is read back, compared and repaired at each [`Datapath::apply`].

mod bpf;
mod choose;
mod compile;
mod datapath;
mod desired;
mod fake;
mod flow;
pub mod maglev;
mod table;
#[cfg(test)]
mod world;

pub use bpf::{Bpf, DIRECT_VNI, FORWARD_VNI, MapSizes, PROBE_PORT, REPLY_VNI, SECOND_CHANCE_VNI, check_kernel, traces};
pub use choose::choose;
pub use compile::compile;
pub use datapath::{Applied, Counters, Datapath, DatapathError, DropReason, Event, Traffic};
pub use desired::{Desired, Devices, LocalTask, LocatedEndpoint, Network, NetworkKind, OwnNode};
pub use fake::Fake;
pub use flow::{Flow, FlowRole, FlowState, FlowTable, Usage};
pub use table::{
    AddressOwner, Answering, Backend, BackendState, Frontend, FrontendKey, Group, GroupKey, Hook, Idle, NodeFacts,
    Place, Tables, Vip, Way,
};
