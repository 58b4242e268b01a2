//! The sockets under [`Gossip`]: 7946/udp for news and probes, 7946/tcp for exchanges.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use skep_model::{GossipKeys, NodeId, OwnerTable};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::exchange::{self, EXCHANGES};
use crate::gossip::{Counters, Gossip, Output};
use crate::{NetDb, NetDbError, Tables};

/// Where nodes tell each other, UDP and TCP.
pub const GOSSIP_PORT: u16 = 7946;
/// Longer than any datagram that is ours.
const BUFFER: usize = 2048;
/// Datagrams that are taken in before anything else is done.
const BATCH: usize = 64;
/// The pause before the port is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What managers have said that concerns the talk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contacts {
    /// Whom managers have admitted, this node too, and where they listen.
    pub members: BTreeMap<NodeId, SocketAddr>,
    /// By which messages are sealed; without, nothing is said.
    pub keys: Option<GossipKeys>,
}

/// Which addresses of the node are listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// All of the family that others know the node by.
    Any,
    /// The one that others know the node by.
    Own,
}

/// Tells other nodes what this one's tables say, and takes in what they tell.
pub struct Driver {
    talk: Arc<Talk>,
    listen: Listen,
    contacts: watch::Receiver<Contacts>,
    own: watch::Receiver<Arc<OwnerTable>>,
    requests: mpsc::Receiver<oneshot::Sender<()>>,
}

/// A way to speak to a running [`Driver`].
#[derive(Debug, Clone)]
pub struct DriverHandle {
    talk: Arc<Talk>,
    requests: mpsc::Sender<oneshot::Sender<()>>,
}

/// What the driver and exchanges under way share.
pub(crate) struct Talk {
    netdb: NetDb,
    gossip: Mutex<Gossip>,
    began: Instant,
    /// An exchange has given the driver something to do.
    pub(crate) poke: Notify,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Talk(…)")
    }
}

impl Talk {
    /// Does something with the core and the tables. Never held over an await.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Gossip, &mut Tables, Duration) -> R) -> R {
        let mut gossip = self.gossip.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.began.elapsed();
        self.netdb.talk(|tables| act(&mut gossip, tables, now))
    }
}

impl DriverHandle {
    /// Says that this node leaves for good. Returns once that is on its way.
    pub async fn leave(&self) {
        let (done, sent) = oneshot::channel();
        if self.requests.send(done).await.is_ok() {
            // An error means that the driver is gone, and can say nothing.
            let _ = sent.await;
        }
    }

    /// What has come and gone.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.talk.gossip.lock().unwrap_or_else(PoisonError::into_inner).counters()
    }
}

