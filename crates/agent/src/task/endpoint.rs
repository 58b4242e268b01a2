//! What to do next for the endpoint of a task whose container runs: pure functions of what is true of it. They are asked anew after every
//! step, so that a daemon goes on where the one before it was stopped.

use skep_model::EndpointState;

/// What is true of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its state in this node's mesh; `None` when it is not there, as after a restart of the daemon.
    pub here: Option<EndpointState>,
    /// Its state as everybody was told.
    pub told: Option<EndpointState>,
    /// Whether this node's data plane knows it as it is here.
    pub settled: bool,
    /// Whether anybody can have a flow to it.
    pub published: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Put it into this node's mesh in this state, and tell everybody.
    Enter(EndpointState),
    /// Give it this state: in this node's mesh first, then for everybody.
    Announce(EndpointState),
    /// Wait until the task takes connections, then announce it as ready.
    AwaitListening,
    /// Wait until this node's data plane knows its state.
    AwaitDataPlane,
    /// Wait until it has no flows left or they have had their time. That is the last step.
    AwaitFlows,
    /// Nothing.
    Done,
}

/// For a task that should run: on the way to new flows.
#[must_use]
pub fn open(endpoint: Endpoint) -> Step {
    match (endpoint.here, endpoint.told) {
        (None, _) | (_, None) => enter(endpoint),
        (Some(EndpointState::Ready), Some(EndpointState::Ready)) => Step::Done,
        _ => Step::AwaitListening,
    }
}

/// For a task that is to stop: on the way to its stop signal. Nobody is sent to it any more before the flows that it has get their time; what it
/// was when the daemon was restarted need not be what the data plane has, so that is waited for in every state.
#[must_use]
pub fn close(endpoint: Endpoint) -> Step {
    match (endpoint.here, endpoint.told) {
        (None, _) | (_, None) => enter(endpoint),
        _ if !endpoint.published => Step::Done,
        (Some(EndpointState::Ready), _) | (_, Some(EndpointState::Ready)) => Step::Announce(EndpointState::Draining),
        _ if !endpoint.settled => Step::AwaitDataPlane,
        _ => Step::AwaitFlows,
    }
}

/// As everybody was told, so that nothing changes for anybody.
fn enter(endpoint: Endpoint) -> Step {
    Step::Enter(endpoint.told.or(endpoint.here).unwrap_or(EndpointState::Starting))
}

#[cfg(test)]
mod tests;
