//! Requests that only the leader can answer, on a manager that does not lead: they are passed on, and the answer is passed back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::App;
use super::answer::{Refusal, UNDONE};
use super::params::LARGEST;
use super::version::ApiVersion;
use crate::backend::leader::{Leader, Tunnel};
use crate::error::{Error, ErrorKind};

/// Marks requests that another manager has passed on: they are answered here or not at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassedOn;

/// For how long something is asked again that can be.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a manager is asked again that did not lead.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a manager that leads no more may need to say whether something was done.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lets the leader answer.
pub(super) async fn to_leader(
    State(app): State<Arc<App>>,
    version: Extension<ApiVersion>,
    request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<PassedOn>().is_some() {
        // Somebody says that this manager leads: it will, when it has caught up.
        return match app.backend.leader().await {
            Ok(Leader::Here) if app.backend.leads() => next.run(request).await,
            _ => no_leader(),
        };
    }
    let (parts, body) = request.into_parts();
    // It has been read already.
    let Ok(body) = axum::body::to_bytes(body, LARGEST).await else {
        return Refusal::new(StatusCode::BAD_REQUEST, "cannot read the request").into_response();
    };
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let answered = match app.backend.leader().await {
            Err(error) => return Refusal::of_cluster(error).into_response(),
            Ok(Leader::Here) => {
                Ok(next.clone().run(Request::from_parts(parts.clone(), Body::from(body.clone()))).await)
            }
            Ok(Leader::Elsewhere(tunnel)) => {
                let patience = if parts.method == Method::GET { Duration::ZERO } else { LAST_WORDS };
                ask(tunnel, passed_on(&parts, *version, body.clone()), patience).await
            }
        };
        match answered {
            // It led no more when it came to it. Another one leads, or will soon.
            Ok(answer) if answer.headers().contains_key(UNDONE) => tokio::time::sleep(AGAIN).await,
            Ok(answer) => return answer,
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

/// Asks the leader. One that leads no more may still say what became of the request, and is given `patience` for that.
async fn ask(tunnel: Tunnel, request: hyper::Request<Full<Bytes>>, patience: Duration) -> Result<Response, Error> {
    let lost = tunnel.lost.shared();
    let in_vain = lost.clone().then(|()| tokio::time::sleep(patience));
    let answering = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel.connection)).await?;
        // It ends with the answer, or with whoever waits for it.
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        // What ends by itself is waited for to its end.
        let whole = if parts.headers.contains_key(header::CONTENT_LENGTH) {
            Either::Left(body.collect().await?.to_bytes())
        } else {
            Either::Right(body)
        };
        Ok::<_, hyper::Error>((parts, whole))
    };
    let (mut parts, body) = match select(std::pin::pin!(answering), std::pin::pin!(in_vain)).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(_), _)) | Either::Right(_) => return Err(broken_off()),
    };
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let body = match body {
        Either::Left(whole) => Body::from(whole),
        Either::Right(endless) => Body::from_stream(Body::new(endless).into_data_stream().take_until(lost)),
    };
    Ok(Response::from_parts(parts, body))
}

fn broken_off() -> Error {
    Error::new(
        ErrorKind::Unknown,
        "The swarm lost its leader while it was asked: it may or may not have been done. Look, and ask again.",
    )
}
