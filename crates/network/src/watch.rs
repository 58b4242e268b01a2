//! Hearing that devices or addresses have changed. Only that: what is there is read anew.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::task::AbortHandle;

use crate::NetworkError;

/// A subscription to changes of devices, addresses and routes in one network namespace.
#[derive(Debug)]
pub struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    connection: AbortHandle,
}

impl Changes {
    /// Subscribes, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn subscribe() -> Result<Self, NetworkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let failed = |e: std::io::Error| NetworkError::Netlink { doing: "watch devices".to_owned(), why: e.to_string() };
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { messages, connection })
    }

    /// Returns once something has changed, or may have: when the kernel could not tell everything, that counts as a change. `false` when
    /// nothing more will ever be heard. Changes in quick succession count as one. Safe to cancel.
    pub async fn next(&mut self) -> bool {
        let first = self.messages.next().await.is_some();
        while self.messages.try_recv().is_ok() {}
        first
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
