//! Signals by name and number.

use nix::sys::signal::Signal;
use skep_model::ContainerSpec;

use crate::error::RuntimeError;
use crate::images::ImageConfig;

/// The largest signal number of Linux.
pub(crate) const MAX: i32 = 64;

/// The number of a signal: `SIGTERM`, `term`, `RTMIN+3` or `15`.
///
/// # Errors
/// [`RuntimeError::BadSignal`].
pub fn parse(text: &str) -> Result<i32, RuntimeError> {
    let bad = || RuntimeError::BadSignal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=MAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |base: i32, rest: &str, sign: i32| -> Option<i32> {
        let offset =
            if rest.is_empty() { 0 } else { rest[1..].parse::<i32>().ok().filter(|n| (0..=30).contains(n))? };
        let number = base + sign * offset;
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN").filter(|r| r.is_empty() || r.starts_with('+')) {
        return real_time(libc::SIGRTMIN(), rest, 1).ok_or_else(bad);
    }
    if let Some(rest) = name.strip_prefix("RTMAX").filter(|r| r.is_empty() || r.starts_with('-')) {
        return real_time(libc::SIGRTMAX(), rest, -1).ok_or_else(bad);
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| bad())
}

/// The number of the signal that asks a container to end: the specification's, else the image's, else `SIGTERM`.
///
/// # Errors
/// [`RuntimeError::BadSignal`].
pub fn stop_signal(spec: &ContainerSpec, image: &ImageConfig) -> Result<i32, RuntimeError> {
    let chosen = spec.stop_signal.as_deref().filter(|s| !s.is_empty()).or(image.stop_signal.as_deref());
    chosen.map_or(Ok(libc::SIGTERM), parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("KILL", 9),
            ("9", 9),
            ("SIGQUIT", 3),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", libc::SIGRTMAX() - 1),
            ("RTMIN", libc::SIGRTMIN()),
            ("64", 64),
            ("WINCH", 28),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMIN-1", "RTMIN+", "RTMAX-", "15x", "RTMIN3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_specification_goes_before_the_image() {
        let mut spec = ContainerSpec::default();
        let mut image = ImageConfig::default();
        assert_eq!(stop_signal(&spec, &image).unwrap(), 15);
        image.stop_signal = Some("QUIT".to_owned());
        assert_eq!(stop_signal(&spec, &image).unwrap(), 3);
        spec.stop_signal = Some("2".to_owned());
        assert_eq!(stop_signal(&spec, &image).unwrap(), 2);
        spec.stop_signal = Some("no".to_owned());
        assert_eq!(
            stop_signal(&spec, &image).unwrap_err().to_string(),
            "no is no signal: a name such as SIGTERM or a number from 1 to 64 is expected"
        );
    }
}
