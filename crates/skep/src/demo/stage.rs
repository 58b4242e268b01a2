//! What a person sees of the demo: titles, steps with their times, rows. Colours in a terminal, plain lines in a log.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The terminal, or the log.
pub(crate) struct Stage {
    colours: bool,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    pub(crate) fn new(interrupted: Arc<AtomicBool>) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, interrupted }
    }

    /// Fails once somebody has pressed Ctrl-C.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("Ctrl-C");
        }
        Ok(())
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn line(&self, text: &str) {
        // A reader that went away does not stop the demo: it still has to clean up.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    pub(crate) fn title(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1", text)));
    }

    /// A command as a person would type it.
    pub(crate) fn command(&self, text: &str) {
        self.line(&format!("  {} {}", self.paint("36", "$"), self.paint("36", text)));
    }

    pub(crate) fn row(&self, name: &str, value: &str) {
        self.line(&format!("    {name:<8} {value}"));
    }

    pub(crate) fn note(&self, text: &str) {
        self.line(&format!("    {text}"));
    }

    /// Does something and says how long it took.
    pub(crate) fn step<R>(&self, what: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
        self.go_on()?;
        self.step_always(what, work)
    }

    /// As [`Self::step`], also after Ctrl-C.
    pub(crate) fn step_always<R>(&self, what: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let began = Instant::now();
        let done = work();
        let took = took(began.elapsed());
        match &done {
            Ok(_) => self.line(&format!("  {} {what} {}", self.paint("32", "✓"), self.paint("2", took))),
            Err(_) => self.line(&format!("  {} {what} {}", self.paint("31", "✗"), self.paint("2", took))),
        }
        done
    }

    /// A finding: good or not.
    pub(crate) fn finding(&self, good: bool, text: &str) {
        let mark = if good { self.paint("32", "✓") } else { self.paint("31", "✗") };
        self.line(&format!("  {mark} {text}"));
    }
}

pub(crate) fn took(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// The last lines of every daemon's log, to go with an error.
pub(crate) fn tail_of_logs(lab: &str) -> String {
    let mut text = String::from("the demo failed; the daemons' last words were:");
    let Ok(lab) = skep_lab::Lab::open(lab) else { return text };
    for node in 1..=lab.nodes() {
        let log = std::fs::read_to_string(lab.log(node)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        for line in lines.into_iter().rev() {
            text.push_str(&format!("\n  node{node}: {line}"));
        }
    }
    text
}
