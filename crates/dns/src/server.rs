//! Sockets that questions come by.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use skep_network::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::answer::{Answer, Scope, answer};
use crate::counters::{Asked, Became, Counters};
use crate::error::DnsError;
use crate::forwarder::Forwarder;
use crate::question::{Exists, Question, Received, Reply};
use crate::resolv_conf::PORT;

/// Where a task's resolver answers: Docker's address, which programs' configurations name.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A larger question than this, in bytes, nobody has.
const LARGEST: usize = 4096;
/// Questions of one asker that others are being asked.
const AT_ONCE: usize = 256;
/// TCP connections of one asker.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may have nothing to ask, or take no answer.
const IDLE: Duration = Duration::from_secs(10);
/// Rest after an error of a socket, which is not expected.
const REST: Duration = Duration::from_millis(100);

/// The sockets of a resolver.
#[derive(Debug)]
pub struct Sockets {
    /// For datagrams.
    pub udp: std::net::UdpSocket,
    /// For connections.
    pub tcp: std::net::TcpListener,
}

impl Sockets {
    /// At `address` in the daemon's own namespace.
    ///
    /// # Errors
    /// When another process has the port, or the address is not the node's.
    pub fn bind(address: SocketAddr) -> Result<Self, DnsError> {
        Self::make(address).map_err(|source| DnsError::Bind { addr: address, source })
    }

    /// At [`ADDRESS`] in the namespace at `netns`.
    ///
    /// # Errors
    /// When there is no such namespace, or a process in it has the port.
    pub fn inside(netns: &Path) -> Result<Self, DnsError> {
        Namespace::open(netns)?.run(|| Self::bind((ADDRESS, PORT).into()))?
    }

    fn make(address: SocketAddr) -> io::Result<Self> {
        let sockets = Self { udp: std::net::UdpSocket::bind(address)?, tcp: std::net::TcpListener::bind(address)? };
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        Ok(sockets)
    }
}

/// What becomes of a question for a name that is nobody's here.
#[derive(Debug, Clone)]
pub enum Unknown {
    /// Others are asked.
    Forward(Arc<Forwarder>),
    /// Others are asked for names of several labels. One of a single label gets an empty answer, so that whoever asks tries
    /// it with a search domain: that is what a service asks for with `--dns-option ndots:1` or more.
    ForwardLonger(Arc<Forwarder>),
    /// There is no such name.
    Deny,
}

/// Whose questions a resolver answers, and how.
#[derive(Debug, Clone)]
pub struct Asker {
    /// What it may know.
    pub scope: watch::Receiver<Scope>,
    /// What becomes of other questions.
    pub unknown: Unknown,
    /// Where what happens is counted.
    pub counters: Arc<Counters>,
}

/// A resolver at work. Dropping it ends it.
#[derive(Debug)]
pub struct Resolver {
    end: CancellationToken,
    serving: [AbortOnDropHandle<()>; 2],
}

impl Resolver {
    /// Begins to answer.
    ///
    /// # Errors
    /// When tokio cannot take the sockets.
    pub fn start(sockets: Sockets, asker: Asker) -> Result<Self, DnsError> {
        let addr = sockets.udp.local_addr().unwrap_or_else(|_| (ADDRESS, PORT).into());
        let failed = |source| DnsError::Bind { addr, source };
        let udp = UdpSocket::from_std(sockets.udp).map_err(failed)?;
        let tcp = TcpListener::from_std(sockets.tcp).map_err(failed)?;
        let (end, desk) = (CancellationToken::new(), Desk::new(asker));
        let serving = [
            tokio::spawn(serve_udp(Arc::new(udp), desk.clone(), end.clone())),
            tokio::spawn(serve_tcp(tcp, desk, end.clone())),
        ];
        Ok(Self { end, serving: serving.map(AbortOnDropHandle::new) })
    }

    /// Ends it, and returns once its sockets are closed.
    pub async fn stop(self) {
        self.end.cancel();
        for serving in self.serving {
            // It ends when it is told to; one that has panicked has ended too.
            let _ = serving.await;
        }
    }
}

/// What answers one question after the other. Cheap to clone.
#[derive(Debug, Clone)]
struct Desk {
    asker: Asker,
    at_once: Arc<Semaphore>,
}

/// What is to be done with a message.
enum Next {
    /// Send this back.
    Send(Vec<u8>),
    /// Ask others.
    Ask(Box<Question>, Arc<Forwarder>),
    /// Nothing.
    Nothing,
}

