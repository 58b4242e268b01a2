//! The operations that people ask for.
//!
//! Each reads, checks and writes in one turn of the writer: what was checked is still true when it is written.

mod certificate;
mod cluster;
mod data;
mod init;
mod join;
mod logs;
pub(crate) mod network;
mod node;
mod recover;
pub(crate) mod service;
mod validate;

use std::sync::Arc;

use skep_model::{Cluster, Meta, Version};
use skep_store::{Change, Store, Tables, Writer};

pub(crate) use self::certificate::{issue, renew};
pub use self::cluster::{GivenRoot, JoinTokens, Rotate};
pub use self::init::{InitCluster, init_cluster};
pub(crate) use self::join::{Joining, join};
pub use self::logs::{TaskLogOptions, TaskLogSource};
pub use self::node::NodeRemoval;
pub use self::recover::manage_alone;
pub use self::validate::SpecError;
use crate::ControlError;
use crate::dispatcher::Hub;
use crate::group::Group;

/// What people can ask of the swarm. Cheap to clone. Works on the leader; elsewhere writes are refused for want of a leader.
///
/// Every operation returns once it is durable. All are safe to cancel: a write may or may not have happened then.
#[derive(Clone)]
pub struct Control {
    writer: Arc<Writer>,
    hub: Arc<Hub>,
    group: Arc<dyn Group>,
}

impl Control {
    pub(crate) fn new(writer: Arc<Writer>, hub: Arc<Hub>, group: Arc<dyn Group>) -> Self {
        Self { writer, hub, group }
    }

    /// What this manager knows of the swarm.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.writer.store()
    }

    async fn write<R>(
        &self,
        plan: impl FnOnce(&Tables) -> Result<(R, Vec<Change>), ControlError>,
    ) -> Result<R, ControlError> {
        Ok(self.writer.update(plan).await?)
    }
}

/// The swarm's own object.
fn cluster(tables: &Tables) -> Result<&Arc<Cluster>, ControlError> {
    tables.cluster().ok_or(ControlError::NoCluster)
}

/// Refuses a change of what is asked of something when the caller has not seen what is asked of it now. What has changed by itself since then (who
/// leads, how far an update has come) is no reason: the caller says nothing of it.
fn in_sequence(seen: Version, is: &Meta) -> Result<(), ControlError> {
    if (is.asked..=is.version).contains(&seen) { Ok(()) } else { Err(ControlError::OutOfSequence) }
}
