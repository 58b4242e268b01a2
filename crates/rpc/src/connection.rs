//! One accepted connection, which can be cut from outside.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use skep_ca::PeerIdentity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// How long a caller without a certificate may stay connected: a join takes no longer.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(30);

/// Who is on the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) addr: SocketAddr,
    /// What its certificate says; `None` when it showed none.
    pub(crate) identity: Option<PeerIdentity>,
}

/// A TLS connection that ends when its server has no more patience: calls that never end by themselves, such as sessions,
/// must not keep a daemon from stopping, and who has no certificate must not stay.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    cut: BoxFuture<'static, ()>,
    /// The place among callers without a certificate.
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Of a member.
    pub(crate) fn of_member(stream: TlsStream<TcpStream>, caller: Caller, cut: CancellationToken) -> Self {
        Self { stream, caller, cut: Box::pin(cut.cancelled_owned()), _place: None }
    }

    /// Of a caller without a certificate, which takes one of the places for such.
    pub(crate) fn of_anybody(
        stream: TlsStream<TcpStream>,
        caller: Caller,
        cut: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let cut = async move {
            // Whichever comes first.
            let _ = tokio::time::timeout(ANONYMOUS_LIFE, cut.cancelled_owned()).await;
        };
        Self { stream, caller, cut: Box::pin(cut), _place: Some(place) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the server")));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
