//! A program's standard files over the connection to the daemon.

use anyhow::Context as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::container::write;
use crate::client::stdcopy::Demux;
use crate::session::Session;

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// What is carried.
pub(super) struct Talk {
    /// Give it what comes in.
    pub(super) interactive: bool,
    /// It has a terminal.
    pub(super) tty: bool,
    /// Where its terminal's size is told.
    pub(super) resize: String,
}

/// Carries input and output until the daemon ends the connection.
pub(super) async fn talk(session: &mut Session, connection: Upgraded, talk: &Talk) -> anyhow::Result<()> {
    let (mut reads, mut writes) = tokio::io::split(TokioIo::new(connection));
    let interactive = talk.interactive;
    let mut typing = std::pin::pin!(async move {
        if interactive {
            // The daemon says in its own way that it takes no more.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut writes).await;
        }
        let _ = writes.shutdown().await;
        // Dropped, the other half would go too.
        std::future::pending::<()>().await;
    });
    let mut sizes = signal(SignalKind::window_change())?;
    let (mut demux, mut piece) = (Demux::default(), vec![0; PIECE]);
    loop {
        let read = tokio::select! {
            read = reads.read(&mut piece) => read.context("the connection to the daemon broke")?,
            () = &mut typing => continue,
            _ = sizes.recv(), if talk.tty => {
                resize(session, talk).await;
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
        if talk.tty {
            session.out.write_all(&piece[..read])?;
        } else {
            demux.push(&piece[..read]);
            while let Some((stream, payload)) = demux.next()? {
                write(session, stream, &payload)?;
            }
        }
        session.out.flush()?;
    }
}

async fn resize(session: &Session, talk: &Talk) {
    let Some([rows, columns]) = crate::terminal::size() else { return };
    let query = [("h", rows.to_string()), ("w", columns.to_string())];
    // It may have ended meanwhile.
    let _ = session.client.post(&talk.resize, &query, &serde_json::Value::Null).await;
}
