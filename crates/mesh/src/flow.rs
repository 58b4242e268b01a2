//! Flows and fill levels of a data plane, for people to look at.

use std::net::SocketAddr;
use std::time::Duration;

use skep_model::{Protocol, TaskId};

use crate::datapath::DatapathError;
use crate::table::Place;

/// The flows of a data plane, and its tasks as they were when this was made. To read them takes as long as there are flows, and holds up
/// nobody: tables may be applied meanwhile. The table changes while it is read, which may cost an entry.
pub trait FlowTable: Send {
    /// All flows, in no order.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn flows(&self) -> Result<Vec<Flow>, DatapathError>;

    /// Flows to a task of this node that are known and not closed, to see whether a draining task is still needed.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn open_flows(&self, task: &TaskId) -> Result<u64, DatapathError>;

    /// How full it is. A flow may have more than one entry.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn usage(&self) -> Result<Usage, DatapathError>;
}

/// A flow that the data plane remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// Who asked.
    pub client: SocketAddr,
    /// The node's address and published port that were asked, or a service's own address.
    pub asked: SocketAddr,
    /// Whether that is a service's own.
    pub vip: bool,
    /// The task that has it; `None` when that is gone.
    pub task: Option<TaskId>,
    /// Where the task is.
    pub place: Option<Place>,
    /// What this node does for it.
    pub role: FlowRole,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet, to about a second.
    pub idle: Duration,
}

/// What a node does for a flow. One that the task's own node was asked for is listed once, as [`FlowRole::Asked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowRole {
    /// The client asked this node.
    Asked,
    /// Another node was asked, and passes the flow on to a task of this one.
    Served,
}

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowState {
    /// Not answered yet.
    Opening,
    /// Answered.
    Open,
    /// One side has ended it.
    Closing,
    /// Both have, or it was reset.
    Closed,
}

/// How full a table of the data plane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The table's name.
    pub table: &'static str,
    /// Entries in it.
    pub used: u64,
    /// Entries that fit.
    pub room: u64,
}
