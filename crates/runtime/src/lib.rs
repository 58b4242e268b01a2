//! Placeholder.

pub mod images;
