//! Asks other resolvers for the names that are nobody's here.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_network::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::question::Question;
use crate::resolv_conf::{NodeResolvers, address};

/// How long whoever asks is kept waiting: less than the five seconds after which the C library gives up.
const PATIENCE: Duration = Duration::from_millis(4500);
/// After so long the next resolver is asked too, or the same one again: a datagram may be lost.
const AGAIN: Duration = Duration::from_secs(1);
/// How often each is asked.
const TRIES: usize = 3;
/// The largest reply by UDP.
const LARGEST: usize = 65_535;

/// Another resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where it answers.
    pub address: SocketAddr,
    /// The network namespace to ask from; `None` is that of the daemon.
    pub netns: Option<PathBuf>,
}

/// Asks other resolvers.
#[derive(Debug)]
pub struct Forwarder {
    servers: Servers,
    /// Who answered last is asked first.
    last: Mutex<Option<SocketAddr>>,
}

#[derive(Debug)]
enum Servers {
    Node(Arc<NodeResolvers>),
    Given(Vec<Upstream>),
}

/// How asking one resolver ended, if not with a reply.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it cannot answer, or does not want to")]
    Declined,
    #[error("it cannot be asked: {0}")]
    Unreachable(#[from] io::Error),
}

impl Upstream {
    /// A resolver that a service names; `None` for what is no address.
    #[must_use]
    pub fn named(text: &str, netns: Option<PathBuf>) -> Option<Self> {
        Some(Self { address: address(text)?, netns })
    }
}

impl Forwarder {
    /// That asks the node's own resolvers.
    #[must_use]
    pub fn node(resolvers: Arc<NodeResolvers>) -> Self {
        Self { servers: Servers::Node(resolvers), last: Mutex::default() }
    }

    /// That asks these, in this order; nobody when there are none.
    #[must_use]
    pub fn given(servers: Vec<Upstream>) -> Self {
        Self { servers: Servers::Given(servers), last: Mutex::default() }
    }

    /// The reply of the first resolver that has one, with the identifier of the question; `None` when none has.
    pub async fn ask(&self, question: &Question) -> Option<Vec<u8>> {
        let servers = self.servers();
        let mut turns: VecDeque<usize> = (0..TRIES).flat_map(|_| 0..servers.len()).collect();
        let mut running = FuturesUnordered::new();
        let mut patience = std::pin::pin!(sleep(PATIENCE));
        loop {
            match turns.pop_front() {
                Some(turn) => {
                    let server = &servers[turn];
                    running.push(async move { (turn, exchange(server, question).await) });
                }
                None if running.is_empty() => return None,
                None => {}
            }
            tokio::select! {
                Some((turn, result)) = running.next() => match result {
                    Ok(mut reply) => {
                        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(servers[turn].address);
                        question.sign(&mut reply);
                        return Some(reply);
                    }
                    Err(failure) => {
                        debug!(server = %servers[turn].address, "no answer: {failure}");
                        turns.retain(|other| *other != turn);
                    }
                },
                () = sleep(AGAIN), if !turns.is_empty() => {}
                () = &mut patience => return None,
            }
        }
    }

    /// Whom it asks now, in this order.
    #[must_use]
    pub fn servers(&self) -> Vec<Upstream> {
        let mut servers = match &self.servers {
            Servers::Given(servers) => servers.clone(),
            Servers::Node(node) => {
                node.servers().into_iter().map(|address| Upstream { address, netns: None }).collect()
            }
        };
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        servers.sort_by_key(|server| Some(server.address) != last);
        servers
    }
}

/// By UDP, and by TCP when that has no room.
async fn exchange(server: &Upstream, question: &Question) -> Result<Vec<u8>, Failure> {
    let id = rand::random();
    let query = question.forwarded(id);
    let socket = udp(server).await?;
    socket.connect(server.address).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; LARGEST];
    let mut reply = loop {
        let length = socket.recv(&mut buffer).await?;
        // Whatever does not match was made by somebody who guesses.
        if question.matches(id, &buffer[..length]) {
            buffer.truncate(length);
            break buffer;
        }
    };
    if is_truncated(&reply)
        && let Ok(Ok(whole)) = timeout(AGAIN * 2, by_tcp(server, question)).await
    {
        reply = whole;
    }
    if declines(&reply) { Err(Failure::Declined) } else { Ok(reply) }
}

async fn by_tcp(server: &Upstream, question: &Question) -> Result<Vec<u8>, Failure> {
    let id = rand::random();
    let query = question.forwarded(id);
    let mut stream = tcp(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    if question.matches(id, &reply) { Ok(reply) } else { Err(Failure::Declined) }
}

fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether it says that it failed, cannot or does not want to: another may know better.
fn declines(reply: &[u8]) -> bool {
    const DECLINED: [u8; 4] = [1, 2, 4, 5];
    reply.get(3).is_none_or(|flags| DECLINED.contains(&(flags & 0x0f)))
}

fn any(like: SocketAddr) -> SocketAddr {
    match like.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A socket of a port that the kernel draws, so that two things have to be guessed by who would answer in the resolver's name.
async fn udp(server: &Upstream) -> Result<UdpSocket, Failure> {
    let own = any(server.address);
    let socket = match server.netns.clone() {
        None => std::net::UdpSocket::bind(own)?,
        Some(netns) => inside(netns, move || std::net::UdpSocket::bind(own)).await?,
    };
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}

async fn tcp(server: &Upstream) -> Result<TcpStream, Failure> {
    let make = match server.address {
        SocketAddr::V4(_) => TcpSocket::new_v4,
        SocketAddr::V6(_) => TcpSocket::new_v6,
    };
    let socket = match server.netns.clone() {
        None => make()?,
        Some(netns) => inside(netns, make).await?,
    };
    Ok(socket.connect(server.address).await?)
}

/// A socket belongs to the namespace that it is made in.
async fn inside<T: Send + 'static>(
    netns: PathBuf,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let made = tokio::task::spawn_blocking(move || Namespace::open(&netns)?.run(make));
    match made.await {
        Ok(made) => made.map_err(io::Error::other)?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
