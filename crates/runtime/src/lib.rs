//! Containers: made from an image and a task's spec, started, watched, read and removed.
//!
//! [`Runtime`] is what the rest of the house knows. Containers run through libcontainer, each owned by one
//! small process, the *shim*, which outlives the daemon: it starts the container, writes its output to log
//! files and its exit status to a file. The daemon may stop, crash or be replaced meanwhile; what exists is found again on disk
//! and in the kernel ([`Runtime::list`]). [`FakeRuntime`] keeps containers in memory and does as a test tells it.
//!
//! [`images`] is the store that root file systems come from.
//!
//! This crate never decides when a container starts or stops, and makes no network namespaces: a container joins the one that
//! it is given.

mod container;
mod error;
mod fake;
pub mod images;
mod signal;

pub use container::{
    BadContainerId, Container, ContainerId, ContainerInfo, ContainerState, Exit, LogLine, LogOptions, LogStream, Pid,
    Runtime,
};
pub use error::RuntimeError;
pub use fake::FakeRuntime;
pub use signal::{BadSignal, parse_signal};
