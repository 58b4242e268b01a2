//! Connections: one for each request, opened, used and closed within bounded time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{self, Insecure, Patience, RegistryConfig};
use crate::error::RegistryError;
use crate::tls::{self, Authorities};
use crate::url::{Scheme, Url};

/// How long an insecure registry may take to answer a greeting by TLS; one that speaks plain HTTP may wait for more of it.
const GREETING: Duration = Duration::from_secs(3);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Http {
    insecure: Vec<Insecure>,
    authorities: Authorities,
    pub(crate) patience: Patience,
}

/// A server that was looked up, and whether it has to prove who it is.
struct Found {
    addresses: Vec<SocketAddr>,
    insecure: bool,
}

impl Http {
    pub(crate) fn new(config: &RegistryConfig) -> Self {
        Self {
            insecure: config.insecure.clone(),
            authorities: Authorities::new(config.certificates.clone()),
            patience: config.patience,
        }
    }

    /// The root of the registry that people call `domain`. For an insecure one it is found out whether it speaks TLS.
    pub(crate) async fn registry(&self, domain: &str) -> Result<Url, RegistryError> {
        let host = if matches!(domain, "docker.io" | "index.docker.io") { "registry-1.docker.io" } else { domain };
        let at = |scheme| {
            let reason = "it is no host and port".to_owned();
            Url::at(scheme, host).ok_or_else(|| RegistryError::Unreachable { registry: host.to_owned(), reason })
        };
        let (strict, plain) = (at(Scheme::Https)?, at(Scheme::Http)?);
        let found = timeout(self.patience.connect, look_up(&self.insecure, &strict)).await;
        let found = found.map_err(|_| unreachable(&strict, "its name is not found in time"))??;
        if !found.insecure || matches!(timeout(GREETING, self.open(&strict)).await, Ok(Ok(_))) {
            return Ok(strict);
        }
        // Whatever went wrong with TLS: the other way has the last word. It may be down just now, so nothing is remembered.
        self.open(&plain).await?;
        Ok(plain)
    }

    /// Sends a request, and returns what the answer begins with.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let registry = || ask.url.authority();
        let stream = self.open(&ask.url).await?;
        let broken = |e: hyper::Error| RegistryError::Broken { registry: registry(), reason: cause(&e) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It lives as long as its answer is being read, and ends with it; what goes wrong is told to the reader.
        tokio::spawn(connection);
        let mut request = Request::builder().method(&ask.method).uri(&ask.url.path);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&ask.headers);
            headers.insert(HOST, host_header(&ask.url)?);
            headers.insert(USER_AGENT, HeaderValue::from_static(concat!("skep/", env!("CARGO_PKG_VERSION"))));
        }
        let request = request.body(Full::new(ask.body.clone()));
        let request = request.map_err(|e| unreachable(&ask.url, &e.to_string()))?;
        let answer = timeout(self.patience.answer, sender.send_request(request)).await;
        answer.map_err(|_| silent(&ask.url, self.patience.answer))?.map_err(broken)
    }

    /// All of a small answer.
    pub(crate) async fn bytes(
        &self,
        from: &Url,
        what: &str,
        limit: usize,
        response: Response<Incoming>,
    ) -> Result<Bytes, RegistryError> {
        let too_big = || RegistryError::TooBig { what: what.to_owned(), limit: limit as u64 };
        let announced = content_length(response.headers());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(too_big());
        }
        let mut body = response.into_body();
        let mut all = BytesMut::new();
        while let Some(part) = self.next(from, &mut body).await? {
            if all.len() + part.len() > limit {
                return Err(too_big());
            }
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    /// The next bytes of an answer; `None` at its end.
    pub(crate) async fn next(&self, from: &Url, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = timeout(self.patience.stall, body.frame()).await;
            match frame.map_err(|_| silent(from, self.patience.stall))? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(e)) => return Err(RegistryError::Broken { registry: from.authority(), reason: cause(&e) }),
            }
        }
    }

    async fn open(&self, server: &Url) -> Result<Box<dyn Stream>, RegistryError> {
        let opening = timeout(self.patience.connect, self.connect(server)).await;
        opening.map_err(|_| unreachable(server, "no connection in time"))?
    }

    async fn connect(&self, server: &Url) -> Result<Box<dyn Stream>, RegistryError> {
        let found = look_up(&self.insecure, server).await?;
        let stream = match server.scheme {
            Scheme::Http if found.insecure => return Ok(Box::new(reach(server, &found.addresses).await?)),
            Scheme::Http => {
                let reason = "plain HTTP is for registries that the daemon was told of with --insecure-registry";
                return Err(unreachable(server, reason));
            }
            Scheme::Https => reach(server, &found.addresses).await?,
        };
        let config = if found.insecure { tls::lenient() } else { self.authorities.strict(server)? };
        let name = ServerName::try_from(server.host.clone()).map_err(|e| unreachable(server, &e.to_string()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|e| unreachable(server, &advised(server, &e.to_string())))?))
    }
}

async fn look_up(insecure: &[Insecure], server: &Url) -> Result<Found, RegistryError> {
    let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|e| unreachable(server, &e.to_string()))?.collect();
    let ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    Ok(Found { insecure: config::is_insecure(insecure, server, &ips), addresses })
}

async fn reach(server: &Url, addresses: &[SocketAddr]) -> Result<TcpStream, RegistryError> {
    let mut trouble = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => trouble = format!("{address}: {e}"),
        }
    }
    Err(unreachable(server, &trouble))
}

fn host_header(url: &Url) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(&url.authority()).map_err(|e| unreachable(url, &e.to_string()))
}

/// What to do about a certificate that is not trusted.
fn advised(server: &Url, reason: &str) -> String {
    if !reason.contains("UnknownIssuer") {
        return reason.to_owned();
    }
    format!(
        "its certificate is issued by nobody who is trusted: put the issuer's certificate into /etc/docker/certs.d/{}/ca.crt",
        server.authority()
    )
}

/// What an answer says of its length.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn unreachable(server: &Url, reason: &str) -> RegistryError {
    RegistryError::Unreachable { registry: server.authority(), reason: reason.to_owned() }
}

fn silent(server: &Url, patience: Duration) -> RegistryError {
    RegistryError::Silent { registry: server.authority(), patience }
}

/// The innermost reason of an error: the outer ones say that there was one.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

/// Shared by everybody who speaks with registries.
pub(crate) type SharedHttp = Arc<Http>;
