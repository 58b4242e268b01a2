//! Answers: JSON, and refusals.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::types::meta::ErrorMessage;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A value as JSON, with a line feed behind it as Go's encoder writes it.
pub(crate) struct Json<T>(pub(crate) StatusCode, pub(crate) T);

impl<T: Serialize> Json<T> {
    /// 200.
    pub(crate) fn ok(value: T) -> Self {
        Self(StatusCode::OK, value)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.1) {
            Ok(mut body) => {
                body.push(b'\n');
                (self.0, [(header::CONTENT_TYPE, JSON)], Body::from(body)).into_response()
            }
            // Only maps with keys that are no texts can fail, and there are none.
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// 200 and nothing in it.
pub(crate) fn empty() -> Response {
    StatusCode::OK.into_response()
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A refusal as clients see it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    plain: bool,
    undone: bool,
}

/// On refusals for want of a leader: nothing was done, and another manager may be asked without harm.
pub(crate) const UNDONE: HeaderName = HeaderName::from_static("skep-undone");

/// What endpoints answer.
pub(crate) type Answer<T = Response> = Result<T, Refusal>;

impl Refusal {
    /// As JSON.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), plain: false, undone: false }
    }

    /// As text.
    pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), plain: true, undone: false }
    }

    /// No such endpoint.
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// A refusal from the swarm's managers: Docker passes the gRPC code on, and clients look for it.
    #[must_use]
    pub(crate) fn of_cluster(error: Error) -> Self {
        match error.kind.rpc_code() {
            Some(code) => Self::plain(error.kind, format!("rpc error: code = {code} desc = {}", error.message)),
            None => Self::from(error),
        }
    }

    fn plain(kind: ErrorKind, message: String) -> Self {
        let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { undone: kind == ErrorKind::NoLeader, ..Self::new(status, message) }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::plain(error.kind, error.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.plain {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            return (self.status, [(header::CONTENT_TYPE, text)], self.message + "\n").into_response();
        }
        let mut response = Json(self.status, ErrorMessage { message: self.message }).into_response();
        if self.undone {
            response.headers_mut().insert(UNDONE, HeaderValue::from_static("true"));
        }
        response
    }
}
