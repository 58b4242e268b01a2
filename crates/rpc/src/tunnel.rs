//! Connections inside calls: a manager that does not lead hands people's requests to the one that does, through the manager port, where each
//! knows the other already.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::{TunnelData, api_server};
use crate::{ApiClient, RpcError};

/// Bytes on their way in each direction.
const BUFFER: usize = 64 << 10;
/// Pieces of that size or less which the network may lag behind by.
const PIECES: usize = 8;

/// The near end of a connection through another manager's port.
pub type TunnelIo = DuplexStream;

/// Takes tunnels that other managers open, and passes them on to whoever serves the API.
pub(crate) struct Tunnels(pub(crate) mpsc::Sender<TunnelIo>);

#[tonic::async_trait]
impl api_server::Api for Tunnels {
    type TunnelStream = ReceiverStream<Result<TunnelData, Status>>;

    async fn tunnel(&self, request: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
        let (near, far) = tokio::io::duplex(BUFFER);
        self.0.send(far).await.map_err(|_| Status::unavailable("this manager is ending"))?;
        let (read, write) = tokio::io::split(near);
        tokio::spawn(into_connection(request.into_inner(), write));
        let (pieces, outgoing) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            let mut read = pieces_of(read);
            while let Some(piece) = read.next().await {
                if pieces.send(piece.map_err(|error| Status::aborted(error.to_string()))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Opens a connection to the API of the manager that `client` speaks with at `addr`. It ends when either side closes it, or when the
/// manager is not in reach any more.
///
/// # Errors
/// When that manager is not in reach, is none, or does not let this one in.
pub async fn open_tunnel(client: &mut ApiClient, addr: &str) -> Result<TunnelIo, RpcError> {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (read, write) = tokio::io::split(far);
    // The other side hears of an end, and not of why.
    let pieces =
        pieces_of(read).take_while(|piece| std::future::ready(piece.is_ok())).filter_map(|piece| async { piece.ok() });
    let opened = client.tunnel(pieces).await.map_err(|status| RpcError::from_status(addr, &status))?;
    tokio::spawn(into_connection(opened.into_inner(), write));
    Ok(near)
}

fn pieces_of(read: ReadHalf<DuplexStream>) -> impl Stream<Item = io::Result<TunnelData>> + Send {
    ReaderStream::with_capacity(read, BUFFER).map(|piece| piece.map(|data: Bytes| TunnelData { data }))
}

async fn into_connection(mut incoming: Streaming<TunnelData>, mut write: WriteHalf<DuplexStream>) {
    // Whatever ends the call ends the connection: whoever reads it sees an end in the middle of an answer.
    while let Ok(Some(piece)) = incoming.message().await {
        if write.write_all(&piece.data).await.is_err() {
            return;
        }
    }
    // An error says that it is closed already.
    let _ = write.shutdown().await;
}
