//! Units and times for people.

use jiff::Timestamp;

/// The first twelve characters of an identifier, without a digest's prefix.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// The first letter in upper case.
pub(crate) fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Bytes in powers of 1000 with three digits: `1.98MB`.
pub(crate) fn decimal_size(bytes: i64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Bytes in powers of 1024 with four digits: `23.54GiB`.
pub(crate) fn memory(bytes: i64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(bytes: i64, base: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole = format!("{}", value.trunc()).len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// How long ago, in words; "" for a time that was never set.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) if then.as_second() > -62_000_000_000 => {
            format!("{} ago", long_ago(now.as_second() - then.as_second()))
        }
        _ => String::new(),
    }
}

/// A span in words, coarser the longer it is; docker's steps.
fn long_ago(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_983_000, "1.98MB"),
            (133_700_000, "134MB"),
            (2_000_000_000, "2GB"),
        ] {
            assert_eq!(decimal_size(bytes), want);
        }
        assert_eq!(memory(25_275_000_000), "23.54GiB");
        assert_eq!(memory(536_870_912), "512MiB");
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-23T19:12:38Z".parse().unwrap();
        for (time, want) in [
            ("2026-11-23T19:12:38Z", "Less than a second ago"),
            ("2026-11-23T19:12:37.2Z", "1 second ago"),
            ("2026-11-23T19:11:38Z", "About a minute ago"),
            ("2026-11-23T18:12:38Z", "About an hour ago"),
            ("2026-11-22T19:12:38Z", "24 hours ago"),
            ("2026-11-01T19:12:38Z", "3 weeks ago"),
            ("2020-11-23T19:12:38Z", "6 years ago"),
            ("0001-01-01T00:00:00Z", ""),
            ("", ""),
        ] {
            assert_eq!(ago(time, now), want, "{time}");
        }
    }
}
