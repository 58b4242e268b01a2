//! Sockets: where the API listens, and how it stops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::events::EventLog;
use crate::routes::forward::PassedOn;
use crate::routes::{self, App};

/// Where to listen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Paths of Unix sockets.
    pub unix: Vec<PathBuf>,
    /// TCP addresses; port 0 takes any. Whoever reaches one is root on the machine.
    pub tcp: Vec<SocketAddr>,
    /// TCP addresses for metrics alone, without the API; port 0 takes any.
    pub metrics: Vec<SocketAddr>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers on the socket already.
    #[error("another daemon answers on {0}: stop it, or give this one another -H")]
    Taken(PathBuf),
    /// Something else is where the socket should be.
    #[error("{0} exists and is no socket: remove it, or give another -H")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// The path or address.
        at: String,
        /// What it said.
        source: io::Error,
    },
    /// Serving broke off.
    #[error("the API on {at} stopped: {source}")]
    Serve {
        /// The path or address.
        at: String,
        /// What happened.
        source: io::Error,
    },
}

/// The API on its sockets, before and while it serves.
#[derive(Debug)]
pub struct Server {
    unix: Vec<(SocketFile, UnixListener)>,
    tcp: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    tunnels: Option<Tunnels>,
}

/// Connections that other managers have opened through the manager port, to pass requests on to this one.
#[derive(Debug)]
struct Tunnels(mpsc::Receiver<DuplexStream>);

impl axum::serve::Listener for Tunnels {
    type Io = DuplexStream;
    type Addr = &'static str;

    async fn accept(&mut self) -> (DuplexStream, &'static str) {
        match self.0.recv().await {
            Some(connection) => (connection, "another manager"),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<&'static str> {
        Ok("the manager port")
    }
}

/// A socket's path, removed when the server goes.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "the API's socket stays behind");
        }
    }
}

/// How long requests under way may take to finish once the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Mode of the Unix socket: whoever may write to it is root on the machine.
const SOCKET_MODE: u32 = 0o660;

impl Server {
    /// Takes the sockets. Nothing is answered until [`Self::serve`].
    ///
    /// # Errors
    /// When a socket is taken or cannot be made. A stale Unix socket, on which nobody answers, is replaced.
    pub async fn bind(listeners: &Listeners) -> Result<Self, ServeError> {
        let mut unix = Vec::new();
        for path in &listeners.unix {
            unix.push(bind_unix(path).await?);
        }
        let (tcp, metrics) = (bind_tcp(&listeners.tcp).await?, bind_tcp(&listeners.metrics).await?);
        Ok(Self { unix, tcp, metrics, tunnels: None })
    }

    /// Answers other managers too, on the connections that come out of `tunnels`.
    #[must_use]
    pub fn with_tunnels(self, tunnels: mpsc::Receiver<DuplexStream>) -> Self {
        Self { tunnels: Some(Tunnels(tunnels)), ..self }
    }

    /// The TCP addresses that it listens on, with the ports that were chosen.
    #[must_use]
    pub fn tcp_addrs(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// The addresses that metrics are served at, with the ports that were chosen.
    #[must_use]
    pub fn metrics_addrs(&self) -> Vec<SocketAddr> {
        self.metrics.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Answers until `shutdown` completes: then no new connection is taken, endless streams (events, followed logs) end, and
    /// requests under way have ten seconds to finish. The Unix sockets are removed.
    ///
    /// # Errors
    /// When a listener breaks.
    pub async fn serve(
        self,
        backend: Arc<dyn Backend>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (close, closing) = watch::channel(false);
        let events = EventLog::default();
        let pump = tokio::spawn(events.clone().pump(backend.changes()));
        let metrics = crate::metrics::router(backend.clone());
        let app = App::new(backend, events, closing.clone());
        let router = routes::entry(app);
        let mut serving = JoinSet::new();
        let mut files = Vec::new();
        for (file, listener) in self.unix {
            let at = file.0.display().to_string();
            files.push(file);
            serving.spawn(answer(listener, router.clone(), closing.clone(), at));
        }
        let tcp = self.tcp.into_iter().map(|listener| (listener, &router));
        for (listener, router) in tcp.chain(self.metrics.into_iter().map(|listener| (listener, &metrics))) {
            let at = listener.local_addr().map_or_else(|_| "tcp".to_owned(), |a| a.to_string());
            serving.spawn(answer(listener, router.clone(), closing.clone(), at));
        }
        if let Some(tunnels) = self.tunnels {
            let router = router.layer(axum::Extension(PassedOn));
            serving.spawn(answer(tunnels, router, closing.clone(), "the manager port".to_owned()));
        }
        let result = tokio::select! {
            () = shutdown => Ok(()),
            result = until_one_breaks(&mut serving) => result,
        };
        close.send_replace(true);
        let finished = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finished).await.is_err() {
            tracing::warn!("requests to the API were still under way and have been cut off");
        }
        pump.abort();
        result
    }
}

async fn until_one_breaks(serving: &mut JoinSet<Result<(), ServeError>>) -> Result<(), ServeError> {
    match serving.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(panic)) => Err(ServeError::Serve { at: "a listener".to_owned(), source: io::Error::other(panic) }),
        // Nowhere to listen: wait for the shutdown.
        None => std::future::pending().await,
    }
}

async fn answer<L>(
    listener: L,
    router: Router,
    mut closing: watch::Receiver<bool>,
    at: String,
) -> Result<(), ServeError>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let closed = async move {
        // An error means that the sender is gone, which is the same.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(closed)
        .await
        .map_err(|source| ServeError::Serve { at, source })
}

async fn bind_tcp(addrs: &[SocketAddr]) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners = Vec::new();
    for addr in addrs {
        let listener = TcpListener::bind(addr).await;
        listeners.push(listener.map_err(|source| ServeError::Listen { at: addr.to_string(), source })?);
    }
    Ok(listeners)
}

async fn bind_unix(path: &Path) -> Result<(SocketFile, UnixListener), ServeError> {
    let failed = |source| ServeError::Listen { at: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(ServeError::Taken(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok((file, listener))
}
