//! Several nodes on one machine, in network namespaces: for `skep lab`, `skep demo`, tests and benches.
//!
//! A [`Lab`] has nodes 1 to N and a client. Each is a network namespace and a host name of its own; two switches connect them all, so
//! that every node has two addresses of each family ([`Families`]). On each node runs the daemon of a real skep, with a data directory, a runtime directory, a
//! control group and an API socket of its own. Processes can be killed
//! ([`Lab::kill_node`]), power cut ([`Lab::lose_power`]), cables pulled ([`Lab::cut_link`]), daemons
//! stopped and killed, and any program run inside ([`Lab::exec`]).
//!
//! Nothing of a lab needs the process that made it: what it consists of is written below `/run/skep-lab`, [`Lab::open`] finds it
//! again, and [`Lab::down`] removes it from whatever state a crash left it in. [`leftovers`] tells what is still there. A
//! [`LabGuard`] takes the lab down when a test ends, however it ends.
//!
//! Nothing outside of the lab's own namespaces, directories and control groups is touched.

#![forbid(unsafe_code)]

mod cgroups;
mod daemon;
mod error;
mod guard;
pub mod http;
mod lab;
mod mounts;
mod place;
mod power;
mod processes;
mod state;
mod teardown;
mod topology;

pub use error::LabError;
pub use guard::LabGuard;
pub use lab::{Lab, LabConfig, leftovers};
pub use place::{Families, Place};
