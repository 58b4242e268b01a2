//! What to do next for one task: a pure function of what is wanted, what was reported, and what the container really does.

use skep_model::TaskState;

/// What the runtime says of a task's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// There is none.
    Absent,
    /// Prepared and not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process runs, and its health checks say that it does not do its work.
    Unhealthy,
    /// Its first process has ended. `None`: nobody saw with which code.
    Exited(Option<i32>),
    /// Its first process has ended, after its health checks had given it up.
    GivenUp(Option<i32>),
}

/// The one thing to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Say that the node has taken the task on.
    Accept,
    /// Make network, image and bundle ready; say so before and after.
    Prepare,
    /// The container is prepared: say so.
    MarkReady,
    /// Start the container; say so before and after.
    Start,
    /// The container runs: say so.
    MarkRunning,
    /// Nothing to do until the container ends or something else is wanted.
    Watch,
    /// Take the endpoint out of the mesh, then ask the container to end.
    Stop,
    /// The task is over: say how.
    Settle(Ending),
    /// Nothing to do until something else is wanted.
    Wait,
}

/// How a task is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop.
    Shutdown(Option<i32>),
    /// It ended by itself and well.
    Complete,
    /// It ended by itself and not well, or nobody knows.
    Failed(Option<i32>),
    /// It was ended because its health checks said that it does not do its work.
    Unhealthy(Option<i32>),
}

impl Ending {
    /// The state to report.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            Self::Shutdown(_) => TaskState::Shutdown,
            Self::Complete => TaskState::Complete,
            Self::Failed(_) | Self::Unhealthy(_) => TaskState::Failed,
        }
    }

    /// The exit code, where there is one.
    #[must_use]
    pub fn exit_code(self) -> Option<i32> {
        match self {
            Self::Shutdown(code) | Self::Failed(code) | Self::Unhealthy(code) => code,
            Self::Complete => Some(0),
        }
    }
}

/// What to do next for a task that was last reported as `reported`, that should come to `desired`, and whose container is
/// `container`.
#[must_use]
pub fn next(reported: TaskState, desired: TaskState, container: Container) -> Action {
    use TaskState as S;
    if reported.is_terminal() {
        return Action::Wait;
    }
    let wanted = desired <= S::Running;
    match (container, reported) {
        (Container::Exited(code), _) => Action::Settle(ending(code, wanted)),
        (Container::GivenUp(code), _) if wanted => Action::Settle(Ending::Unhealthy(code)),
        (Container::GivenUp(code), _) => Action::Settle(Ending::Shutdown(code)),
        (Container::Unhealthy, _) => Action::Stop,
        (Container::Running, S::Running) if wanted => Action::Watch,
        (Container::Running, _) if !wanted => Action::Stop,
        (Container::Running, _) => Action::MarkRunning,
        // Whatever is not running need not be stopped.
        (Container::Absent | Container::Created, _) if !wanted => Action::Settle(Ending::Shutdown(None)),
        (_, S::New | S::Pending | S::Assigned) => Action::Accept,
        (Container::Created, S::Accepted | S::Preparing) => Action::MarkReady,
        (Container::Absent, S::Accepted | S::Preparing) => Action::Prepare,
        (Container::Created, S::Ready) if desired < S::Running => Action::Wait,
        (Container::Created, S::Ready | S::Starting) => Action::Start,
        // Prepared or even running before, and gone now: the node was cleaned behind our back, or it booted anew.
        (Container::Absent | Container::Created, _) => Action::Settle(Ending::Failed(None)),
    }
}

