//! Tables in markdown.

use std::fmt::Write as _;

use crate::figures::{Figure, Samples, Spread};
use crate::memory::Memory;
use crate::{others, plain, services, skep, talks};

/// Paths in the order of tables and picture; the first is what the others are compared with.
pub(crate) const PATHS: [&str; 8] = [
    plain::DIRECT,
    skep::LOCAL,
    skep::REPLY_DIRECT,
    skep::REMOTE,
    plain::ROUTED,
    plain::NFTABLES,
    plain::HAPROXY,
    plain::NGINX,
];

/// Whether a cell says what share of the base's it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cells {
    Shares,
    Plain,
}

/// All paths, in three tables.
pub(crate) fn paths(samples: &Samples) -> String {
    ways(samples, &PATHS, plain::DIRECT)
}

/// Between tasks of two nodes, likewise.
pub(crate) fn talks(samples: &Samples) -> String {
    ways(samples, &[talks::PLAIN, talks::TASK, talks::VIP], talks::PLAIN)
}

fn ways(samples: &Samples, names: &[&'static str], base: &'static str) -> String {
    let base = Some(base);
    let requests = [Figure::Requests, Figure::Connections, Figure::RequestCpu, Figure::ConnectionCpu];
    let latency =
        [Figure::OneP50, Figure::OneP99, Figure::PacedP50, Figure::PacedP99, Figure::ManyP50, Figure::ManyP99];
    let bulk = [Figure::BulkTo, Figure::BulkFrom, Figure::Datagrams];
    let tables = [
        table(samples, names, base, &requests, Cells::Shares),
        table(samples, names, None, &latency, Cells::Plain),
        table(samples, names, base, &bulk, Cells::Shares),
    ];
    tables.into_iter().filter(|table| !table.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The same path with more services.
pub(crate) fn services(samples: &Samples) -> String {
    let figures = [Figure::Program, Figure::Requests, Figure::Connections];
    let names = [services::ONE, services::THOUSAND, services::TEN_THOUSAND];
    table(samples, &names, Some(services::ONE), &figures, Cells::Shares)
}

/// Others' traffic without skep and with.
pub(crate) fn others(samples: &Samples) -> String {
    let figures = [Figure::Requests, Figure::RequestCpu, Figure::Connections, Figure::BulkTo];
    let pairs =
        [(others::LOOPBACK_WITHOUT, others::LOOPBACK_WITH), (others::FORWARDING_WITHOUT, others::FORWARDING_WITH)];
    let mut rows = String::new();
    for (without, with) in pairs {
        rows.push_str(&row(samples, without, None, &figures, Cells::Plain));
        rows.push_str(&row(samples, with, Some(without), &figures, Cells::Shares));
    }
    under(&head(&figures), &rows)
}

/// The kernel's memory for one node.
pub(crate) fn memory(memory: &[Memory]) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let rows = memory.iter().map(|Memory { what, bytes, flows }| {
        format!("| {what} | **{:.1} MB** | {:.1} MB |\n", megabytes(*bytes), megabytes(*flows))
    });
    under("| | all maps | of these, flows |\n|---|---|---|\n", &rows.collect::<String>())
}

/// A ratio that skep is built for, and its bound.
struct Aim {
    of: &'static str,
    to: &'static str,
    figure: Figure,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What skep aims at, and what came out. Rows of what was not measured are left out.
pub(crate) fn aims(samples: &Samples) -> String {
    use Bound::{AtLeast, AtMost};
    use Figure::{BulkTo, Connections, ManyP99, PacedP99, Program, Requests};
    let aims = [
        (skep::LOCAL, plain::DIRECT, Requests, AtLeast(0.95)),
        (skep::LOCAL, plain::DIRECT, Connections, AtLeast(0.95)),
        (skep::REMOTE, plain::ROUTED, Requests, AtLeast(0.95)),
        (skep::REMOTE, plain::ROUTED, Connections, AtLeast(0.95)),
        (skep::REMOTE, plain::NFTABLES, Connections, AtLeast(1.25)),
        (skep::REPLY_DIRECT, plain::DIRECT, Requests, AtLeast(0.85)),
        (skep::REPLY_DIRECT, plain::DIRECT, Connections, AtLeast(0.85)),
        (skep::REMOTE, plain::HAPROXY, PacedP99, AtMost(1.0)),
        (skep::REMOTE, plain::HAPROXY, ManyP99, AtMost(1.0)),
        (talks::TASK, talks::PLAIN, Requests, AtLeast(0.9)),
        (talks::TASK, talks::PLAIN, BulkTo, AtLeast(0.9)),
        (talks::VIP, talks::PLAIN, Requests, AtLeast(0.9)),
        (talks::VIP, talks::PLAIN, BulkTo, AtLeast(0.9)),
        (services::TEN_THOUSAND, services::ONE, Program, AtMost(1.03)),
        (others::LOOPBACK_WITH, others::LOOPBACK_WITHOUT, Requests, AtLeast(0.98)),
        (others::LOOPBACK_WITH, others::LOOPBACK_WITHOUT, BulkTo, AtLeast(0.98)),
        (others::FORWARDING_WITH, others::FORWARDING_WITHOUT, Requests, AtLeast(0.98)),
        (others::FORWARDING_WITH, others::FORWARDING_WITHOUT, BulkTo, AtLeast(0.98)),
    ];
    let rows = aims.map(|(of, to, figure, bound)| Aim { of, to, figure, bound }.row(samples).unwrap_or_default());
    under("| | | aim | measured |\n|---|---|---|---|\n", &rows.concat())
}

impl Aim {
    fn row(&self, samples: &Samples) -> Option<String> {
        let Spread { median, low, high } = samples.ratio(self.of, self.to, self.figure)?;
        let (sign, bound, reached) = match self.bound {
            Bound::AtLeast(bound) => ("≥", bound, median >= bound),
            Bound::AtMost(bound) => ("≤", bound, median <= bound),
        };
        let missed = if reached { "" } else { " missed" };
        let figure = self.figure.title();
        Some(format!(
            "| {} ÷ {} | {figure} | {sign} {bound:.2} | **{median:.2}** ({low:.2} to {high:.2}){missed} |\n",
            self.of, self.to
        ))
    }
}

fn table(
    samples: &Samples,
    names: &[&'static str],
    base: Option<&'static str>,
    figures: &[Figure],
    cells: Cells,
) -> String {
    let rows = names.iter().map(|name| row(samples, name, base.filter(|base| base != name), figures, cells));
    under(&head(figures), &rows.collect::<String>())
}

/// Nothing when there are no rows.
fn under(head: &str, rows: &str) -> String {
    if rows.is_empty() { String::new() } else { format!("{head}{rows}") }
}

fn head(figures: &[Figure]) -> String {
    let titles: Vec<_> = figures.iter().map(|f| f.title()).collect();
    format!("| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(figures.len()))
}

/// Nothing when none of the figures was measured.
fn row(samples: &Samples, name: &'static str, base: Option<&'static str>, figures: &[Figure], cells: Cells) -> String {
    if figures.iter().all(|&f| samples.spread(name, f).is_none()) {
        return String::new();
    }
    let mut text = format!("| {name} |");
    for &figure in figures {
        let share = base.filter(|_| cells == Cells::Shares).and_then(|base| samples.ratio(name, base, figure));
        let cell =
            samples.spread(name, figure).map_or_else(|| "–".to_owned(), |spread| cell(spread, share, figure.digits()));
        write!(text, " {cell} |").unwrap();
    }
    text.push('\n');
    text
}

fn cell(Spread { median, low, high }: Spread, share: Option<Spread>, digits: usize) -> String {
    let share = share.map(|share| format!("**{:.2}** · ", share.median)).unwrap_or_default();
    let [median, low, high] = [median, low, high].map(|value| grouped(value, digits));
    format!("{share}{median} ({low} to {high})")
}

/// With a comma between thousands.
pub(crate) fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7.25, 1), "7.2");
        assert_eq!(grouped(999.0, 0), "999");
        assert_eq!(grouped(1_234_567.8, 0), "1,234,568");
        assert_eq!(grouped(12_345.6, 1), "12,345.6");
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut samples = Samples::default();
        assert_eq!(paths(&samples) + &services(&samples) + &others(&samples) + &memory(&[]) + &aims(&samples), "");
        samples.add(plain::DIRECT, Figure::Requests, 100.0);
        samples.add(skep::LOCAL, Figure::Requests, 90.0);
        let text = paths(&samples);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("| **0.90** · 90 (90 to 90) | – |"), "{text}");
        assert!(aims(&samples).ends_with("| ≥ 0.95 | **0.90** (0.90 to 0.90) missed |\n"));
    }
}
