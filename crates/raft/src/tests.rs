//! Whole members on real disks and over real TCP.

mod alone;
mod damage;
mod full;
mod group;
mod quorum;
mod recovery;
mod rig;
mod sealed;
mod suite;
