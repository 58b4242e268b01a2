//! Being called: the one place where connections are accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_ca::PeerIdentity;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;

use crate::auth::GateLayer;
use crate::connection::{Caller, Connection};
use crate::dial::{PING_INTERVAL, PING_TIMEOUT};
use crate::proto::api_server::ApiServer;
use crate::proto::dispatcher_server::{Dispatcher, DispatcherServer};
use crate::proto::membership_server::{Membership, MembershipServer};
use crate::proto::raft_server::{Raft, RaftServer};
use crate::tunnel::{TunnelIo, Tunnels};
use crate::{Authenticate, MESSAGE_LIMIT, NodeIdentity, RpcError, error};

/// How long a new connection may take to prove who it is. Clients speak first and at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many connections may be in that state at a time; more wait in the kernel's queue.
const HANDSHAKES: usize = 1024;
/// How many callers without a certificate may be connected at a time; more are sent away.
const ANONYMOUS: usize = 256;
/// How long calls may take to end by themselves when the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// What a manager answers to.
#[derive(Debug, Clone, Default)]
pub struct Services(RoutesBuilder);

impl Services {
    /// Adds the service that joins nodes. Its requests carry [`crate::Admitted`] or [`crate::Peer`], as the RPC needs a token or a certificate.
    #[must_use]
    pub fn membership(mut self, service: impl Membership) -> Self {
        let server = MembershipServer::new(service);
        self.0.add_service(server.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT));
        self
    }

    /// Adds the service that nodes are in session with. Its requests carry [`crate::Peer`].
    #[must_use]
    pub fn dispatcher(mut self, service: impl Dispatcher) -> Self {
        let server = DispatcherServer::new(service);
        self.0.add_service(server.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT));
        self
    }

    /// Adds the service by which managers agree. Its requests carry the [`crate::Peer`] of a manager.
    #[must_use]
    pub fn raft(mut self, service: impl Raft) -> Self {
        let server = RaftServer::new(service);
        self.0.add_service(server.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT));
        self
    }

    /// Adds the service by which other managers pass people's requests on. Whoever serves the API takes the connections from the other end of
    /// `tunnels`.
    #[must_use]
    pub fn api(mut self, tunnels: mpsc::Sender<TunnelIo>) -> Self {
        self.0.add_service(ApiServer::new(Tunnels(tunnels)));
        self
    }

    fn routes(self) -> Routes {
        self.0.routes().prepare()
    }
}

/// Answers on `listener` as `identity` until `shutdown` resolves; then takes no new calls, and cuts those that have not ended after a second.
///
/// # Errors
/// [`RpcError::Listen`] when the port fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    authenticate: Arc<dyn Authenticate>,
    identity: NodeIdentity,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RpcError> {
    let stop = CancellationToken::new();
    let cut = CancellationToken::new();
    // Whatever ends this function, also its being dropped, ends the connections.
    let _cut_at_the_end = cut.clone().drop_guard();
    let (accepted, incoming) = mpsc::channel(16);
    let door = Door { identity: identity.clone(), anonymous: Arc::new(Semaphore::new(ANONYMOUS)), cut: cut.clone() };
    let accepting = stop.clone().run_until_cancelled_owned(accept(listener, accepted, door));
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(GateLayer::new(authenticate, identity.cluster().clone()))
        .add_routes(services.routes())
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.clone().cancelled_owned());
    let stopping = async {
        shutdown.await;
        stop.cancel();
        tokio::time::sleep(GRACE).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    let serving = async { tokio::join!(accepting, server).1 };
    tokio::select! {
        ended = serving => ended.map_err(|error| RpcError::Listen { why: error::cause(&error) }),
        () = stopping => Ok(()),
    }
}

/// What every new connection has to pass.
#[derive(Clone)]
struct Door {
    identity: NodeIdentity,
    anonymous: Arc<Semaphore>,
    cut: CancellationToken,
}

/// Accepts connections and passes on those that prove who they are, or that they are nobody.
async fn accept(listener: TcpListener, accepted: mpsc::Sender<std::io::Result<Connection>>, door: Door) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (stream, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or for want of descriptors: either way the port itself goes on.
                tracing::warn!(%error, "cannot accept a connection on the manager port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (accepted, door) = (accepted.clone(), door.clone());
        tokio::spawn(async move {
            // A port that answers by both families shows IPv4 addresses as IPv6 ones.
            let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            let entering = tokio::time::timeout(HANDSHAKE_TIMEOUT, door.enter(stream, addr));
            match door.cut.run_until_cancelled(entering).await {
                // An error says that the server has ended.
                Some(Ok(Ok(connection))) => drop(accepted.send(Ok(connection)).await),
                Some(Ok(Err(why))) => tracing::debug!(%addr, "refused a connection: {why}"),
                Some(Err(_)) => tracing::debug!(%addr, "a connection did not say in time who it is"),
                None => {}
            }
            drop(permit);
        });
    }
}

impl Door {
    /// The TLS handshake.
    async fn enter(&self, stream: TcpStream, addr: SocketAddr) -> std::io::Result<Connection> {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(self.identity.current().server.clone());
        let stream = acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = certificate.map(PeerIdentity::of).transpose().map_err(std::io::Error::other)?;
        let anonymous = identity.is_none();
        let caller = Caller { addr, identity };
        if !anonymous {
            return Ok(Connection::of_member(stream, caller, self.cut.clone()));
        }
        let place = self.anonymous.clone().try_acquire_owned();
        let place = place.map_err(|_| std::io::Error::other("too many callers without a certificate"))?;
        Ok(Connection::of_anybody(stream, caller, self.cut.clone(), place))
    }
}
