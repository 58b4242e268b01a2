//! One task on this node.

mod controller;
mod endpoint;
pub(crate) mod health;
mod machine;
mod ports;
mod readiness;

pub(crate) use controller::{Controller, Wanted};

#[cfg(test)]
pub(crate) fn example() -> skep_model::Task {
    controller::tests::task(skep_model::TaskState::Running)
}
pub use endpoint::{Endpoint, Step, close, open};
pub use machine::{Action, Container, Ending, next};
pub use ports::assign;
