//! `filters=`: JSON, either `{"name":{"web":true}}` or, from old clients, `{"name":["web"]}`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::answer::Refusal;
use crate::error::Error;
use crate::types::meta::StringMap;

/// What to show: for each name, any of the values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads them; nothing is no filter.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = |why: String| Refusal::from(Error::invalid(format!("invalid filters: {why}")));
        let map: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        let mut filters = BTreeMap::new();
        for (name, values) in map {
            let values = match values {
                Value::Object(set) => {
                    set.into_iter().filter(|(_, on)| *on == Value::Bool(true)).map(|(v, _)| v).collect()
                }
                Value::Array(list) => list.into_iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
                other => return Err(bad(format!("{name:?} is {other}, expected a set of texts"))),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// Refuses names that nothing is known of.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'")).into()),
            None => Ok(()),
        }
    }

    /// Whether any value of that name passes; all do when the name is not there.
    pub(crate) fn any(&self, name: &str, passes: impl FnMut(&String) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.is_empty() || values.iter().any(passes))
    }

    /// Whether `value` is one of those of that name.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| wanted == value)
    }

    /// Whether `value` begins with one of those of that name: how the engine matches names and ids.
    pub(crate) fn begins(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| value.starts_with(wanted.as_str()))
    }

    /// Whether there are all the labels `key` or `key=value` of that name.
    pub(crate) fn labels(&self, name: &str, labels: &StringMap) -> bool {
        self.0.get(name).is_none_or(|values| values.iter().all(|wanted| has(labels, wanted)))
    }

    /// Whether there is any of the labels `key` or `key=value` of that name.
    pub(crate) fn any_label(&self, name: &str, labels: &StringMap) -> bool {
        self.values(name).any(|wanted| has(labels, wanted))
    }

    /// The value of a filter that is yes or no.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(values) = self.0.get(name) else { return Ok(None) };
        let mut values = values.iter();
        match (values.next().map(String::as_str), values.next()) {
            (Some("true" | "1"), None) => Ok(Some(true)),
            (Some("false" | "0"), None) => Ok(Some(false)),
            _ => Err(Error::invalid(format!("invalid filter '{name}': expected true or false")).into()),
        }
    }

    /// All values of that name.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The words of that name, refused unless known.
    pub(crate) fn words(&self, name: &str, known: &[&str]) -> Result<(), Refusal> {
        match self.values(name).find(|word| !known.contains(word)) {
            Some(word) => {
                Err(Error::invalid(format!("invalid filter '{name}={word}': expected {}", known.join(", "))).into())
            }
            None => Ok(()),
        }
    }
}

fn has(labels: &StringMap, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let new = Filters::parse(r#"{"name":{"web":true,"db":true,"off":false}}"#).unwrap();
        assert_eq!(new, Filters::parse(r#"{"name":["web","db"]}"#).unwrap());
        assert!(new.begins("name", "web2") && !new.begins("name", "off"));
        assert!(new.is("name", "db") && !new.is("name", "db2"));
        assert!(new.is("other", "anything"));
    }

    #[test]
    fn all_labels_must_match() {
        let labels = StringMap::from([("a".into(), "1".into()), ("b".into(), String::new())]);
        let passes = |text: &str| Filters::parse(text).unwrap().labels("label", &labels);
        assert!(passes(r#"{"label":{"a":true,"b":true}}"#));
        assert!(passes(r#"{"label":{"a=1":true}}"#));
        assert!(!passes(r#"{"label":{"a=1":true,"c":true}}"#));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Filters::parse("xx").is_err());
        assert!(Filters::parse(r#"{"name":3}"#).is_err());
        assert!(Filters::parse(r#"{"foo":{"x":true}}"#).unwrap().check(&["name"]).is_err());
        assert!(Filters::parse(r#"{"_up-to-date":{"maybe":true}}"#).unwrap().flag("_up-to-date").is_err());
    }
}
