//! Calling another node: the one place where connections are opened.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::RpcError;
use crate::error::cause;

/// The manager port.
pub const DEFAULT_PORT: u16 = 2377;

/// Long enough for a lost SYN to be sent again (after one second), short enough to turn to another manager.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is probed, by both sides.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// After how long without an answer to a probe the other side counts as gone.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to `addr` (`host:port`; the port is 2377 when left out). A peer that stops answering is noticed within four seconds, and
/// then all calls on the channel fail; later calls connect anew.
///
/// # Errors
/// [`RpcError::BadAddress`], or [`RpcError::Unreachable`] after three seconds at most.
pub async fn dial(addr: &str) -> Result<Channel, RpcError> {
    let endpoint = endpoint(addr)?;
    endpoint
        .connect_with_connector(service_fn(connect))
        .await
        .map_err(|error| RpcError::Unreachable { addr: addr.to_owned(), why: cause(&error) })
}

/// As [`dial`], but connects at the first call: for peers that may be down for the moment.
///
/// # Errors
/// [`RpcError::BadAddress`].
pub fn dial_lazy(addr: &str) -> Result<Channel, RpcError> {
    Ok(endpoint(addr)?.connect_with_connector_lazy(service_fn(connect)))
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

async fn connect(uri: Uri) -> std::io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default();
    // In a URI, IPv6 addresses are in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
    stream.set_nodelay(true)?;
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
