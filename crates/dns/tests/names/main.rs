//! What is asked for and what is answered.

mod conformance;
mod outside;
mod properties;
mod resolver;
mod world;
