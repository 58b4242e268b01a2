//! Answers that go on: logs, events, progress, programs' input and output.

pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod pull;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;

/// An answer of that type made of parts as they come.
pub(crate) fn chunked<S>(content_type: &'static str, parts: S) -> Response
where
    S: Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
{
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
    (headers, Body::from_stream(parts)).into_response()
}

/// A line of JSON.
pub(crate) fn line<T: Serialize>(value: &T) -> Result<Bytes, std::io::Error> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text.into())
}
