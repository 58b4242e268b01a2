//! `--since`: a time, a number of seconds since 1970, or how long ago (`42m`).

use jiff::Timestamp;

use super::parse_duration;

/// The time as the API takes it: seconds since 1970 with nine decimals.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_time(text: &str, now: Timestamp) -> Result<String, String> {
    let bad = || {
        format!(
            "{text:?} is no time: write one as 2013-01-02T13:23:37Z, as seconds since 1970, or as how long ago (42m)"
        )
    };
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
        return Ok(text.to_owned());
    }
    let nanoseconds = match parse_duration(text) {
        Ok(ago) => now.as_nanosecond() - i128::from(ago),
        Err(_) => instant(text).ok_or_else(bad)?.as_nanosecond(),
    };
    Ok(format!("{}.{:09}", nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000)))
}

/// A time with a zone, or without one and then in this machine's.
fn instant(text: &str) -> Option<Timestamp> {
    let local = || {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        jiff::tz::TimeZone::system().to_timestamp(civil).ok()
    };
    text.parse().ok().or_else(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(parse_time("10m", now).unwrap(), "999400.000000000");
        assert_eq!(parse_time("1136073845", now).unwrap(), "1136073845");
        assert_eq!(parse_time("1970-01-01T00:01:00.5Z", now).unwrap(), "60.500000000");
        assert!(parse_time("yesterday", now).is_err() && parse_time("", now).is_err());
    }
}
