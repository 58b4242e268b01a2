//! A strict reader of Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;

/// One family.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: BTreeMap<BTreeMap<String, String>, f64>,
}

/// All families by name.
pub(crate) type Families = BTreeMap<String, Family>;

impl Family {
    /// The sample with exactly these labels.
    pub(crate) fn value(&self, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        *self.samples.get(&labels).unwrap_or_else(|| panic!("no {labels:?} in {self:#?}"))
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Reads a page: every family once, in one piece, with HELP and TYPE in front; no series twice; names and labels by convention.
pub(crate) fn parse(text: &str) -> Families {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let mut families = Families::new();
    let mut helped: Option<String> = None;
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, what) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(is_name(name) && what.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(helped.as_deref(), Some(name), "TYPE without HELP: {line}");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "counters and only they end in _total: {line}");
            let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
            current = Some(name.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(current.as_deref(), Some(name), "a sample outside of its family: {line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind == "gauge" || value >= 0.0, "{line}");
            assert!(family.samples.insert(labels, value).is_none(), "a series is there twice: {line}");
        }
    }
    families
}

fn sample(line: &str) -> (&str, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("a label without a value: {line}"));
            assert!(is_name(label), "label {label:?}: {line}");
            let (value, after) = quoted(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "label {label} twice: {line}");
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => break rest = after,
                _ => panic!("neither , nor }}: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space before the value: {line}"));
    (name, labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// The text up to an unescaped quote, and what is behind that.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                other => panic!("bad escape {other:?}: {line}"),
            }),
            other => value.push(other),
        }
    }
    panic!("a label's value has no end: {line}")
}
