//! The wire types of the Engine API, one module per object, by hand: field order and `omitempty` are those of Docker's own Go
//! structs, and [`go_json`] reads them by Go's rules.
//!
//! What each field means is the Engine API's to say (its reference describes every one); here stands only what a reader
//! could not guess: units, and what zero means. Types are shared with clients: the command line reads and writes the same.
#![allow(missing_docs, reason = "the fields are the Engine API's, and its reference documents each of them")]

pub mod container;
pub mod container_spec;
pub mod data;
pub mod event;
pub mod exec;
pub mod generic;
pub mod go_json;
pub mod image;
pub mod info;
pub mod meta;
pub mod network;
pub mod node;
pub mod registry;
pub mod service;
pub mod swarm;
pub mod system;
pub mod task;
pub mod volume;

/// Whether Go's `omitempty` would leave the value out.
pub(crate) fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
