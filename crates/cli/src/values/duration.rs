//! Durations as Go writes them: `1h30m`, `1.5s`, `300ms`. Nanoseconds inside.

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// Parses a duration, in nanoseconds; never negative.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no duration: write a number and a unit of ns, us, ms, s, m or h, such as 1m30s");
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut total) = (text, 0f64);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let end = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| number + i);
        let value: f64 = rest[..number].parse().map_err(|_| bad())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[number..end]).ok_or_else(bad)?;
        total += value * unit;
        rest = &rest[end..];
    }
    if text.is_empty() || total >= 9.2e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the largest i64 above")]
    Ok(total.round() as i64)
}

/// Nanoseconds as Go prints them.
pub(crate) fn go_duration(nanoseconds: i64) -> String {
    let ns = nanoseconds.max(0);
    let decimal = |unit: i64| {
        let text = format!("{}.{:0width$}", ns / unit, ns % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(1_000_000)),
        _ => {
            let (hours, minutes) = (ns / 3_600_000_000_000, ns / 60_000_000_000 % 60);
            let seconds = go_seconds(ns % 60_000_000_000);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn go_seconds(ns: i64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (text, ns) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("2160h0m0s", 7_776_000_000_000_000),
            ("300ms", 300_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "5 s", "5d", "1..5s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(go_duration(7_776_000_000_000_000), "2160h0m0s");
        assert_eq!(go_duration(1_500_000), "1.5ms");
        assert_eq!(go_duration(100_000_000), "100ms");
    }

    proptest! {
        #[test]
        fn written_and_read_again(ms in 0i64..10_000_000_000) {
            prop_assert_eq!(parse_duration(&go_duration(ms * 1_000_000)), Ok(ms * 1_000_000));
        }
    }
}
