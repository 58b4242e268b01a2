//! A client that keeps asking while something happens, and what it has seen.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skep_lab::Lab;

use super::probe::Outcome;
use super::stage::took;

/// Milliseconds between connections.
const EVERY: u64 = 10;

/// A probe that runs.
pub(crate) struct Watch {
    child: Child,
    reader: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Outcome>>>,
    began: Instant,
}

/// What a probe has seen from a moment on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) asked: usize,
    pub(crate) failed: usize,
    /// When the last failed connection was opened, since the moment.
    pub(crate) last_failure: Option<Duration>,
    /// The slowest answer.
    pub(crate) slowest: Duration,
    /// One reason, as an example.
    pub(crate) reason: Option<String>,
}

impl Watch {
    /// Begins to ask `targets` in turn, for as long as `at_most`.
    pub(crate) fn begin(lab: &Lab, targets: &[SocketAddr], at_most: Duration) -> Result<Self> {
        let mut command = vec![
            std::env::current_exe()?.to_string_lossy().into_owned(),
            "probe".to_owned(),
            format!("--every={EVERY}"),
            format!("--count={}", at_most.as_millis() / u128::from(EVERY)),
        ];
        command.extend(targets.iter().map(ToString::to_string));
        let mut child = lab.exec("client", &command)?.stdout(Stdio::piped()).spawn().context("the probe")?;
        let stdout = child.stdout.take().context("the probe's output")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let store = seen.clone();
        let reader = thread::spawn(move || {
            for outcome in BufReader::new(stdout).lines().map_while(Result::ok).filter_map(|l| Outcome::parse(&l)) {
                store.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
            }
        });
        Ok(Self { child, reader: Some(reader), seen, began: Instant::now() })
    }

    /// Everything that was seen so far.
    pub(crate) fn seen(&self) -> Vec<Outcome> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was seen of connections opened since `moment`.
    pub(crate) fn since(&self, moment: Instant) -> Tally {
        let from = moment.saturating_duration_since(self.began);
        let mut tally = Tally::default();
        for outcome in self.seen().iter().filter(|o| o.at >= from) {
            tally.asked += 1;
            tally.slowest = tally.slowest.max(outcome.took);
            if let Err(why) = &outcome.answer {
                tally.failed += 1;
                tally.last_failure = tally.last_failure.max(Some(outcome.at - from));
                tally.reason = Some(why.clone());
            }
        }
        tally
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} connections, {} failed, the slowest took {}", self.asked, self.failed, took(self.slowest))?;
        if let (Some(last), Some(reason)) = (self.last_failure, &self.reason) {
            write!(f, " (the last one to fail was opened after {}: {reason})", took(last))?;
        }
        Ok(())
    }
}
