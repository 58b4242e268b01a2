//! Amounts: memory (powers of 1024, whatever the unit's spelling, as docker has it) and CPUs (billionths).

/// Parses `512m`, `1.5GiB`, `1024`; in bytes.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no amount of memory: write a number and b, k, m, g or t, such as 512m");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let value: f64 = text[..split].parse().map_err(|_| bad())?;
    let power = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(bad()),
    };
    let total = value * 1024f64.powi(power);
    if total >= 9.2e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the largest i64 above")]
    Ok(total as i64)
}

/// Parses `0.5` CPUs; in billionths of one.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no number of CPUs: write a decimal with at most nine places, such as 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 || whole.len() + part.len() == 0 || whole.len() > 9 {
        return Err(bad());
    }
    format!("{whole}{part:0<9}").parse().map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, want) in [
            ("0", 0),
            ("10", 10),
            ("512m", 536_870_912),
            ("1.5g", 1_610_612_736),
            ("64MiB", 67_108_864),
            ("2 kb", 2048),
        ] {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for (text, want) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.000000001", 1_000_000_001)]
        {
            assert_eq!(parse_cpus(text), Ok(want), "{text}");
        }
        for bad in ["", "m", "-1", "5x", "1e400g"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "-1", "1e3", "0.0000000001", "1.2.3"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
