//! A program's standard files over a client's connection. Without a terminal, what it writes comes in frames as logs do; with one, as it is.

use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::keys::{DetachKeys, Typed};
use super::{chunked, logs};
use crate::backend::exec::ExecSession;
use crate::backend::log::LogStream;
use crate::execs::Attached;

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;
/// What ends the input of a terminal: Ctrl-D.
const END: &[u8] = &[4];

/// What goes over the connection, and how.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    attached: Attached,
    keys: Option<DetachKeys>,
}

impl Shape {
    pub(crate) fn of(attached: &Attached) -> Self {
        let keys = DetachKeys::parse(&attached.detach_keys).ok();
        Self { attached: attached.clone(), keys: keys.filter(|_| attached.tty && attached.stdin) }
    }

    fn part(&self, (stream, bytes): (LogStream, Bytes)) -> Option<Bytes> {
        let (number, wanted) = match stream {
            LogStream::Stdout => (1, self.attached.stdout),
            LogStream::Stderr => (2, self.attached.stderr),
        };
        wanted.then(|| if self.attached.tty { bytes } else { logs::frame(number, &bytes) })
    }
}

/// A session of a program that never began, and says why.
pub(crate) fn failed(reason: &str) -> ExecSession {
    let words = Bytes::from(format!("{reason}\r\n"));
    ExecSession {
        pid: 0,
        input: None,
        output: stream::iter([(LogStream::Stdout, words)]).boxed(),
        resize: None,
        ended: Box::pin(async { None }),
    }
}

/// The exit code that stands for a program that never began, as shells and Docker have it.
pub(crate) fn code_of(reason: &str) -> i32 {
    let missing = ["executable file not found", "no such file or directory"];
    if missing.iter().any(|words| reason.to_lowercase().contains(words)) { 127 } else { 126 }
}

/// The output alone, as the body of an answer.
pub(crate) fn output(
    session: ExecSession,
    shape: Shape,
    content_type: &'static str,
    closed: impl Future<Output = ()> + Send + 'static,
) -> Response {
    // Nobody writes to it; its end is awaited after its output, so that it lives as long as that.
    let ended = stream::once(session.ended).filter_map(|_| async { None });
    let parts = session.output.filter_map(move |piece| std::future::ready(shape.part(piece).map(Ok)));
    chunked(content_type, parts.chain(ended).take_until(Box::pin(closed)))
}

/// Carries input and output until the program has ended, the client has left, or the server stops.
pub(crate) async fn run(
    connection: impl AsyncRead + AsyncWrite + Send + 'static,
    session: ExecSession,
    shape: Shape,
    closed: impl Future<Output = ()> + Send,
) {
    let ExecSession { input, mut output, ended, .. } = session;
    let (reads, mut writes) = tokio::io::split(connection);
    let tty = shape.attached.tty;
    let mut typing = std::pin::pin!(typed(reads, input.filter(|_| shape.attached.stdin), shape.keys.clone(), tty));
    let mut closed = std::pin::pin!(closed);
    let (mut is_typing, mut is_there) = (true, true);
    loop {
        let piece = tokio::select! {
            piece = output.next() => piece,
            typed = &mut typing, if is_typing => {
                is_typing = false;
                if typed == Typing::Left {
                    return alone(writes, output, ended).await;
                }
                continue;
            }
            () = &mut closed => return,
        };
        let Some(piece) = piece else { break };
        let Some(part) = shape.part(piece).filter(|_| is_there) else { continue };
        is_there = writes.write_all(&part).await.is_ok() && writes.flush().await.is_ok();
        if !is_there && tty {
            // Its terminal is gone.
            return;
        }
    }
    // A client looks for the exit code when the connection ends.
    ended.await;
    let _ = writes.shutdown().await;
}

/// The client has left, and the program goes on.
async fn alone(
    mut writes: impl AsyncWrite + Unpin,
    mut output: BoxStream<'static, (LogStream, Bytes)>,
    ended: BoxFuture<'static, Option<i32>>,
) {
    let _ = writes.shutdown().await;
    drop(writes);
    while output.next().await.is_some() {}
    ended.await;
}

/// How it came that a client types no more.
#[derive(Debug, PartialEq, Eq)]
enum Typing {
    /// There is nothing more, and the output goes on.
    Over,
    /// It has left.
    Left,
}

async fn typed(
    mut from: impl AsyncRead + Unpin,
    to: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    mut keys: Option<DetachKeys>,
    tty: bool,
) -> Typing {
    let Some(mut to) = to else { return Typing::Over };
    let mut piece = vec![0; PIECE];
    loop {
        let read = match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => &piece[..read],
        };
        let (input, left) = match keys.as_mut().map(|keys| keys.take(read)) {
            None => (read.to_vec(), false),
            Some(Typed::Input(input)) => (input, false),
            Some(Typed::Leave(input)) => (input, true),
        };
        if to.write_all(&input).await.is_err() {
            return Typing::Over;
        }
        if left {
            return Typing::Left;
        }
    }
    if tty {
        // A terminal has no other end.
        let _ = to.write_all(END).await;
        // Closing it would take it away from the program.
        return std::future::pending().await;
    }
    Typing::Over
}
