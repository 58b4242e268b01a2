//! What is asked for and what is answered.

mod conformance;
mod kernel;
mod outside;
mod properties;
mod resolver;
mod world;