/// The two sockets.
struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Driver {
    /// For the tables of `netdb`, which have been [taken over](NetDb::take_over) already: this life of the node counts from their version.
    #[must_use]
    pub fn new(netdb: NetDb, listen: Listen, contacts: watch::Receiver<Contacts>) -> (Self, DriverHandle) {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the kernel has random numbers");
        let own = netdb.own();
        let incarnation = own.borrow().version;
        let gossip = Mutex::new(Gossip::new(netdb.own_node(), incarnation, seed));
        let talk = Arc::new(Talk { netdb, gossip, began: Instant::now(), poke: Notify::new() });
        let (sender, requests) = mpsc::channel(1);
        let handle = DriverHandle { talk: talk.clone(), requests: sender };
        (Self { talk, listen, contacts, own, requests }, handle)
    }

    /// Ends only by being dropped.
    pub async fn run(mut self) {
        loop {
            let Some(own) = self.own_address() else {
                tokio::select! {
                    Ok(()) = self.contacts.changed() => {}
                    Some(done) = self.requests.recv() => drop(done.send(())),
                    else => return,
                }
                continue;
            };
            match self.bind(own).await {
                Ok(sockets) => {
                    info!(addr = %own, "telling other nodes what runs here, and hearing from them");
                    self.serve(&sockets, own).await;
                }
                Err(error) => {
                    warn!("{error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn own_address(&mut self) -> Option<SocketAddr> {
        let contacts = self.contacts.borrow_and_update();
        contacts.keys.as_ref()?;
        contacts.members.get(&self.talk.netdb.own_node()).copied()
    }

    async fn bind(&self, own: SocketAddr) -> Result<Sockets, NetDbError> {
        let ip = match (self.listen, own.ip()) {
            (Listen::Own, ip) => ip,
            (Listen::Any, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (Listen::Any, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let addr = SocketAddr::new(ip, own.port());
        let failed = |source| NetDbError::Bind { addr, source };
        let udp = UdpSocket::bind(addr).await.map_err(failed)?;
        Ok(Sockets { udp, tcp: TcpListener::bind(addr).await.map_err(failed)? })
    }

    /// Speaks and listens for as long as this node is at `own`.
    async fn serve(&mut self, sockets: &Sockets, own: SocketAddr) {
        self.take_contacts();
        let incoming = Arc::new(Semaphore::new(EXCHANGES));
        let outgoing = Arc::new(Semaphore::new(EXCHANGES));
        let mut buffer = vec![0; BUFFER];
        loop {
            self.talk.with(Gossip::poll);
            let due = self.carry_out(&sockets.udp, &outgoing);
            tokio::select! {
                received = sockets.udp.recv_from(&mut buffer) => self.take_in(&sockets.udp, received, &mut buffer),
                () = tokio::time::sleep_until((self.talk.began + due).into()) => {}
                Ok(()) = self.own.changed() => drop(self.own.borrow_and_update()),
                () = self.talk.poke.notified() => {}
                Ok(()) = self.contacts.changed() => {
                    if self.own_address() != Some(own) {
                        return;
                    }
                    self.take_contacts();
                }
                accepted = sockets.tcp.accept() => match accepted {
                    Ok((stream, peer)) => exchange::serve(&self.talk, &incoming, stream, peer),
                    Err(error) => refused(&error).await,
                },
                Some(done) = self.requests.recv() => {
                    self.talk.with(Gossip::leave);
                    self.carry_out(&sockets.udp, &outgoing);
                    // Who asked may have stopped waiting.
                    let _ = done.send(());
                }
            }
        }
    }

    fn take_contacts(&mut self) {
        let contacts = self.contacts.borrow_and_update().clone();
        self.talk.with(|gossip, _, now| {
            if let Some(keys) = &contacts.keys {
                gossip.set_keys(keys);
            }
            gossip.set_members(contacts.members, now);
        });
    }

    /// Takes in a datagram, and those that wait behind it.
    fn take_in(&self, udp: &UdpSocket, first: io::Result<(usize, SocketAddr)>, buffer: &mut [u8]) {
        let mut next = first;
        self.talk.with(|gossip, tables, now| {
            for _ in 0..BATCH {
                match next {
                    Ok((length, from)) => {
                        if let Err(why) = gossip.receive(tables, &mut buffer[..length], now) {
                            debug!(%from, "a datagram was dropped: {why}");
                        }
                    }
                    // What an earlier datagram came to is told here too: nothing to do about that.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => debug!("receiving: {error}"),
                    Err(_) => return,
                }
                next = udp.try_recv_from(buffer);
            }
        });
    }

    /// Does what the core wants done, without waiting for anything. Returns when it is to be polled again.
    fn carry_out(&self, udp: &UdpSocket, outgoing: &Arc<Semaphore>) -> Duration {
        let (outputs, told, due) = self.talk.with(|gossip, _, _| (gossip.take(), gossip.told(), gossip.due()));
        for output in outputs {
            match output {
                // What the kernel has no room for is lost, as on any network.
                Output::Send { to, datagram } => {
                    if let Err(error) = udp.try_send_to(&datagram, to) {
                        debug!(%to, "a datagram was not sent: {error}");
                    }
                }
                Output::Exchange { addr, wants, .. } => exchange::begin(&self.talk, outgoing, addr, wants),
            }
        }
        self.talk.netdb.set_told(told);
        due
    }
}

/// No connection can be taken: too many files are open, say. That passes.
async fn refused(error: &io::Error) {
    warn!("other nodes cannot compare notes with this one: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
