//! Whole members on real disks and over real TCP.

mod alone;
mod calling;
mod damage;
mod group;
mod rig;
mod suite;
