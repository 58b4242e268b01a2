//! One connection.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Server;
use super::pace::Pace;
use crate::wire::{ANSWER, Answer, Ask, Then, body};

/// How long a connection may take in all; Docker was measured with the same.
const PATIENCE: Duration = Duration::from_secs(6);
/// Who is connected later than this has had to send a SYN again (the first time after a second, RFC 6298).
const SLOW: Duration = Duration::from_millis(900);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every byte arrived as it was sent, both ways.
    Ok,
    /// That too, but it was connected only after 0.9 s.
    Slow,
    /// Nobody listened.
    Refused,
    /// Broken off.
    Reset,
    /// No answer for six seconds.
    Timeout,
    /// Closed in the middle of an answer.
    Short,
    /// Other bytes than those that were sent, or another client than the one that asked.
    Corrupt,
    /// Something else.
    Odd(ErrorKind),
}

impl Outcome {
    /// Whether the client did not get what it asked for.
    #[must_use]
    pub fn failed(self) -> bool {
        self > Self::Slow
    }

    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::UnexpectedEof => Self::Short,
            ErrorKind::InvalidData => Self::Corrupt,
            other => Self::Odd(other),
        }
    }
}

/// A new connection with one question.
#[derive(Clone)]
pub struct Attempt {
    /// When it was begun.
    pub opened: Instant,
    /// How long it took to its end.
    pub took: Duration,
    /// Which node it asked.
    pub target: SocketAddr,
    /// What became of it.
    pub outcome: Outcome,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} through {} after {:?}", self.outcome, self.target, self.took)
    }
}

pub(super) async fn attempt(server: Server, target: SocketAddr, seed: u64, pace: Pace) -> Attempt {
    let opened = Instant::now();
    let (mut connected, held_up) = (Duration::ZERO, pace.held_up());
    let asking = async {
        let mut stream = TcpStream::connect(target).await?;
        connected = opened.elapsed().saturating_sub(pace.held_up() - held_up);
        match server {
            Server::Checker => once(&mut stream, seed).await,
            Server::Nginx => {
                let client = stream.local_addr()?.ip();
                http(&mut stream, "/client", |body| body == format!("{client}\n")).await
            }
            Server::Balanced => http(&mut stream, "/hostname", |body| body.len() > 1).await,
        }
    };
    let outcome = match timeout(PATIENCE, asking).await {
        Err(_) => Outcome::Timeout,
        Ok(Err(e)) => Outcome::of(&e),
        Ok(Ok(())) if connected > SLOW => Outcome::Slow,
        Ok(Ok(())) => Outcome::Ok,
    };
    Attempt { opened, took: opened.elapsed(), target, outcome }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

async fn once(stream: &mut TcpStream, seed: u64) -> io::Result<()> {
    let answer = exchange(stream, Ask { seed, up: 1_000, down: 8_000, then: Then::Close }).await?;
    if answer.then != Then::Close {
        return Err(corrupt("the server wants to go on"));
    }
    closed(stream).await
}

/// One question and its answer, of which every byte is checked.
pub(super) async fn exchange(stream: &mut TcpStream, ask: Ask) -> io::Result<Answer> {
    let mut sent = ask.to_bytes().to_vec();
    sent.extend(body(ask.seed, ask.up));
    stream.write_all(&sent).await?;
    let mut head = [0; ANSWER];
    stream.read_exact(&mut head).await?;
    let answer = Answer::from_bytes(&head).ok_or_else(|| corrupt("not an answer"))?;
    if !answer.whole {
        return Err(corrupt("the question arrived changed"));
    }
    if answer.client != stream.local_addr()?.ip() {
        return Err(corrupt("the server took somebody else for the client"));
    }
    let mut got = vec![0; ask.down as usize];
    stream.read_exact(&mut got).await?;
    if got != body(!ask.seed, ask.down) {
        return Err(corrupt("the answer arrived changed"));
    }
    Ok(answer)
}

/// The server closes, and nothing comes before that.
pub(super) async fn closed(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(corrupt("more than was asked for")),
    }
}

/// nginx says one line, and nothing else.
async fn http(stream: &mut TcpStream, path: &str, expected: impl Fn(&str) -> bool) -> io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(corrupt("another status than 200"));
    }
    if !body.ends_with('\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if expected(body) { Ok(()) } else { Err(corrupt("another body than expected")) }
}
