//! `/events`: one object per line, until the client has enough.

use std::sync::Arc;

use axum::response::Response;
use futures::stream::{self, StreamExt};
use jiff::SignedDuration;
use skep_model::Timestamp;
use tokio_stream::wrappers::BroadcastStream;

use super::{chunked, line};
use crate::events::EventLog;
use crate::routes::filters::Filters;
use crate::types::event::Event;

/// What events can be chosen by.
pub(crate) const FILTERS: [&str; 16] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "task",
    "type",
    "volume",
    "endpoint",
];
/// Those of them that are types of objects: their values are names or ids.
const OBJECTS: [&str; 9] =
    ["network", "node", "service", "task", "endpoint", "secret", "config", "container", "volume"];

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Events that have been already, from here on; `None` is none.
    pub(crate) since: Option<Timestamp>,
    /// The end; `None` is never.
    pub(crate) until: Option<Timestamp>,
}

fn passes(filters: &Filters, event: &Event) -> bool {
    let named = |wanted: &String| {
        event.actor.id.starts_with(wanted.as_str()) || event.actor.attributes.get("name") == Some(wanted)
    };
    filters.is("type", &event.kind)
        && filters.is("event", &event.action)
        && filters.is("scope", &event.scope)
        && filters.labels("label", &event.actor.attributes)
        && OBJECTS.iter().all(|kind| filters.values(kind).next().is_none() || event.kind == *kind)
        && filters.any(&event.kind, named)
}

pub(crate) fn response(
    log: &EventLog,
    filters: Filters,
    span: Span,
    closed: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let (kept, live) = log.subscribe();
    let nanos = |at: Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
    let from = span.since.map(nanos);
    let to = span.until.map_or(i64::MAX, nanos);
    let past: Vec<Arc<Event>> = kept.into_iter().filter(|e| from.is_some_and(|from| e.time_nano >= from)).collect();
    // A slow client misses events rather than holding everybody else's back.
    let live = BroadcastStream::new(live).filter_map(async |event| event.ok());
    let all = stream::iter(past).chain(live).take_until(ended(span.until)).take_until(Box::pin(closed));
    let lines = all.filter_map(move |event| {
        let shown = event.time_nano <= to && passes(&filters, &event);
        std::future::ready(shown.then(|| line(&*event)))
    });
    chunked("application/json", lines)
}

/// Completes at that time; never without one.
async fn ended(until: Option<Timestamp>) {
    match until {
        Some(until) => {
            let left = until.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
            tokio::time::sleep(left.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}
