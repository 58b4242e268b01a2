//! Why libcontainer failed: its errors lose the cause on their way between its processes, but each of these writes the cause to
//! the log when it meets it. Here the log is a file in memory that all of them share.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Seek, Write};

use rustix::fs::MemfdFlags;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A `tracing` subscriber that keeps errors.
struct Keeper(File);

/// What was kept.
pub(super) struct Causes(File);

impl Causes {
    /// Begins to keep, in this process and in its children.
    pub(super) fn keep() -> std::io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("causes", MemfdFlags::CLOEXEC)?);
        let keeper = Keeper(file.try_clone()?);
        // Only a second subscriber is an error, and this process has but one.
        let _ = tracing::subscriber::set_global_default(keeper);
        Ok(Self(file))
    }

    /// The first error, which is the one closest to the cause.
    pub(super) fn first(mut self) -> Option<String> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        self.0.read_to_string(&mut text).ok()?;
        text.lines().next().map(str::to_owned)
    }
}

/// `message (name: value, …)` on one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text does not fail.
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let comma = if self.fields.is_empty() { "" } else { ", " };
            let _ = write!(self.fields, "{comma}{}: {value:?}", field.name());
        }
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = match (line.message.as_str(), line.fields.as_str()) {
            (message, "") => message.to_owned(),
            ("", fields) => fields.to_owned(),
            (message, fields) => format!("{message} ({fields})"),
        };
        // One write for the line: the file's position is shared. Nobody could be told of a failure.
        let _ = (&self.0).write_all(format!("{}\n", text.replace('\n', " ")).as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_cause() {
        let causes = Causes::keep().unwrap();
        tracing::warn!("not this");
        tracing::error!(err = ?std::io::ErrorKind::NotFound, path = "/x", "failed to\nmount");
        tracing::error!("failed to prepare");
        assert_eq!(causes.first().unwrap(), "failed to mount (err: NotFound, path: \"/x\")");
    }
}
