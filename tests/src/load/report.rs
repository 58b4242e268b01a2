//! What came of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Attempt, End, Kept, Outcome, Usage};

/// What became of every connection.
#[derive(Clone)]
pub struct Report {
    /// When the first was opened.
    pub began: Instant,
    /// The new ones, as they were opened.
    pub asked: Vec<Attempt>,
    /// Those that were to stay.
    pub kept: Vec<Kept>,
}

impl Report {
    /// New connections that were opened at `from` or later and had no proper answer.
    pub fn failed(&self, from: Instant) -> impl Iterator<Item = &Attempt> {
        self.asked.iter().filter(move |attempt| attempt.opened >= from && attempt.outcome.failed())
    }

    /// New connections that were opened at `from` or later and were connected only after 0.9 s.
    pub fn slow(&self, from: Instant) -> impl Iterator<Item = &Attempt> {
        self.asked.iter().filter(move |attempt| attempt.opened >= from && attempt.outcome == Outcome::Slow)
    }

    /// Kept connections that ended although they had a task, and none of `lost`.
    pub fn broken<'a>(&'a self, lost: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Kept> {
        let had_another = |kept: &Kept| !kept.task.is_empty() && !lost.contains(&kept.task);
        self.kept.iter().filter(move |kept| kept.end != End::Alive && had_another(kept))
    }

    /// Connections that were to be kept, were opened at `from` or later and had no answer at all.
    pub fn shut_out(&self, from: Instant) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| kept.task.is_empty() && kept.opened >= from)
    }

    /// Kept connections to one of the tasks `lost`.
    pub fn severed<'a>(&'a self, lost: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Kept> {
        self.kept.iter().filter(|kept| lost.contains(&kept.task))
    }

    /// How many connections of a kind were opened before `until` and lived to the end.
    #[must_use]
    pub fn survivors(&self, usage: Usage, until: Instant) -> usize {
        let lived = |kept: &&Kept| kept.usage == usage && kept.end == End::Alive && kept.opened < until;
        self.kept.iter().filter(lived).count()
    }

    /// Prints what happened before and after an event.
    pub fn print(&self, story: &str, event: Instant) {
        let (before, after): (Vec<_>, Vec<_>) = self.asked.iter().partition(|attempt| attempt.opened < event);
        println!("{story}: before: {}; after: {}", summary(&before), summary(&after));
        if let Some(trouble) = trouble(&after, event) {
            println!("     {trouble}");
        }
        println!("     {}", self.kept_summary(event));
        println!("{}", self.row(story, event));
    }

    fn kept_summary(&self, event: Instant) -> String {
        let mut ends: BTreeMap<(Usage, End), usize> = BTreeMap::new();
        self.kept.iter().for_each(|kept| *ends.entry((kept.usage, kept.end)).or_default() += 1);
        let ends: Vec<_> = ends.iter().map(|((usage, end), count)| format!("{count} {usage:?} {end:?}")).collect();
        let lost = || self.kept.iter().filter(|kept| matches!(kept.end, End::Lost(_)));
        let mut text = format!("kept: {}", ends.join(", "));
        if let Some(last) = lost().map(|kept| kept.ended).max() {
            let waited = lost().map(|kept| kept.waited).max().unwrap_or_default();
            let _ = write!(text, "; last lost {}, longest silence {:.2} s", since(event, last), waited.as_secs_f64());
        }
        text
    }

    /// A line of the table in `docs/failover.md`.
    fn row(&self, story: &str, event: Instant) -> String {
        let after = self.asked.iter().filter(|attempt| attempt.opened >= event);
        let last = self.failed(event).last().map_or("none".to_owned(), |attempt| since(event, attempt.opened));
        let (asked, failed, slow) = (after.count(), self.failed(event).count(), self.slow(event).count());
        let alive = |usage| self.survivors(usage, event);
        let waited = self.kept.iter().map(|kept| kept.waited).max().unwrap_or_default();
        format!(
            "| {story} | {asked} | {failed} | {slow} | {last} | {} ms | {} + {} | {:.2} s |",
            slowest(self.asked.iter().filter(|attempt| attempt.opened >= event)).as_millis(),
            alive(Usage::Long),
            alive(Usage::Idle),
            waited.as_secs_f64(),
        )
    }
}

fn since(event: Instant, at: Instant) -> String {
    match at.checked_duration_since(event) {
        Some(after) => format!("+{:.2} s", after.as_secs_f64()),
        None => format!("-{:.2} s", (event - at).as_secs_f64()),
    }
}

fn slowest<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Duration {
    attempts.filter(|a| !a.outcome.failed()).map(|a| a.took).max().unwrap_or_default()
}

fn summary(attempts: &[&Attempt]) -> String {
    let failed = attempts.iter().filter(|attempt| attempt.outcome.failed()).count();
    let slow = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Slow).count();
    let mut took: Vec<_> = attempts.iter().filter(|a| !a.outcome.failed()).map(|a| a.took.as_millis()).collect();
    took.sort_unstable();
    let part = |percent: usize| took.get(took.len() * percent / 100).or(took.last()).copied().unwrap_or_default();
    let (p50, p99, most) = (part(50), part(99), part(100));
    format!("{} asked, failed {failed}, slow {slow}, p50 {p50} p99 {p99} slowest {most} ms", attempts.len())
}

/// What went wrong, from the first to the last connection that was not as it should be.
fn trouble(after: &[&Attempt], event: Instant) -> Option<String> {
    let bad: Vec<_> = after.iter().filter(|attempt| attempt.outcome != Outcome::Ok).collect();
    let (first, last) = (bad.first()?.opened, bad.last()?.opened);
    let opened = after.iter().filter(|attempt| (first..=last).contains(&attempt.opened)).count();
    let mut kinds: BTreeMap<Outcome, usize> = BTreeMap::new();
    bad.iter().for_each(|attempt| *kinds.entry(attempt.outcome).or_default() += 1);
    Some(format!("{}..{}: {kinds:?} of {opened} opened", since(event, first), since(event, last)))
}
