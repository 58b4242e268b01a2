//! What is measured, and what came out in each round.

use std::collections::BTreeMap;

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Requests per second over many kept connections.
    Requests,
    /// Requests per second, each over a connection of its own.
    Connections,
    /// Microseconds of processor per request over kept connections.
    RequestCpu,
    /// Microseconds of processor per request with a connection of its own.
    ConnectionCpu,
    /// Microseconds with one connection.
    OneP50,
    OneP99,
    /// Microseconds with many connections at a fixed rate.
    PacedP50,
    PacedP99,
    /// Microseconds with many connections as fast as they are answered.
    ManyP50,
    ManyP99,
    /// Gbit/s of one stream.
    BulkTo,
    BulkFrom,
    /// Datagrams per second that arrive.
    Datagrams,
    /// Nanoseconds in skep's programs per packet that they saw.
    Program,
}

impl Figure {
    /// What it is called in tables and in the picture.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Requests => "keep-alive requests/s",
            Self::Connections => "new connections/s",
            Self::RequestCpu => "CPU µs per request",
            Self::ConnectionCpu => "CPU µs per connection",
            Self::OneP50 => "1 connection: p50 µs",
            Self::OneP99 => "1 connection: p99 µs",
            Self::PacedP50 => "32 at a fixed rate: p50 µs",
            Self::PacedP99 => "32 at a fixed rate: p99 µs",
            Self::ManyP50 => "32 flat out: p50 µs",
            Self::ManyP99 => "32 flat out: p99 µs",
            Self::BulkTo => "Gbit/s to the task",
            Self::BulkFrom => "Gbit/s from the task",
            Self::Datagrams => "datagrams/s",
            Self::Program => "ns in eBPF per packet",
        }
    }

    /// Digits behind the point.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::RequestCpu | Self::ConnectionCpu | Self::BulkTo | Self::BulkFrom => 1,
            _ => 0,
        }
    }
}

/// What came out, by the name of what was measured, a value for each round.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<(&'static str, Figure), Vec<f64>>);

/// The middle of the rounds, and their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, low, high })
    }
}

impl Samples {
    pub(crate) fn add(&mut self, name: &'static str, figure: Figure, value: f64) {
        self.0.entry((name, figure)).or_default().push(value);
    }

    /// `None` when it was not measured.
    pub(crate) fn spread(&self, name: &'static str, figure: Figure) -> Option<Spread> {
        Spread::of(self.0.get(&(name, figure))?)
    }

    /// One as a share of another. Those of one round are compared with each other, as they had the same machine; `None` when one
    /// of them was not measured.
    pub(crate) fn ratio(&self, name: &'static str, to: &'static str, figure: Figure) -> Option<Spread> {
        let (these, those) = (self.0.get(&(name, figure))?, self.0.get(&(to, figure))?);
        let ratios: Vec<f64> = these.iter().zip(those).map(|(this, that)| this / that).collect();
        Spread::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_with_each_other() {
        let mut samples = Samples::default();
        for (this, that) in [(10.0, 20.0), (100.0, 100.0), (3.0, 10.0)] {
            samples.add("this", Figure::Requests, this);
            samples.add("that", Figure::Requests, that);
        }
        let spread = |median, low, high| Some(Spread { median, low, high });
        assert_eq!(samples.spread("this", Figure::Requests), spread(10.0, 3.0, 100.0));
        assert_eq!(samples.ratio("this", "that", Figure::Requests), spread(0.5, 0.3, 1.0));
        assert_eq!(samples.ratio("this", "other", Figure::Requests), None);
        assert_eq!(Spread::of(&[1.0, 4.0]), spread(2.5, 1.0, 4.0));
    }
}