fn ending(code: Option<i32>, wanted: bool) -> Ending {
    match code {
        _ if !wanted => Ending::Shutdown(code),
        Some(0) => Ending::Complete,
        _ => Ending::Failed(code),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [TaskState; 14] = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];

    /// What the world looks like after `action` went well.
    fn perform(action: Action, reported: TaskState, container: Container) -> (TaskState, Container) {
        match action {
            Action::Accept => (TaskState::Accepted, container),
            Action::Prepare => (TaskState::Preparing, Container::Created),
            Action::MarkReady => (TaskState::Ready, container),
            Action::Start => (TaskState::Starting, Container::Running),
            Action::MarkRunning => (TaskState::Running, container),
            Action::Stop if container == Container::Unhealthy => (reported, Container::GivenUp(Some(0))),
            Action::Stop => (reported, Container::Exited(Some(0))),
            Action::Settle(ending) => (ending.state(), container),
            Action::Watch | Action::Wait => (reported, container),
        }
    }

    #[test]
    fn a_task_goes_all_the_way_to_running_and_stays() {
        let mut world = (TaskState::Assigned, Container::Absent);
        let mut seen = Vec::new();
        for _ in 0..10 {
            let action = next(world.0, TaskState::Running, world.1);
            seen.push(action);
            world = perform(action, world.0, world.1);
            if action == Action::Watch {
                break;
            }
        }
        assert_eq!(
            seen,
            [Action::Accept, Action::Prepare, Action::MarkReady, Action::Start, Action::MarkRunning, Action::Watch]
        );
    }

    #[test]
    fn a_task_waits_ready_until_it_is_wanted_to_run() {
        assert_eq!(next(TaskState::Ready, TaskState::Ready, Container::Created), Action::Wait);
        assert_eq!(next(TaskState::Ready, TaskState::Running, Container::Created), Action::Start);
    }

    #[test]
    fn endings_are_named_by_who_wanted_them() {
        let over = |desired, code| next(TaskState::Running, desired, Container::Exited(code));
        assert_eq!(over(TaskState::Running, Some(0)), Action::Settle(Ending::Complete));
        assert_eq!(over(TaskState::Running, Some(3)), Action::Settle(Ending::Failed(Some(3))));
        assert_eq!(over(TaskState::Running, None), Action::Settle(Ending::Failed(None)));
        assert_eq!(over(TaskState::Shutdown, Some(3)), Action::Settle(Ending::Shutdown(Some(3))));
    }

    #[test]
    fn one_that_is_given_up_is_stopped_and_has_failed_however_it_ends() {
        for reported in [TaskState::Starting, TaskState::Running] {
            assert_eq!(next(reported, TaskState::Running, Container::Unhealthy), Action::Stop);
        }
        let over = |desired| next(TaskState::Running, desired, Container::GivenUp(Some(0)));
        assert_eq!(over(TaskState::Running), Action::Settle(Ending::Unhealthy(Some(0))));
        assert_eq!(Ending::Unhealthy(Some(0)).state(), TaskState::Failed);
        assert_eq!(over(TaskState::Shutdown), Action::Settle(Ending::Shutdown(Some(0))));
    }

    proptest! {
        /// From anywhere, whatever is wanted: the reported state never goes back, and after few steps nothing is left to do.
        #[test]
        fn it_always_comes_to_rest(r in 0..STATES.len(), d in 0..STATES.len(), c in 0..6usize, code in 0..2i32) {
            let exits = [Container::Exited(Some(code)), Container::GivenUp(Some(code))];
            let lives = [Container::Absent, Container::Created, Container::Running, Container::Unhealthy];
            let mut container = if c < 4 { lives[c] } else { exits[c - 4] };
            let (mut reported, desired) = (STATES[r], STATES[d]);
            for _ in 0..8 {
                let action = next(reported, desired, container);
                if matches!(action, Action::Watch | Action::Wait) {
                    break;
                }
                let (state, now) = perform(action, reported, container);
                prop_assert!(state >= reported, "{action:?} went from {reported:?} to {state:?}");
                (reported, container) = (state, now);
            }
            prop_assert!(matches!(next(reported, desired, container), Action::Watch | Action::Wait));
            if desired > TaskState::Running {
                prop_assert!(reported.is_terminal());
                prop_assert!(container != Container::Running || STATES[r].is_terminal());
            }
        }
    }
}
