//! Bytes from a network, a disk or an image, spoiled, given to whatever reads them: nothing panics, nothing takes long, nothing is written where it
//! should not be, and what is read means the same when it is written and read again.
//!
//! A [`Target`] is a plain function of bytes with the valid inputs that spoiling begins from, so that any engine can drive it. [`drive`] is a small one of
//! our own, deterministic, without sanitizers and without a view of what was covered: it runs among the other tests. Whatever it finds is an input that
//! belongs into `corpus/<target>/`, from where every run begins.
//!
//! Gossip has a state, and a driver of its own in `tests/gossip.rs` with the same [`Mutator`].

#![forbid(unsafe_code)]

mod drive;
mod mutate;
mod targets;

pub use drive::{Bound, drive};
pub use mutate::Mutator;
pub use targets::{ALL, Target};
