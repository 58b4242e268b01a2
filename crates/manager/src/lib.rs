//! What managers do: keep what people ask for, decide what should run where, and tell the nodes.
//!
//! [`Manager`] is a manager's running part. Every manager has one; only the leader's does anything. It consists of
//!
//! - [`Control`], the operations that people ask for: they check, and write what is wanted into the store;
//! - the leader's loop, which compares what is wanted with what is and writes what should be different. The deciding is done by
//!   planners that are pure functions of the tables, the time and a seed: `orchestrator` (which tasks there should be),
//!   `allocator` (ports and addresses), `scheduler` (which node). Events only say which services to look at again; what is decided
//!   depends on the tables alone, so a new leader goes on where the old one stopped;
//! - the keeper of the [`Group`] of managers, which follows the nodes' roles;
//! - the dispatcher, which holds a session with every node: it tells what to run and what to know, takes in what became of it, and notices
//!   when a node is lost. What runs where right now is no business of managers: nodes tell each other.
//!
//! A task's `desired` state is written here and its `status` by its node, through the dispatcher; nobody else writes either.
//!
//! [`init_cluster`] makes the first objects of a new swarm. This crate runs no container and touches no packet.

#![forbid(unsafe_code)]

mod allocator;
mod control;
mod dispatcher;
mod draft;
mod error;
mod gossip_keys;
mod group;
mod leader;
mod manager;
mod orchestrator;
mod plan;
mod root_rotation;
mod scheduler;
#[cfg(test)]
mod tests;

pub use allocator::{AddressError, EndpointError, PortError, SubnetError, ingress_subnet};
pub use control::{
    Control, GivenRoot, InitCluster, JoinTokens, NodeRemoval, Rotate, SpecError, TaskLogOptions, TaskLogSource,
    init_cluster, manage_alone,
};
pub use dispatcher::{DispatcherService, Found, LogLine, LogStream, MembershipService, Presence};
pub use error::{ControlError, ErrorKind};
pub use group::{Group, GroupError, GroupMember};
pub use manager::{Manager, ManagerConfig};