impl Desk {
    fn new(asker: Asker) -> Self {
        Self { asker, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn look(&self, message: &[u8], room: Option<u16>) -> Next {
        let question = match Question::read(message) {
            Received::Question(question) => question,
            Received::Refused(reply) => {
                self.count(None, Became::Refused);
                return Next::Send(reply);
            }
            Received::Ignored => return Next::Nothing,
        };
        let room = room.unwrap_or_else(|| question.room());
        let known = answer(&question, &self.asker.scope.borrow(), &mut rand::rng());
        let reply = match (known, &self.asker.unknown) {
            (Answer::Known(reply), _) => reply,
            (Answer::Unknown, Unknown::Forward(others)) => return Next::Ask(Box::new(question), others.clone()),
            (Answer::Unknown, Unknown::ForwardLonger(others)) => {
                if !question.is_single_label() {
                    return Next::Ask(Box::new(question), others.clone());
                }
                Reply::default()
            }
            (Answer::Unknown, Unknown::Deny) => Reply { exists: Exists::No, ..Reply::default() },
        };
        self.count(Some(&question), became(&reply));
        Next::Send(question.reply(reply, room))
    }

    async fn ask(&self, question: &Question, others: &Forwarder, room: Option<u16>) -> Vec<u8> {
        let room = room.unwrap_or_else(|| question.room());
        let reply = others.ask(question).await;
        self.count(Some(question), if reply.is_some() { Became::Forwarded } else { Became::Failed });
        match reply {
            Some(reply) if reply.len() > room.into() => question.too_large(),
            Some(reply) => reply,
            None => question.fail(ResponseCode::ServFail),
        }
    }

    /// The answer to one of too many questions at once.
    fn too_many(&self, question: &Question) -> Vec<u8> {
        self.count(Some(question), Became::Refused);
        question.fail(ResponseCode::ServFail)
    }

    /// `None` is a question that could not be read.
    fn count(&self, question: Option<&Question>, became: Became) {
        let asked = question.map_or(Asked::Other, |question| question.query().query_type().into());
        self.asker.counters.count(asked, became);
    }
}

fn became(reply: &Reply) -> Became {
    match reply.exists {
        Exists::No => Became::NoName,
        Exists::Yes if reply.answers.is_empty() => Became::NoData,
        Exists::Yes => Became::Records,
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, desk: Desk, end: CancellationToken) {
    let mut asking = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = asking.join_next() => continue,
            () = end.cancelled() => break,
        };
        let (length, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!("a question was lost: {error}");
                sleep(REST).await;
                continue;
            }
        };
        match desk.look(&buffer[..length], None) {
            Next::Nothing => {}
            Next::Send(reply) => send(&socket, &reply, peer).await,
            Next::Ask(question, others) => match desk.at_once.clone().try_acquire_owned() {
                Err(_) => send(&socket, &desk.too_many(&question), peer).await,
                Ok(permit) => {
                    let (desk, socket) = (desk.clone(), socket.clone());
                    asking.spawn(async move {
                        let _permit = permit;
                        let reply = desk.ask(&question, &others, None).await;
                        send(&socket, &reply, peer).await;
                    });
                }
            },
        }
    }
    asking.shutdown().await;
}

async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer).await {
        debug!(%peer, "does not get its answer: {error}");
    }
}

async fn serve_tcp(listener: TcpListener, desk: Desk, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = end.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                let desk = desk.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &desk).await {
                        debug!("a connection of somebody who asks broke: {error}");
                    }
                });
            }
            Ok(_) => desk.count(None, Became::Refused),
            Err(error) => {
                debug!("a connection was lost: {error}");
                sleep(REST).await;
            }
        }
    }
    connections.shutdown().await;
}

/// One question after the other, each answered before the next is read (RFC 7766 allows it).
async fn converse(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    const ROOM: Option<u16> = Some(u16::MAX);
    loop {
        let Some(message) = timeout(IDLE, next(&mut stream)).await?? else { return Ok(()) };
        let reply = match desk.look(&message, ROOM) {
            Next::Nothing => return Ok(()),
            Next::Send(reply) => reply,
            Next::Ask(question, others) => match desk.at_once.try_acquire() {
                Ok(_permit) => desk.ask(&question, &others, ROOM).await,
                Err(_) => desk.too_many(&question),
            },
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())).await??;
    }
}

/// The next message; `None` at the end, and when it is larger than any question.
async fn next(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > LARGEST {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
