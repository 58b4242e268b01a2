//! The programs on single packets: a frame in, a verdict and a frame out, and what became of the maps. What needs a tunnel is sent through a
//! real one by a member that speaks VXLAN itself.

#![allow(unreachable_pub, reason = "nobody is outside")]

#[path = "../lab/mod.rs"]
mod lab;
mod rig;
mod wire;

mod bytes;
mod errors;
mod fragments;
mod fuzz;
mod networks;
mod overlay;
mod ports;
mod refusals;
mod segments;
mod states;
mod tasks;
mod translation;
mod tunnel;
mod unwrapping;
