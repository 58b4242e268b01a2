//! Whether what runs in a container does its work, as a program in it says that is run from time to time.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How a container's health is checked. What is left out comes from the image, and else from [`HealthCheck`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    /// What is run; `None` is what the image says.
    pub test: Option<HealthTest>,
    /// The pause between two checks.
    pub interval: Option<Duration>,
    /// How long a check may take.
    pub timeout: Option<Duration>,
    /// For how long after its start a container that was never healthy may fail.
    pub start_period: Option<Duration>,
    /// The pause between two checks in that time.
    pub start_interval: Option<Duration>,
    /// After how many failures in a row a container is unhealthy.
    pub retries: Option<u32>,
}

/// What is run to check a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// Nothing, also when the image says something.
    Disabled,
    /// A program with its arguments.
    Program(Vec<String>),
    /// A line for `/bin/sh -c`, with further arguments of the shell behind it.
    Shell(Vec<String>),
}

/// A check with nothing left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The pause between two checks, and before the first.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// For how long after its start a container that was never healthy may fail.
    pub start_period: Duration,
    /// The pause between two checks in that time.
    pub start_interval: Duration,
    /// After how many failures in a row a container is unhealthy.
    pub retries: u32,
}

impl HealthCheck {
    /// Docker's, where nobody says otherwise.
    pub const INTERVAL: Duration = Duration::from_secs(30);
    /// Docker's, where nobody says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// Docker's, where nobody says otherwise.
    pub const START_INTERVAL: Duration = Duration::from_secs(5);
    /// Docker's, where nobody says otherwise.
    pub const RETRIES: u32 = 3;

    /// The check that a service and its image come to; `None` when there is none.
    #[must_use]
    pub fn of(service: Option<&HealthConfig>, image: Option<&HealthConfig>) -> Option<Self> {
        let (nothing, usual) = (HealthConfig::default(), HealthConfig::default());
        let (service, image) = (service.unwrap_or(&nothing), image.unwrap_or(&usual));
        let command = match service.test.as_ref().or(image.test.as_ref())? {
            HealthTest::Disabled => return None,
            HealthTest::Program(command) => command.clone(),
            HealthTest::Shell(line) => ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain(line.clone()).collect(),
        };
        Some(Self {
            command,
            interval: service.interval.or(image.interval).unwrap_or(Self::INTERVAL),
            timeout: service.timeout.or(image.timeout).unwrap_or(Self::TIMEOUT),
            start_period: service.start_period.or(image.start_period).unwrap_or_default(),
            start_interval: service.start_interval.or(image.start_interval).unwrap_or(Self::START_INTERVAL),
            retries: service.retries.or(image.retries).unwrap_or(Self::RETRIES),
        })
    }
}

/// What the checks so far come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// It was never healthy yet.
    Starting,
    /// It is.
    Healthy,
    /// It failed too often in a row.
    Unhealthy,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it was over.
    pub end: Timestamp,
    /// Zero is healthy; -1 is that it could not be run, or not to its end.
    pub exit_code: i32,
    /// What it wrote, or why it did not come to its end.
    pub output: String,
}

/// The health of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What the checks so far come to.
    pub state: HealthState,
    /// How many have failed in a row.
    pub failing: u32,
    /// Since when it is checked: when the container was started.
    pub since: Timestamp,
    /// The last few checks, oldest first.
    pub results: VecDeque<HealthResult>,
}

/// How many results are kept, as in Docker.
const RESULTS: usize = 5;

impl Health {
    /// That of a container that was started at `since`.
    #[must_use]
    pub fn new(since: Timestamp) -> Self {
        Self { state: HealthState::Starting, failing: 0, since, results: VecDeque::new() }
    }

    /// Whether failures do not count yet at `now`.
    fn is_spared(&self, check: &HealthCheck, now: Timestamp) -> bool {
        let age = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        self.state == HealthState::Starting && age < check.start_period
    }

    /// How long to wait at `now` before the next check.
    #[must_use]
    pub fn pause(&self, check: &HealthCheck, now: Timestamp) -> Duration {
        if self.is_spared(check, now) { check.start_interval } else { check.interval }
    }

    /// Takes in what came of a check.
    pub fn record(&mut self, check: &HealthCheck, result: HealthResult) {
        if result.exit_code == 0 {
            (self.state, self.failing) = (HealthState::Healthy, 0);
        } else if !self.is_spared(check, result.start) {
            self.failing = self.failing.saturating_add(1);
            if self.failing >= check.retries {
                self.state = HealthState::Unhealthy;
            }
        }
        self.results.push_back(result);
        while self.results.len() > RESULTS {
            self.results.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn result(second: i64, exit_code: i32) -> HealthResult {
        HealthResult { start: at(second), end: at(second), exit_code, output: String::new() }
    }

    fn check() -> HealthCheck {
        let test = Some(HealthTest::Shell(vec!["true".to_owned()]));
        let service = HealthConfig { test, start_period: Some(Duration::from_secs(10)), ..Default::default() };
        HealthCheck::of(Some(&service), None).unwrap()
    }

    #[test]
    fn what_a_service_leaves_out_comes_from_the_image_and_then_from_docker() {
        let image = HealthConfig {
            test: Some(HealthTest::Program(vec!["/check".to_owned()])),
            interval: Some(Duration::from_secs(7)),
            retries: Some(9),
            ..Default::default()
        };
        let service = HealthConfig { retries: Some(2), ..Default::default() };
        let check = HealthCheck::of(Some(&service), Some(&image)).unwrap();
        assert_eq!((check.command.as_slice(), check.retries), (["/check".to_owned()].as_slice(), 2));
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.start_interval.as_secs()), (7, 30, 5));
        assert_eq!(HealthCheck::of(Some(&service), None), None);
        let none = HealthConfig { test: Some(HealthTest::Disabled), ..Default::default() };
        assert_eq!(HealthCheck::of(Some(&none), Some(&image)), None);
        assert_eq!(self::check().command, ["/bin/sh", "-c", "true"]);
    }

    #[test]
    fn failures_count_after_the_start_period_or_once_it_was_healthy() {
        let check = check();
        let mut health = Health::new(at(0));
        (1..9).for_each(|second| health.record(&check, result(second, 1)));
        assert_eq!((health.state, health.failing, health.results.len()), (HealthState::Starting, 0, 5));
        assert_eq!(health.pause(&check, at(9)).as_secs(), 5);
        assert_eq!(health.pause(&check, at(10)).as_secs(), 30);
        let mut late = health.clone();
        (10..12).for_each(|second| late.record(&check, result(second, 1)));
        assert_eq!((late.state, late.failing), (HealthState::Starting, 2));
        late.record(&check, result(12, -1));
        assert_eq!(late.state, HealthState::Unhealthy);

        health.record(&check, result(5, 0));
        assert_eq!(health.pause(&check, at(6)).as_secs(), 30);
        (6..8).for_each(|second| health.record(&check, result(second, 2)));
        assert_eq!((health.state, health.failing), (HealthState::Healthy, 2));
        health.record(&check, result(8, 0));
        assert_eq!((health.state, health.failing), (HealthState::Healthy, 0));
        (9..12).for_each(|second| health.record(&check, result(second, 1)));
        assert_eq!(health.state, HealthState::Unhealthy);
    }
}
