//! Calling another node: the one place where connections are opened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use skep_ca::{JoinToken, manager_name};
use skep_model::NodeId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{NodeIdentity, RpcError, tls};

/// The manager port.
pub const DEFAULT_PORT: u16 = 2377;

/// Long enough for a lost SYN to be sent again (after one second), short enough to turn to another manager.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is probed, by both sides.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// After how long without an answer to a probe the other side counts as gone.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to the manager at `addr` (`host:port`; the port is 2377 when left out) as a member. A peer that stops answering is noticed within four
/// seconds, and then all calls on the channel fail; later calls connect anew, with the certificate that `identity` has then.
///
/// # Errors
/// [`RpcError::BadAddress`]; within three seconds [`RpcError::Unreachable`], [`RpcError::Untrusted`] when the other side is no manager of this
/// swarm, [`RpcError::NotAccepted`] when it does not take this node for a member, [`RpcError::Clock`] when it is a matter of time.
pub async fn dial(addr: &str, identity: &NodeIdentity) -> Result<Channel, RpcError> {
    connected(addr, Caller::Member { identity: identity.clone(), node: None }).await
}

/// As [`dial`], but for a machine that has nothing yet but a join token: the other side must be a manager of the swarm that the token is for. The
/// token is not sent by this.
///
/// # Errors
/// As [`dial`].
pub async fn dial_with_token(addr: &str, token: &JoinToken) -> Result<Channel, RpcError> {
    let config = tls::joining(token).map_err(|e| RpcError::Untrusted { addr: addr.to_owned(), why: e.to_string() })?;
    connected(addr, Caller::Joining(Arc::new(config))).await
}

/// As [`dial`], but connects at the first call: for peers that may be down for the moment. With `node` the manager must be that one.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn dial_lazy(addr: &str, identity: &NodeIdentity, node: Option<NodeId>) -> Result<Channel, RpcError> {
    let caller = Caller::Member { identity: identity.clone(), node };
    Ok(endpoint(addr)?.connect_with_connector_lazy(service_fn(move |uri| connect(uri, caller.clone()))))
}

async fn connected(addr: &str, caller: Caller) -> Result<Channel, RpcError> {
    endpoint(addr)?
        .connect_with_connector(service_fn(move |uri| connect(uri, caller.clone())))
        .await
        .map_err(|error| RpcError::no_connection(addr, &error))
}

/// Who calls.
#[derive(Clone)]
enum Caller {
    /// A machine without a certificate.
    Joining(Arc<ClientConfig>),
    /// A member, perhaps to call a certain node.
    Member { identity: NodeIdentity, node: Option<NodeId> },
}

impl Caller {
    /// How it connects at this moment: a member may have another certificate than last time.
    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        match self {
            Self::Joining(config) => Ok(config.clone()),
            Self::Member { identity, node } => {
                tls::member(identity.current().credentials(), node.clone()).map(Arc::new).map_err(io::Error::other)
            }
        }
    }
}

fn endpoint(addr: &str) -> Result<Endpoint, RpcError> {
    let bad = || RpcError::BadAddress { addr: addr.to_owned() };
    let uri: Uri = format!("http://{addr}").parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|a| !a.host().is_empty() && !a.as_str().contains('@')).ok_or_else(bad)?;
    let port_is_bad = authority.as_str() != authority.host() && authority.port_u16().is_none();
    if port_is_bad || uri.path() != "/" || uri.query().is_some() {
        return Err(bad());
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

async fn connect(uri: Uri, caller: Caller) -> io::Result<TokioIo<BufReader<TlsStream<TcpStream>>>> {
    let host = uri.host().unwrap_or_default();
    // In a URI, IPv6 addresses are in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(caller.config()?).connect(manager_name(), stream).await?;
    let mut stream = BufReader::new(stream);
    // In TLS 1.3 a client is done before the server has looked at its certificate. Whether it is accepted shows in the first thing that the
    // server says, which in HTTP/2 it does without being asked.
    if stream.fill_buf().await?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the other side hung up"));
    }
    Ok(TokioIo::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for good in ["192.0.2.1:2377", "192.0.2.1", "manager.example:2377", "[2001:db8::1]:2377", "localhost"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", ":2377", "a b", "host:99999", "host:port", "host/path", "user@host", "http://host", "host?x"] {
            let error = endpoint(bad).expect_err(bad);
            assert_eq!(error, RpcError::BadAddress { addr: bad.to_owned() });
        }
    }
}
