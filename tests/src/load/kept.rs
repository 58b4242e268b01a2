//! Connections that stay.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Opened;
use super::attempt::{Outcome, closed, exchange};
use crate::wire::{Ask, Then};

/// Between two questions of a long connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one may wait for an answer before it is given up: more than anything here may take, so that silence is measured and not cut off.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a connection is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Asks every 100 ms.
    Long,
    /// Asks when it is opened and in the end.
    Idle,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// By the client, when all was over; its last question was answered.
    Alive,
    /// The server said that this answer was its last, and closed.
    Dismissed,
    /// The server closed between two questions.
    Closed,
    /// In another way.
    Lost(Outcome),
}

/// A connection that was to stay.
#[derive(Clone)]
pub struct Kept {
    /// What it was kept for.
    pub usage: Usage,
    /// Which node it asked.
    pub target: SocketAddr,
    /// The short id of the container that answered; empty when none did.
    pub task: String,
    /// When it was begun.
    pub opened: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How it ended.
    pub end: End,
    /// How long its last question had waited for its answer when it ended.
    pub waited: Duration,
}

/// Keeps a connection for as long as the client works, and opens another one whenever it ends.
pub(super) async fn keep(
    usage: Usage,
    target: SocketAddr,
    mut stopped: watch::Receiver<bool>,
    opened: Opened,
) -> Vec<Kept> {
    let mut first = Some(opened);
    let mut all = Vec::new();
    loop {
        let mut kept = Kept {
            usage,
            target,
            task: String::new(),
            opened: Instant::now(),
            ended: Instant::now(),
            end: End::Alive,
            waited: Duration::ZERO,
        };
        kept.end = kept.live(&mut stopped, &mut first).await.unwrap_or_else(|e| End::Lost(Outcome::of(&e)));
        kept.ended = Instant::now();
        let refused = kept.task.is_empty();
        all.push(kept);
        if *stopped.borrow() {
            return all;
        }
        if refused {
            first = None;
            sleep(PAUSE).await;
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { usage, target, task, opened, ended, end, waited } = self;
        write!(f, "{usage:?} to {task:?} through {target}: {end:?} after {:?}, waited {waited:?}", *ended - *opened)
    }
}

impl Kept {
    async fn live(&mut self, stopped: &mut watch::Receiver<bool>, first: &mut Option<Opened>) -> io::Result<End> {
        let connecting = timeout(PATIENCE, TcpStream::connect(self.target)).await;
        let mut stream = connecting.map_err(|_| io::ErrorKind::TimedOut)??;
        for seed in 0.. {
            if self.ask(&mut stream, seed).await? == Then::Close {
                closed(&mut stream).await?;
                return Ok(End::Dismissed);
            }
            *first = None;
            let pause = async {
                match self.usage {
                    Usage::Long => sleep(PAUSE).await,
                    Usage::Idle => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                end = hung_up(&stream) => return end,
                () = pause => {}
            }
        }
        self.ask(&mut stream, u64::MAX).await?;
        Ok(End::Alive)
    }

    async fn ask(&mut self, stream: &mut TcpStream, seed: u64) -> io::Result<Then> {
        let asked = Instant::now();
        let answer = timeout(PATIENCE, exchange(stream, Ask { seed, up: 300, down: 3_000, then: Then::Keep })).await;
        self.waited = asked.elapsed();
        let answer = answer.map_err(|_| io::ErrorKind::TimedOut)??;
        self.waited = Duration::ZERO;
        self.task = String::from_utf8_lossy(&answer.task).into_owned();
        Ok(answer.then)
    }
}

/// Returns when the server says something that it was not asked for: how it ends the connection.
async fn hung_up(stream: &TcpStream) -> io::Result<End> {
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(&mut [0]) {
            Ok(0) => return Ok(End::Closed),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}
