//! How managers agree: the log of proposals that every one of them applies in the same order.
//!
//! [`Raft`] is a member of the group. It implements [`skep_store::Log`]: a proposal that it acknowledges is on the disks of a majority
//! and applied to this manager's [`skep_store::Store`], and no `kill -9` takes it back. [`Raft::leadership`] says who leads; the loops
//! that decide run while that says [`Leadership::Leader`], and not before: only then has the store caught up with everything
//! that was ever acknowledged.
//!
//! A leader that has heard of no majority for a second says [`Leadership::Unknown`], and who waits for a proposal hears so too. Between
//! the two it may be that another one leads already: [`Raft::confirm`] asks a majority, for reads that must not be outdated.
//!
//! On disk a member has a directory of its own: `log.redb` holds the log and the vote, `snap-<index>` the state up to that index of the log, and
//! `key.json` the key under which the other two are sealed ([`Vault`]), which an [`UnlockKey`](skep_ca::UnlockKey) can wrap. All are checked when the
//! member starts; what is damaged is refused by name, never read past. When the majority of a group is lost for good,
//! [`Raft::recover_alone`] goes on with one member. Members speak through [`skep_rpc`], and with those of their own group alone; [`Raft::service`]
//! is what a manager adds to its [`skep_rpc::Services`].
//!
//! The consensus itself is openraft's, which is named in this crate alone.

#![forbid(unsafe_code)]

mod error;
mod fault;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod group;
mod leadership;
mod log;
mod machine;
mod member;
mod network;
mod reach;
mod service;
mod snapshot;
mod types;
mod vault;

#[cfg(test)]
mod tests;

pub use error::RaftError;
pub use leadership::Leadership;
pub use member::{Raft, RaftConfig};
pub use reach::Reachability;
pub use service::RaftService;
pub use vault::Vault;
