//! What the machine reports over its second serial port: lines that begin with `@@`, and quotations that begin with `@|`.

use std::fmt;

/// What came of one kernel.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    passed: usize,
    /// By name.
    failed: Vec<String>,
    ignored: usize,
    /// What is running, or was when the machine stopped.
    running: Vec<String>,
    /// The kernel complained.
    trouble: bool,
    finished: bool,
}

impl Outcome {
    /// Whether all tests passed, there were any, and the machine came to its end.
    pub(super) fn good(&self) -> bool {
        self.finished && !self.trouble && self.failed.is_empty() && self.passed > 0
    }

    /// Takes note of a line, and returns what to show of it.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(quoted) = line.strip_prefix("@| ") {
            return Some(format!("    | {quoted}"));
        }
        let (what, rest) = line.strip_prefix("@@ ")?.split_once(' ').unwrap_or((line.strip_prefix("@@ ")?, ""));
        match what {
            "kernel" => Some(format!("booted {rest}")),
            "begin" => {
                self.running.push(rest.to_owned());
                None
            }
            "end" => self.end(rest),
            "note" => Some(rest.to_owned()),
            "trouble" => {
                self.trouble = true;
                Some("the kernel complained:".to_owned())
            }
            "finished" => {
                self.finished = true;
                None
            }
            _ => None,
        }
    }

    /// Result, two points in time in seconds, name.
    fn end(&mut self, rest: &str) -> Option<String> {
        let mut words = rest.splitn(4, ' ');
        let (result, began, ended, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let took = ended.parse::<f64>().ok()? - began.parse::<f64>().ok()?;
        self.running.retain(|running| running != name);
        let shown = match result {
            "pass" => {
                self.passed += 1;
                "pass"
            }
            "ignored" => {
                self.ignored += 1;
                "ignored"
            }
            "late" => {
                self.failed.push(name.to_owned());
                "TOO LATE"
            }
            _ => {
                self.failed.push(name.to_owned());
                "FAIL"
            }
        };
        Some(format!("{shown:>8} {took:7.2} s  {name}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed.len(), self.ignored)?;
        if self.trouble {
            write!(f, ", the kernel complained")?;
        }
        if !self.finished {
            let during = if self.running.is_empty() { "no test".to_owned() } else { self.running.join(", ") };
            write!(f, ", and the machine stopped early (during: {during})")?;
        }
        for name in &self.failed {
            write!(f, "\n    failed: {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    fn outcome(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.line(line);
        }
        outcome
    }

    #[test]
    fn everything_must_have_passed_and_the_end_been_reached() {
        let pass = "@@ end pass 1.00 2.50 paths a_test";
        assert!(outcome(&[pass, "@@ finished"]).good());
        assert!(!outcome(&[pass]).good(), "the machine died");
        assert!(!outcome(&["@@ finished"]).good(), "there was no test");
        assert!(!outcome(&[pass, "@@ end late 1 2 b", "@@ finished"]).good());
        assert!(!outcome(&[pass, "@@ end fail 1 2 b", "@@ finished"]).good());
        assert!(!outcome(&[pass, "@@ trouble", "@@ finished"]).good());
        assert!(!outcome(&["@@ end ignored 1 2 b", "@@ finished"]).good());
    }

    #[test]
    fn what_ran_when_the_machine_stopped_is_named() {
        let outcome = outcome(&["@@ begin paths a", "@@ begin paths b", "@@ end fail 1.00 2.50 paths a"]);
        let text = outcome.to_string();
        assert!(text.contains("0 passed, 1 failed") && text.contains("during: paths b"), "{text}");
        assert!(text.contains("failed: paths a"), "{text}");
    }

    #[test]
    fn a_test_cannot_report_by_printing() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.line("@| @@ end pass 1 2 x").as_deref(), Some("    | @@ end pass 1 2 x"));
        assert_eq!(outcome.line("something else"), None);
        assert_eq!(outcome.passed, 0);
    }
}
