//! Signals by name or number.

use nix::sys::signal::Signal;

/// A text that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct BadSignal(pub String);

/// The number of a signal written as `SIGTERM`, `term`, `15` or `RTMIN+3`.
///
/// # Errors
/// When there is no such signal.
pub fn parse_signal(text: &str) -> Result<i32, BadSignal> {
    let bad = || BadSignal(text.to_owned());
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=last).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(first),
        (_, Some("")) => Some(last),
        (Some(plus), _) => plus.strip_prefix('+').and_then(|n| n.parse::<u8>().ok()).map(|n| first + i32::from(n)),
        (_, Some(minus)) => minus.strip_prefix('-').and_then(|n| n.parse::<u8>().ok()).map(|n| last - i32::from(n)),
        _ => return format!("SIG{name}").parse::<Signal>().map(|s| s as i32).map_err(|_| bad()),
    };
    realtime.filter(|number| (first..=last).contains(number)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", libc::SIGRTMAX() - 1),
        ] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIGNOPE", "RTMIN+99", "RTMIN3"] {
            assert_eq!(parse_signal(text), Err(BadSignal(text.to_owned())));
        }
    }
}
