//! The HTTP client: one connection per request, over a unix socket or TCP.

mod address;
mod body;
pub(crate) mod stdcopy;

use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::OnceCell;

use address::Address;
pub(crate) use body::{RequestBody, file_body};

/// The newest API version whose requests this program knows how to make.
const NEWEST: (u32, u32) = (1, 50);

/// The daemon answered with a status of 400 or more.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The daemon's sentence.
    pub(crate) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Error response from daemon: {}", self.message)
    }
}

impl std::error::Error for Refused {}

/// Whether an error is the daemon's "no such thing".
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.status == StatusCode::NOT_FOUND)
}

/// Whether an error is the daemon's "I am no manager".
pub(crate) fn is_no_manager(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.status == StatusCode::SERVICE_UNAVAILABLE)
}

/// A way to the daemon.
pub(crate) struct Client {
    address: Address,
    version: OnceCell<String>,
}

/// Query parameters; values are encoded here.
pub(crate) type Query<'a> = &'a [(&'a str, String)];

impl Client {
    /// The daemon at `host`, or else where the environment says.
    pub(crate) fn from_environment(host: Option<String>) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let host = host.or_else(|| variable("SKEP_HOST")).or_else(|| variable("DOCKER_HOST"));
        Self::new(host.as_deref().unwrap_or(address::DEFAULT))
    }

    /// The daemon at `unix:///path` or `tcp://host:port`.
    pub(crate) fn new(host: &str) -> anyhow::Result<Self> {
        Ok(Self { address: host.parse()?, version: OnceCell::new() })
    }

    /// `GET`, the answer parsed.
    pub(crate) async fn get(&self, path: &str, query: Query<'_>) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.get_raw(path, query).await?)?)
    }

    /// `GET`, the answer as it was written (its members in the daemon's order).
    pub(crate) async fn get_raw(&self, path: &str, query: Query<'_>) -> anyhow::Result<Bytes> {
        collect(self.send(Method::GET, path, query, empty()).await?).await
    }

    /// `GET`, the answer left to the caller to read piece by piece.
    pub(crate) async fn stream(&self, path: &str, query: Query<'_>) -> anyhow::Result<Incoming> {
        Ok(self.send(Method::GET, path, query, empty()).await?.into_body())
    }

    /// `POST` of a JSON value; an empty answer is null.
    pub(crate) async fn post(&self, path: &str, query: Query<'_>, body: &Value) -> anyhow::Result<Value> {
        let body = full(if body.is_null() { Bytes::new() } else { serde_json::to_vec(body)?.into() });
        let answer = collect(self.send(Method::POST, path, query, body).await?).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// `POST` of a JSON value, after which the connection belongs to the caller.
    pub(crate) async fn upgrade(&self, path: &str, body: &Value) -> anyhow::Result<Upgraded> {
        let version = self.version.get_or_try_init(|| self.negotiate()).await?;
        let target = format!("/v{version}{path}");
        let request = request(Method::POST, &target).header("connection", "Upgrade").header("upgrade", "tcp");
        let answer = self.dispatch(request.body(full(serde_json::to_vec(body)?.into()))?).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hyper::upgrade::on(answer).await.context("the daemon closed the connection");
        }
        let status = answer.status();
        Err(Refused { status, message: message_of(status, &collect(answer).await?) }.into())
    }

    /// `POST` of a body of any length; the answer is left to the caller.
    pub(crate) async fn upload(&self, path: &str, query: Query<'_>, body: RequestBody) -> anyhow::Result<Incoming> {
        Ok(self.send(Method::POST, path, query, body).await?.into_body())
    }

    /// `GET` with what somebody proves to a registry.
    pub(crate) async fn ask(&self, path: &str, auth: &str) -> anyhow::Result<Value> {
        let answer = self.send_as(Some(auth), Method::GET, path, &[], empty()).await?;
        Ok(serde_json::from_slice(&collect(answer).await?)?)
    }

    /// `POST` without a body, with what somebody proves to a registry; the answer is left to the caller.
    pub(crate) async fn order(&self, path: &str, query: Query<'_>, auth: &str) -> anyhow::Result<Incoming> {
        Ok(self.send_as(Some(auth), Method::POST, path, query, empty()).await?.into_body())
    }

    /// `POST` of a JSON value, with what somebody proves to a registry where there is something.
    pub(crate) async fn post_as(
        &self,
        auth: Option<&str>,
        path: &str,
        query: Query<'_>,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let body = full(serde_json::to_vec(body)?.into());
        Ok(serde_json::from_slice(&collect(self.send_as(auth, Method::POST, path, query, body).await?).await?)?)
    }

    /// `DELETE`; an empty answer is null.
    pub(crate) async fn delete(&self, path: &str, query: Query<'_>) -> anyhow::Result<Value> {
        let answer = collect(self.send(Method::DELETE, path, query, empty()).await?).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: RequestBody,
    ) -> anyhow::Result<Response<Incoming>> {
        self.send_as(None, method, path, query, body).await
    }

    async fn send_as(
        &self,
        auth: Option<&str>,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: RequestBody,
    ) -> anyhow::Result<Response<Incoming>> {
        let version = self.version.get_or_try_init(|| self.negotiate()).await?;
        let mut target = format!("/v{version}{path}");
        for (i, (key, value)) in query.iter().enumerate() {
            let _ = write!(target, "{}{key}={}", if i == 0 { '?' } else { '&' }, percent(value));
        }
        let answer = self.exchange(auth, method, &target, body).await?;
        if answer.status().as_u16() < 400 {
            return Ok(answer);
        }
        let status = answer.status();
        Err(Refused { status, message: message_of(status, &collect(answer).await?) }.into())
    }

    /// The newest version that both sides know.
    async fn negotiate(&self) -> anyhow::Result<String> {
        let answer = self.exchange(None, Method::HEAD, "/_ping", empty()).await?;
        let theirs = answer.headers().get("api-version").and_then(|v| v.to_str().ok()).and_then(|v| {
            let (major, minor) = v.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let (major, minor): (u32, u32) = theirs.unwrap_or(NEWEST).min(NEWEST);
        Ok(format!("{major}.{minor}"))
    }

    async fn exchange(
        &self,
        auth: Option<&str>,
        method: Method,
        target: &str,
        body: RequestBody,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = request(method, target);
        if let Some(auth) = auth {
            request = request.header("x-registry-auth", auth);
        }
        self.dispatch(request.body(body)?).await
    }

    async fn dispatch(&self, request: Request<RequestBody>) -> anyhow::Result<Response<Incoming>> {
        let stream = self.address.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The connection lives as long as its answer is being read, and ends with it.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.context("the daemon closed the connection before it answered")
    }
}

fn request(method: Method, target: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "skep")
        .header("user-agent", concat!("skep/", env!("CARGO_PKG_VERSION")))
        .header("content-type", "application/json")
}

fn empty() -> RequestBody {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn collect(answer: Response<Incoming>) -> anyhow::Result<Bytes> {
    Ok(answer.into_body().collect().await.context("the daemon's answer broke off")?.to_bytes())
}

fn message_of(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(message) = parsed.as_ref().and_then(|v| v["message"].as_str()) {
        return message.to_owned();
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    if text.is_empty() { status.to_string() } else { text }
}

/// Percent-encoding of a query value or a path segment (RFC 3986: all but the unreserved characters).
pub(crate) fn percent(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_reserves_is_encoded() {
        assert_eq!(percent(r#"{"name":{"é":true}}"#), "%7B%22name%22%3A%7B%22%C3%A9%22%3Atrue%7D%7D");
        assert_eq!(percent("a-b._~9"), "a-b._~9");
    }

    #[test]
    fn a_refusal_reads_as_docker_prints_it() {
        let message = message_of(StatusCode::NOT_FOUND, br#"{"message":"service x not found"}"#);
        let refused = Refused { status: StatusCode::NOT_FOUND, message };
        assert_eq!(refused.to_string(), "Error response from daemon: service x not found");
        assert_eq!(message_of(StatusCode::BAD_GATEWAY, b""), "502 Bad Gateway");
        assert_eq!(message_of(StatusCode::BAD_GATEWAY, b"plain\n"), "plain");
    }
}
