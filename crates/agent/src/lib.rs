//! The node's side of the swarm: a session with a manager, and a controller for every task that the node was given.
//!
//! [`Agent`] holds it together. Managers say what should run ([`Assignments`], kept on disk); a controller per task compares that
//! with what its container really does and takes one step at a time ([`task::next`], a pure function); a [`Reporter`] carries
//! what came of it back. The mesh driver feeds the data plane from discovery and from the tasks that run here.
//!
//! It never decides where something runs, and it needs no manager to go on: with none in reach the tasks and the mesh stay as they are,
//! also over a restart of the daemon.

#![forbid(unsafe_code)]

mod assignments;
mod by_hand;
mod containers;
mod context;
mod direct;
mod disk;
mod endpoints;
mod error;
mod images;
mod logs;
mod mesh;
mod names;
mod records;
mod report;
mod reservations;
mod seen;
mod session;
pub mod task;
mod tasks;
mod templates;
mod underlay;

mod agent;

pub use agent::{Agent, AgentConfig, AgentState, Parts};
pub use assignments::Assignments;
pub use containers::container_id;
pub use context::ListenersAt;
pub use error::AgentError;
pub use names::{Outside, SocketsAt};
pub use report::{Reporter, Reports};
pub use templates::expanded;
