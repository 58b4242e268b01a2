//! What comes with a request: the query and the body.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use skep_model::{Timestamp, Version};

use super::answer::Refusal;
use super::filters::Filters;
use crate::backend::log::LogOptions;
use crate::error::Error;
use crate::types::go_json;

/// The query of a request, by Go's rules.
pub(crate) struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))?;
        // Of a name given twice the first counts.
        let mut map = HashMap::new();
        for (name, value) in pairs.0 {
            map.entry(name).or_insert(value);
        }
        Ok(Self(map))
    }
}

impl Params {
    /// The text of that name; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether it is there and not one of the words for no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        !matches!(self.text(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// `version`, which writes must name. `what` is what is written, for the refusal.
    pub(crate) fn version(&self, what: &str) -> Result<Version, Refusal> {
        let text = self.text("version");
        text.parse().map(Version).map_err(|_| {
            Refusal::from(Error::invalid(format!("invalid {what} version '{text}': expected a whole number")))
        })
    }

    /// `filters`, none of whose names is unknown.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<Filters, Refusal> {
        let filters = Filters::parse(self.text("filters"))?;
        filters.check(known)?;
        Ok(filters)
    }

    /// A point in time: seconds since 1970, with a fraction if need be, or a date.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let text = self.text(name);
        // Zero is how clients say that they do not mind.
        if text.is_empty() || text == "0" {
            return Ok(None);
        }
        let parsed = seconds(text).or_else(|| text.parse().ok());
        parsed
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("invalid value for \"{name}\": {text:?} is no point in time")).into())
    }

    /// What a request for logs asks for.
    pub(crate) fn logs(&self) -> Result<LogOptions, Refusal> {
        let (stdout, stderr) = (self.flag("stdout"), self.flag("stderr"));
        if !stdout && !stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream").into());
        }
        // What is no number is everything, as in Docker; so is a negative one.
        let tail = self.text("tail").parse().ok();
        let (since, until) = (self.time("since")?, self.time("until")?);
        Ok(LogOptions { stdout, stderr, follow: self.flag("follow"), tail, since, until })
    }
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole, nanos).ok()
}

/// A point in time of a filter: as [`Params::time`], or how long before now, `24h` or `1h30m`.
pub(crate) fn until(text: &str) -> Result<Timestamp, Refusal> {
    let ago = || Timestamp::now().checked_sub(ago(text)?).ok();
    let bad = || {
        Error::invalid(format!("invalid filter 'until={text}': expected a point in time, or a length of time like 24h"))
    };
    seconds(text).or_else(|| text.parse().ok()).or_else(ago).ok_or_else(|| bad().into())
}

/// A length of time as Go writes it, in hours, minutes and seconds.
fn ago(text: &str) -> Option<Duration> {
    let (mut left, mut total) = (text, Duration::ZERO);
    while !left.is_empty() {
        let unit = left.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = left[..unit].parse().ok()?;
        let rest = &left[unit..];
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..length] {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total += Duration::from_secs(number.checked_mul(seconds)?);
        left = &rest[length..];
    }
    (!text.is_empty()).then_some(total)
}

/// The most that a body may hold, archives apart.
pub(crate) const LARGEST: usize = 8 << 20;

/// A body by Go's rules.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let bytes: Bytes = axum::body::to_bytes(request.into_body(), LARGEST)
            .await
            .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, format!("cannot read the request: {e}")))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::invalid("the request has no body: expected JSON").into());
        }
        go_json::from_slice(&bytes).map(Self).map_err(|e| Error::invalid(e.to_string()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn flags_follow_go() {
        let p = params(&[("a", "1"), ("b", "0"), ("c", "False"), ("d", "yes"), ("e", "")]);
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(|n| p.flag(n)), [true, false, false, true, false, false]);
    }

    #[test]
    fn times_are_seconds_or_dates() {
        let p =
            params(&[("a", "1795457794"), ("b", "1.000000005"), ("c", "2026-11-23T19:13:27Z"), ("d", "x"), ("e", "0")]);
        let second = |n: &str| p.time(n).unwrap().unwrap();
        assert_eq!(second("a").as_second(), 1_795_457_794);
        assert_eq!(second("b").as_nanosecond(), 1_000_000_005);
        assert_eq!(second("c").to_string(), "2026-11-23T19:13:27Z");
        assert!(p.time("d").is_err());
        let now = Timestamp::now();
        let before = |text: &str| now.duration_since(until(text).unwrap()).as_secs();
        assert!((5399..=5400).contains(&before("1h30m")) && before("0s") <= 0, "{}", before("1h30m"));
        assert_eq!(until("1795457794").unwrap().as_second(), 1_795_457_794);
        assert!(["", "x", "3", "h", "3d", "1h3"].map(until).iter().filter(|u| u.is_err()).count() == 5);
        assert!(p.time("e").unwrap().is_none() && p.time("f").unwrap().is_none());
    }
}
