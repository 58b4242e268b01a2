//! Wire types to the words of `skep-model` and back.
//!
//! On the way in everything is checked: what makes no sense is [`ErrorKind::InvalidArgument`], what this version cannot do is
//! [`ErrorKind::Unimplemented`], and both name the field. On the way out the answer is what was stored, plus Docker's
//! defaults where the request asks for them.
//!
//! [`ErrorKind::InvalidArgument`]: crate::ErrorKind::InvalidArgument
//! [`ErrorKind::Unimplemented`]: crate::ErrorKind::Unimplemented

pub mod attached;
mod bound;
pub mod changes;
pub(crate) mod conflict;
pub mod container;
pub mod data;
pub mod endpoint;
mod generic;
pub mod health;
pub mod image;
pub mod info;
pub mod mount;
pub mod network;
pub mod node;
pub mod registry;
pub mod running;
pub mod service;
pub mod swarm;
pub mod task;
pub mod task_spec;
pub mod update;
pub mod usage;
pub mod volume;

use std::time::Duration;

use crate::error::Error;

/// `field` asks for something that this version of skep cannot do.
pub(crate) fn unsupported(field: &str, why: &str) -> Error {
    Error::unimplemented(format!("{field}: {why}"))
}

/// A length of time that must not be negative.
pub(crate) fn duration(field: &str, nanoseconds: i64) -> Result<Duration, Error> {
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| Error::invalid(format!("{field}: a length of time cannot be negative")))
}

/// An amount that must not be negative.
pub(crate) fn amount(field: &str, value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::invalid(format!("{field} cannot be negative")))
}

/// As Go writes a length of time. Longer than 292 years is 292 years.
pub(crate) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Go's integers are signed where ours are not.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A text that may be missing, as Go has it.
pub(crate) fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

/// A text that Go leaves empty when it is missing.
pub(crate) fn optional(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}
