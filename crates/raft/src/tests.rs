//! Whole members on real disks and over real TCP, and ([`sim`]) on simulated ones that fail.

mod alone;
mod calling;
mod damage;
mod group;
mod quorum;
mod recovery;
mod rig;
mod sealed;
mod sim;
mod suite;
