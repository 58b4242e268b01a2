//! Exchanges over TCP: frames in turn, each with its length (4 bytes) before it, until one side has nothing to answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_model::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::NetDbError;
use crate::driver::Talk;
use crate::gossip::Gossip;

/// Exchanges at a time, of those that this node begins and of those that others begin.
pub(crate) const EXCHANGES: usize = 8;
/// Bytes of a frame at the most.
const LARGEST: u32 = 64 * 1024 * 1024;
/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins an exchange, in the background. When too many are under way it counts as failed.
pub(crate) fn begin(talk: &Arc<Talk>, permits: &Arc<Semaphore>, addr: SocketAddr, wants: Vec<NodeId>) {
    let Ok(permit) = permits.clone().try_acquire_owned() else {
        talk.with(|gossip, _, now| gossip.exchange_failed(now));
        return;
    };
    let talk = talk.clone();
    tokio::spawn(async move {
        let held = timeout(PATIENCE, call(&talk, addr, &wants)).await;
        if let Err(error) = held.unwrap_or(Err(NetDbError::Timeout { addr })) {
            debug!("{error}");
            talk.with(|gossip, _, now| gossip.exchange_failed(now));
        }
        talk.poke.notify_one();
        drop(permit);
    });
}

/// Takes part in an exchange that another node begins, in the background, unless too many are under way.
pub(crate) fn serve(talk: &Arc<Talk>, permits: &Arc<Semaphore>, stream: TcpStream, peer: SocketAddr) {
    let Ok(permit) = permits.clone().try_acquire_owned() else { return };
    let talk = talk.clone();
    tokio::spawn(async move {
        let held = timeout(PATIENCE, take_turns(&talk, stream, peer)).await;
        if let Err(error) = held.unwrap_or(Err(NetDbError::Timeout { addr: peer })) {
            debug!("{error}");
        }
        talk.poke.notify_one();
        drop(permit);
    });
}

async fn call(talk: &Talk, addr: SocketAddr, wants: &[NodeId]) -> Result<(), NetDbError> {
    let failed = |source| NetDbError::Exchange { addr, source };
    let mut stream = TcpStream::connect(addr).await.map_err(failed)?;
    let first = talk.with(|gossip, tables, _| gossip.open_exchange(tables, wants));
    let Some(first) = first else { return Ok(()) };
    write(&mut stream, &first).await.map_err(failed)?;
    take_turns(talk, stream, addr).await
}

async fn take_turns(talk: &Talk, mut stream: TcpStream, peer: SocketAddr) -> Result<(), NetDbError> {
    let failed = |source| NetDbError::Exchange { addr: peer, source };
    while let Some(mut frame) = read(&mut stream).await.map_err(failed)? {
        let answer = talk.with(|gossip: &mut Gossip, tables, now| gossip.answer(tables, &mut frame, now))?;
        let Some(answer) = answer else { break };
        write(&mut stream, &answer).await.map_err(failed)?;
    }
    Ok(())
}

async fn write(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|length| *length <= LARGEST);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is too much to tell at once"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(frame).await
}

/// `None` when the other side has hung up between frames.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(length);
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it announces more than an exchange may hold"));
    }
    // Room is made for what really comes: whoever it is may have announced anything.
    let mut frame = Vec::new();
    stream.take(length.into()).read_to_end(&mut frame).await?;
    if frame.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}
