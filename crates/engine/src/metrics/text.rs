//! Prometheus' text format, version 0.0.4: written by hand, since values are read from elsewhere at each scrape, and a library of
//! registered counters would only hold copies of them.

use std::fmt::{self, Write as _};

/// What a family's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, or begins again.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// A family whose samples are being written.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Page {
    /// Begins a family. It is complete before the next one begins.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: &mut self.0, name }
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One sample. Labels are escaped here.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.out.push_str(self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if i == 0 { '{' } else { ',' });
            for letter in text.chars() {
                match letter {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}
