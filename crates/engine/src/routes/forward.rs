//! Requests that only the leader can answer, on a manager that does not lead: they are passed on, and the answer is passed back.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::App;
use super::answer::Refusal;
use super::params::LARGEST;
use super::version::ApiVersion;
use crate::backend::leader::{Leader, Tunnel};
use crate::error::{Error, ErrorKind};

/// Marks requests that another manager has passed on: they are answered here or not at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassedOn;

/// How often something is asked that can be asked again.
const TRIES: usize = 3;

/// Lets the leader answer.
pub(super) async fn to_leader(
    State(app): State<Arc<App>>,
    version: Extension<ApiVersion>,
    request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<PassedOn>().is_some() {
        return if app.backend.leads() { next.run(request).await } else { no_leader() };
    }
    let (parts, body) = request.into_parts();
    // It has been read already.
    let Ok(body) = axum::body::to_bytes(body, LARGEST).await else {
        return Refusal::new(StatusCode::BAD_REQUEST, "cannot read the request").into_response();
    };
    for _ in 0..TRIES {
        let tunnel = match app.backend.leader().await {
            Err(error) => return Refusal::of_cluster(error).into_response(),
            Ok(Leader::Here) => return next.run(Request::from_parts(parts, Body::from(body))).await,
            Ok(Leader::Elsewhere(tunnel)) => tunnel,
        };
        match ask(tunnel, passed_on(&parts, *version, body.clone())).await {
            Ok(answer) => return answer,
            // Another one will lead soon, and knows as much.
            Err(_) if parts.method == Method::GET => {}
            Err(error) => return Refusal::of_cluster(error).into_response(),
        }
    }
    no_leader()
}

fn no_leader() -> Response {
    Refusal::of_cluster(Error::no_leader()).into_response()
}

fn passed_on(parts: &request::Parts, version: ApiVersion, body: Bytes) -> hyper::Request<Full<Bytes>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = hyper::Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("/v{version}{path}").parse().unwrap_or_else(|_| Uri::from_static("/"));
    for (name, value) in parts.headers.iter().filter(|(name, _)| !of_connection(name)) {
        request.headers_mut().append(name, value.clone());
    }
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("leader"));
    request
}

/// Headers that are about the connection, and not about what is asked (RFC 9110, 7.6.1).
fn of_connection(name: &header::HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::CONTENT_LENGTH, header::HOST]
        .contains(name)
}

async fn ask(tunnel: Tunnel, request: hyper::Request<Full<Bytes>>) -> Result<Response, Error> {
    let lost = tunnel.lost.shared();
    let answering = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel.connection)).await?;
        // It ends with the answer, or with whoever waits for it.
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let answer = match select(std::pin::pin!(answering), lost.clone()).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(_), _)) | Either::Right(_) => return Err(broken_off()),
    };
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let body = Body::new(body).into_data_stream().take_until(lost);
    Ok(Response::from_parts(parts, Body::from_stream(body)))
}

fn broken_off() -> Error {
    Error::new(
        ErrorKind::Unknown,
        "The swarm lost its leader while it was asked: it may or may not have been done. Look, and ask again.",
    )
}
