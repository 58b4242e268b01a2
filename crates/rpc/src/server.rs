//! Being called: the one place where connections are accepted.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;

use crate::auth::GateLayer;
use crate::connection::Connection;
use crate::dial::{PING_INTERVAL, PING_TIMEOUT};
use crate::proto::api_server::ApiServer;
use crate::proto::dispatcher_server::{Dispatcher, DispatcherServer};
use crate::proto::membership_server::{Membership, MembershipServer};
use crate::proto::raft_server::{Raft, RaftServer};
use crate::tunnel::{TunnelIo, Tunnels};
use crate::{Authenticate, MESSAGE_LIMIT, RpcError, error};

/// How long a new connection may be silent. Clients speak first and at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How many connections may be silent at a time; more wait in the kernel's queue.
const SILENT_CONNECTIONS: usize = 1024;
/// How long calls may take to end by themselves when the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// What a manager answers to.
#[derive(Debug, Clone, Default)]
pub struct Services(RoutesBuilder);

impl Services {
    /// Adds the service that joins nodes. Its requests carry [`crate::Admitted`].
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

/// Answers on `listener` until `shutdown` resolves; then takes no new calls, and cuts those that have not ended after a second.
///
/// # Errors
/// [`RpcError::Listen`] when the port fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    authenticate: Arc<dyn Authenticate>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RpcError> {
    let stop = CancellationToken::new();
    let cut = CancellationToken::new();
    // Whatever ends this function, also its being dropped, ends the connections.
    let _cut_at_the_end = cut.clone().drop_guard();
    let (accepted, incoming) = mpsc::channel(16);
    let accepting = stop.clone().run_until_cancelled_owned(accept(listener, accepted, cut.clone()));
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(GateLayer(authenticate))
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

/// Accepts connections and passes on those that say something.
async fn accept(listener: TcpListener, accepted: mpsc::Sender<std::io::Result<Connection>>, cut: CancellationToken) {
    let silent = Arc::new(Semaphore::new(SILENT_CONNECTIONS));
    loop {
        let Ok(permit) = silent.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or for want of descriptors: either way the port itself goes on.
                tracing::warn!(%error, "cannot accept a connection on the manager port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (accepted, cut) = (accepted.clone(), cut.clone());
        tokio::spawn(async move {
            if cut.clone().run_until_cancelled_owned(greeting(&stream)).await == Some(true) {
                // An error says that the server has ended.
                let _ = accepted.send(Ok(Connection::new(stream, cut))).await;
            }
            drop(permit);
        });
    }
}

/// Whether the other side speaks in time.
async fn greeting(stream: &TcpStream) -> bool {
    let spoken = tokio::time::timeout(GREETING_TIMEOUT, stream.peek(&mut [0])).await;
    stream.set_nodelay(true).is_ok() && matches!(spoken, Ok(Ok(1)))
}
