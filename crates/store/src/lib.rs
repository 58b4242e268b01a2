//! The cluster's state in memory: tables of objects, changed only by [`Proposal`]s that the log has committed.
//!
//! [`Tables`] is the state itself, a plain value: every manager that applies the same proposals in the same order has the
//! same tables. [`Store`] shares it: [`Store::view`] reads, [`Store::watch`] tells what changed. [`Writer`] is the one way to
//! change it: a function reads the tables and returns [`Change`]s, the [`Log`] commits them, and only then do they show.
//!
//! It never does I/O: how a proposal is made durable and agreed upon is the business of the log behind [`Log`].

#![forbid(unsafe_code)]

mod change;
mod shared;
mod snapshot;
mod tables;
mod writer;

pub use change::{Change, Event, EventKind, Key, Object, Proposal};
pub use shared::{Events, Lagged, Store};
pub use snapshot::SnapshotError;
pub use tables::{Entity, Outdated, Tables};
pub use writer::{Log, ProposeError, UpdateError, Writer};

#[cfg(any(test, feature = "fake"))]
pub use writer::LocalLog;
