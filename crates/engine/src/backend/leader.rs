//! Where the swarm is asked: by a manager that leads here, by another one there.

use std::fmt;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to another manager's API.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where a request that concerns the swarm is answered.
#[derive(Debug)]
pub enum Leader {
    /// Here: by the leader, or by a node that is no manager and says so.
    Here,
    /// By another manager.
    Elsewhere(Tunnel),
}

/// The way to the manager that leads.
pub struct Tunnel {
    /// Speaks HTTP with its API.
    pub connection: Box<dyn Connection>,
    /// Resolves when that manager leads no more, or is not known to: an answer need not be waited for then.
    pub lost: BoxFuture<'static, ()>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}
