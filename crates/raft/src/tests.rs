//! Whole members on real disks and over real TCP.

mod alone;
mod calling;
mod damage;
mod group;
mod quorum;
mod recovery;
mod rig;
mod suite;
