//! How updates roll and when tasks are tried again.

use skep_model::{
    FailureAction, RestartCondition, RestartPolicy, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};

use super::{duration, nanoseconds};
use crate::error::Error;
use crate::types::service as wire;

/// The name of a state of an update.
pub(crate) fn state_word(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    }
}

fn failure_action(text: &str) -> Result<FailureAction, Error> {
    match text {
        "" | "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        "rollback" => Ok(FailureAction::Rollback),
        _ => Err(Error::invalid(format!(
            "unrecognized update failure action {text}: expected pause, continue or rollback"
        ))),
    }
}

fn failure_word(action: FailureAction) -> &'static str {
    match action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    }
}

fn order(text: &str) -> Result<UpdateOrder, Error> {
    match text {
        "" | "stop-first" => Ok(UpdateOrder::StopFirst),
        "start-first" => Ok(UpdateOrder::StartFirst),
        _ => Err(Error::invalid(format!("unrecognized update order {text}: expected stop-first or start-first"))),
    }
}

fn order_word(order: UpdateOrder) -> &'static str {
    match order {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    }
}

/// Which of the two configurations is meant, and with that which words apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `UpdateConfig`.
    Update,
    /// `RollbackConfig`.
    Rollback,
}

/// Reads `UpdateConfig` or `RollbackConfig`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the field.
pub fn config_from_wire(direction: Direction, config: &wire::UpdateConfig) -> Result<UpdateConfig, Error> {
    let field = match direction {
        Direction::Update => "UpdateConfig",
        Direction::Rollback => "RollbackConfig",
    };
    let failure_action = failure_action(&config.failure_action)?;
    if direction == Direction::Rollback && failure_action == FailureAction::Rollback {
        return Err(Error::invalid(
            "RollbackConfig: a rollback that fails cannot be rolled back; use pause or continue",
        ));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Error::invalid(format!("{field}: update-maxfailureratio cannot be less than 0 or bigger than 1")));
    }
    let monitor = duration(&format!("{field}.Monitor"), config.monitor)?;
    Ok(UpdateConfig {
        parallelism: config.parallelism,
        delay: duration(&format!("{field}.Delay"), config.delay)?,
        failure_action,
        monitor: (!monitor.is_zero()).then_some(monitor),
        max_failure_ratio: config.max_failure_ratio,
        order: order(&config.order)?,
    })
}

/// Writes `UpdateConfig` or `RollbackConfig`.
#[must_use]
pub fn config_to_wire(config: &UpdateConfig) -> wire::UpdateConfig {
    wire::UpdateConfig {
        parallelism: config.parallelism,
        delay: nanoseconds(config.delay),
        failure_action: failure_word(config.failure_action).to_owned(),
        monitor: config.monitor.map_or(0, nanoseconds),
        max_failure_ratio: config.max_failure_ratio,
        order: order_word(config.order).to_owned(),
    }
}

/// Reads `RestartPolicy`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the field.
pub fn restart_from_wire(policy: &wire::RestartPolicy) -> Result<RestartPolicy, Error> {
    let condition = match policy.condition.as_str() {
        "" | "any" => RestartCondition::Any,
        "none" => RestartCondition::None,
        "on-failure" => RestartCondition::OnFailure,
        other => {
            return Err(Error::invalid(format!(
                "invalid RestartCondition: {other:?}: expected none, on-failure or any"
            )));
        }
    };
    let delay = policy.delay.map(|d| duration("RestartPolicy.Delay", d)).transpose()?;
    let window = policy.window.map(|w| duration("RestartPolicy.Window", w)).transpose()?;
    Ok(RestartPolicy { condition, delay, max_attempts: policy.max_attempts.unwrap_or(0), window })
}

/// Writes `RestartPolicy`.
#[must_use]
pub fn restart_to_wire(policy: &RestartPolicy) -> wire::RestartPolicy {
    let condition = match policy.condition {
        RestartCondition::None => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Any => "any",
    };
    wire::RestartPolicy {
        condition: condition.to_owned(),
        delay: policy.delay.map(nanoseconds),
        max_attempts: Some(policy.max_attempts),
        window: policy.window.map(nanoseconds),
    }
}

/// Writes `UpdateStatus`.
#[must_use]
pub fn status_to_wire(status: &UpdateStatus) -> wire::UpdateStatus {
    wire::UpdateStatus {
        state: state_word(status.state).to_owned(),
        started_at: Some(status.started.into()),
        completed_at: status.completed.map(Into::into),
        message: status.message.clone(),
    }
}
