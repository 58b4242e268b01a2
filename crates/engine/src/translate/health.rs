//! Health checks: as services ask for them, and what comes of them.

use skep_model::{Health, HealthConfig, HealthState, HealthTest};

use super::nanoseconds;
use crate::error::Error;
use crate::types::container as running;
use crate::types::container_spec as wire;

const FIELD: &str = "ContainerSpec.Healthcheck";
/// The shortest length of time that Docker takes.
const SHORTEST: i64 = 1_000_000;

/// Reads `Healthcheck`. One in which nothing is said is none.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for what makes no sense.
pub fn from_wire(health: Option<&wire::HealthConfig>) -> Result<Option<HealthConfig>, Error> {
    let Some(health) = health.filter(|health| **health != wire::HealthConfig::default()) else { return Ok(None) };
    let length = |name: &str, nanoseconds: i64| match nanoseconds {
        0 => Ok(None),
        SHORTEST.. => super::duration(FIELD, nanoseconds).map(Some),
        _ => Err(Error::invalid(format!("{FIELD}.{name} cannot be less than 1ms"))),
    };
    let retries = u32::try_from(health.retries).map_err(|_| {
        Error::invalid(format!("{FIELD}.Retries: {} is no number of failures: 0 (the default) or more", health.retries))
    })?;
    Ok(Some(HealthConfig {
        test: test(&health.test)?,
        interval: length("Interval", health.interval)?,
        timeout: length("Timeout", health.timeout)?,
        start_period: length("StartPeriod", health.start_period)?,
        start_interval: length("StartInterval", health.start_interval)?,
        retries: (retries > 0).then_some(retries),
    }))
}

fn test(words: &[String]) -> Result<Option<HealthTest>, Error> {
    let Some((kind, rest)) = words.split_first() else { return Ok(None) };
    match (kind.as_str(), rest) {
        ("NONE", []) => Ok(Some(HealthTest::Disabled)),
        ("CMD", [program, ..]) if !program.is_empty() => Ok(Some(HealthTest::Program(rest.to_vec()))),
        ("CMD-SHELL", [line, ..]) if !line.is_empty() => Ok(Some(HealthTest::Shell(rest.to_vec()))),
        _ => Err(Error::invalid(format!(
            "{FIELD}.Test: {words:?} is no test: NONE, CMD with a program, or CMD-SHELL with a line of shell is expected"
        ))),
    }
}

/// Writes `Healthcheck`.
#[must_use]
pub fn to_wire(health: &HealthConfig) -> wire::HealthConfig {
    let words = |kind: &str, rest: &[String]| [kind.to_owned()].into_iter().chain(rest.iter().cloned()).collect();
    wire::HealthConfig {
        test: match &health.test {
            None => Vec::new(),
            Some(HealthTest::Disabled) => words("NONE", &[]),
            Some(HealthTest::Program(rest)) => words("CMD", rest),
            Some(HealthTest::Shell(rest)) => words("CMD-SHELL", rest),
        },
        interval: health.interval.map_or(0, nanoseconds),
        timeout: health.timeout.map_or(0, nanoseconds),
        start_period: health.start_period.map_or(0, nanoseconds),
        start_interval: health.start_interval.map_or(0, nanoseconds),
        retries: health.retries.unwrap_or_default().into(),
    }
}

/// Docker's word for a state of health.
#[must_use]
pub fn word(state: HealthState) -> &'static str {
    match state {
        HealthState::Starting => "starting",
        HealthState::Healthy => "healthy",
        HealthState::Unhealthy => "unhealthy",
    }
}

/// What stands behind the status of a container in lists.
#[must_use]
pub fn remark(health: &Health) -> &'static str {
    match health.state {
        HealthState::Starting => " (health: starting)",
        HealthState::Healthy => " (healthy)",
        HealthState::Unhealthy => " (unhealthy)",
    }
}

/// Writes `State.Health`.
#[must_use]
pub fn state(health: &Health) -> running::Health {
    let result = |r: &skep_model::HealthResult| running::HealthcheckResult {
        start: r.start.into(),
        end: r.end.into(),
        exit_code: r.exit_code,
        output: r.output.clone(),
    };
    running::Health {
        status: word(health.state).to_owned(),
        failing_streak: health.failing,
        log: health.results.iter().map(result).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn what_is_asked_for_is_kept_and_given_back() {
        for test in [&["CMD-SHELL", "curl -f localhost"][..], &["CMD", "/check", "-v"], &["NONE"], &[]] {
            let asked =
                wire::HealthConfig { test: words(test), interval: 2_000_000_000, retries: 2, ..Default::default() };
            let read = from_wire(Some(&asked)).unwrap().unwrap();
            assert_eq!(to_wire(&read), asked);
        }
        assert_eq!(from_wire(Some(&wire::HealthConfig::default())).unwrap(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |health: wire::HealthConfig| from_wire(Some(&health)).unwrap_err().message;
        for test in [&["CMD"][..], &["CMD-SHELL", ""], &["curl"], &["NONE", "x"]] {
            assert!(refused(wire::HealthConfig { test: words(test), ..Default::default() }).contains(".Test"));
        }
        assert!(
            refused(wire::HealthConfig { interval: 999_999, ..Default::default() })
                .contains(".Interval cannot be less")
        );
        assert!(refused(wire::HealthConfig { timeout: -1, ..Default::default() }).contains(".Timeout"));
        assert!(refused(wire::HealthConfig { retries: -1, ..Default::default() }).contains(".Retries"));
    }
}
