//! A swarm in virtual time: the real cores, one queue of events, and a network that loses, doubles, delays and cuts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, GossipKey, GossipKeys, Member, NetworkId, NodeId, ServiceId, Timestamp,
};
use skep_netdb::Tables;
use skep_netdb::gossip::{Gossip, Output};

/// When the simulation begins, by the nodes' clocks: milliseconds since 1970.
pub(crate) const EPOCH: u64 = 1_790_000_000_000;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) gossip: Gossip,
    pub(crate) tables: Tables,
    /// Told nothing and doing nothing until then.
    pub(crate) paused: Duration,
    pub(crate) dead: bool,
    wake: Duration,
    /// Bytes sent, by either way.
    pub(crate) bytes: u64,
}

enum Event {
    Wake(usize),
    Datagram { to: usize, bytes: Arc<[u8]> },
    Frame(Box<Frame>),
    Failed(usize),
}

/// The next message of an exchange that the first named began.
struct Frame {
    began: usize,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// An event, in the order of time.
struct Queued {
    at: Duration,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A change that not everybody knows yet.
struct Watched {
    version: u64,
    made: Duration,
    /// Whether each node lacks it still.
    missing: Vec<bool>,
    left: usize,
}

pub(crate) type Cut = Box<dyn Fn(usize, usize) -> bool>;

pub(crate) struct Sim {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    /// Share of datagrams lost.
    pub(crate) loss: f64,
    /// Share of datagrams doubled.
    pub(crate) doubled: f64,
    /// Whether nothing gets from one node to another.
    pub(crate) cut: Cut,
    /// How long it took until everybody knew a change that was watched.
    pub(crate) taken: Vec<Duration>,
    watched: HashMap<NodeId, Vec<Watched>>,
    members: BTreeMap<NodeId, SocketAddr>,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
}

pub(crate) fn network() -> NetworkId {
    "00000000000000000000000ne".parse().unwrap()
}

pub(crate) fn record(state: EndpointState) -> EndpointRecord {
    let service: ServiceId = "00000000000000000000000sv".parse().unwrap();
    EndpointRecord {
        service,
        addr: [10, 0, 0, 9].into(),
        state,
        weight: 1,
        aliases: Vec::new(),
        host_ports: Vec::new(),
    }
}

fn keys() -> GossipKeys {
    GossipKeys { keys: vec![GossipKey { id: 1, secret: [7; 32] }], primary: 1, rotated: Timestamp::UNIX_EPOCH }
}

/// From `SKEP_SIM_SEED`, or one that is printed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SKEP_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        StdRng::from_seed(
            NodeId::random().as_str().as_bytes()[..25]
                .iter()
                .copied()
                .chain([0; 7])
                .collect::<Vec<u8>>()
                .try_into()
                .unwrap(),
        )
        .random()
    });
    println!("SKEP_SIM_SEED={seed}");
    seed
}

impl Sim {
    /// `count` nodes that know each other and have `records` endpoints each.
    pub(crate) fn new(seed: u64, count: usize, records: usize) -> Self {
        let mut sim = Self {
            nodes: Vec::new(),
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            doubled: 0.0,
            cut: Box::new(|_, _| false),
            taken: Vec::new(),
            watched: HashMap::new(),
            members: BTreeMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
        };
        for index in 0..count {
            let id = sim.random_id();
            let tables = Tables::new(id.clone(), EPOCH);
            sim.add(id, Self::addr(index), tables);
        }
        let mut all = Tables::new(sim.random_id(), 1);
        for node in 0..count {
            let records: Vec<_> = (0..records).map(|_| (sim.key(), record(EndpointState::Ready))).collect();
            let node = &mut sim.nodes[node];
            node.tables.publish(records, EPOCH);
            all.learn_from(&node.tables);
        }
        for node in &mut sim.nodes {
            node.tables.learn_from(&all);
        }
        let everybody = sim.nodes.iter().map(|node| (node.id.clone(), node.addr)).collect();
        sim.set_members(everybody);
        sim.introduce();
        sim
    }

    /// An identifier that the seed decides: a run with the same seed is the same.
    fn digits(&mut self) -> String {
        let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
        (0..25).map(|_| char::from(digits[self.rng.random_range(0..36)])).collect()
    }

    pub(crate) fn random_id(&mut self) -> NodeId {
        self.digits().parse().unwrap()
    }

    pub(crate) fn key(&mut self) -> EndpointKey {
        EndpointKey { network: network(), task: self.digits().parse().unwrap() }
    }

    pub(crate) fn addr(index: usize) -> SocketAddr {
        let [.., high, low] = (index as u32).to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(10, 9, high, low).into(), 7946)
    }

    /// Another node, or another life of one.
    pub(crate) fn add(&mut self, id: NodeId, addr: SocketAddr, tables: Tables) -> usize {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed[..]);
        let mut gossip = Gossip::new(id.clone(), tables.own().version, seed);
        gossip.set_keys(&keys());
        gossip.set_members(self.members.clone(), self.now);
        self.nodes.push(Node {
            id,
            addr,
            gossip,
            tables,
            paused: Duration::ZERO,
            dead: false,
            wake: Duration::MAX,
            bytes: 0,
        });
        let index = self.nodes.len() - 1;
        self.settle(index);
        index
    }

    /// What managers tell everybody.
    pub(crate) fn set_members(&mut self, members: BTreeMap<NodeId, SocketAddr>) {
        self.members = members;
        let shown: Vec<_> = self.members.iter().map(|(node, addr)| member(node, addr.ip())).collect();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            node.tables.set_members(shown.clone());
            node.gossip.set_members(self.members.clone(), self.now);
            self.settle(index);
        }
    }

    /// Everybody knows everybody, as in a swarm that has been there for a while: the first node has heard of all, and all have heard from it.
    fn introduce(&mut self) {
        let Some((first, others)) = self.nodes.split_first_mut() else { return };
        for other in &mut *others {
            let mut frame = other.gossip.open_exchange(&other.tables, &[]).unwrap();
            first.gossip.answer(&mut first.tables, &mut frame, self.now).unwrap();
        }
        let told = first.gossip.open_exchange(&first.tables, &[]).unwrap();
        for other in others {
            other.gossip.answer(&mut other.tables, &mut told.clone(), self.now).unwrap();
        }
        (0..self.nodes.len()).for_each(|index| self.settle(index));
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at, sequence: self.sequence, event }));
    }

    /// Wide enough that datagrams overtake each other.
    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(200..15_000))
    }

    /// TCP repeats what is lost.
    fn stream_latency(&mut self, crossings: u32) -> Duration {
        let mut latency = Duration::ZERO;
        for _ in 0..crossings {
            latency += self.latency();
            while self.rng.random_bool(self.loss) {
                latency += Duration::from_millis(300);
            }
        }
        latency
    }

    /// Does what a node's core wants done, and has it woken in time.
    pub(crate) fn settle(&mut self, index: usize) {
        for output in self.nodes[index].gossip.take() {
            match output {
                Output::Send { to, datagram } => {
                    self.nodes[index].bytes += datagram.len() as u64 + 28;
                    self.send(index, to, &datagram);
                }
                Output::Exchange { addr, wants, .. } => {
                    let node = &mut self.nodes[index];
                    let frame = node.gossip.open_exchange(&node.tables, &wants).unwrap();
                    match self.listener(addr) {
                        Some(to) => self.send_frame(index, index, to, frame, 3),
                        None => self.push(self.now + Duration::from_secs(2), Event::Failed(index)),
                    }
                }
            }
        }
        let due = self.nodes[index].gossip.due().max(self.now);
        if due < self.nodes[index].wake {
            self.nodes[index].wake = due;
            self.push(due, Event::Wake(index));
        }
    }

    /// The newest node at an address.
    fn listener(&self, addr: SocketAddr) -> Option<usize> {
        self.nodes.iter().rposition(|node| node.addr == addr && !node.dead)
    }

    fn send(&mut self, from: usize, to: SocketAddr, datagram: &Arc<[u8]>) {
        // Addresses of the simulation are numbers; only after a death there is more than one node at one.
        let guess = match to.ip() {
            IpAddr::V4(ip) => (u32::from(ip) & 0xffff) as usize,
            IpAddr::V6(_) => usize::MAX,
        };
        let to = match self.nodes.get(guess) {
            Some(node) if !node.dead => guess,
            _ => match self.listener(to) {
                Some(to) => to,
                None => return,
            },
        };
        if (self.cut)(from, to) || self.rng.random_bool(self.loss) {
            return;
        }
        let copies = if self.rng.random_bool(self.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + self.latency();
            self.push(at, Event::Datagram { to, bytes: datagram.clone() });
        }
    }

    fn send_frame(&mut self, began: usize, from: usize, to: usize, bytes: Vec<u8>, crossings: u32) {
        if (self.cut)(from, to) || (self.cut)(to, from) {
            return self.push(self.now + Duration::from_secs(2), Event::Failed(began));
        }
        self.nodes[from].bytes += bytes.len() as u64 + 40 * (bytes.len() as u64).div_ceil(1400) + 160;
        let at = self.now + self.stream_latency(crossings);
        self.push(at, Event::Frame(Box::new(Frame { began, from, to, bytes })));
    }

    /// Runs until `until`.
    pub(crate) fn run_until(&mut self, until: Duration) {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= until) {
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = self.now.max(next.at);
            self.happen(next.at, next.event);
        }
        self.now = until;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn happen(&mut self, at: Duration, event: Event) {
        let index = match &event {
            Event::Wake(index) | Event::Failed(index) | Event::Datagram { to: index, .. } => *index,
            Event::Frame(frame) => frame.to,
        };
        if self.nodes[index].dead {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[index];
        let strikes = matches!(event, Event::Wake(_));
        if strikes && node.wake != at {
            // It was to be woken earlier, and was.
            return;
        }
        if node.paused > now {
            // It all waits, and the clock of the node strikes first when it goes on.
            let until = if strikes { node.paused } else { node.paused + Duration::from_millis(1) };
            if strikes {
                node.wake = until;
            }
            return self.push(until, event);
        }
        match event {
            Event::Wake(_) => {
                node.wake = Duration::MAX;
                node.gossip.poll(&mut node.tables, now);
            }
            Event::Failed(_) => node.gossip.exchange_failed(now),
            Event::Datagram { bytes, .. } => {
                let _ = node.gossip.receive(&mut node.tables, &mut bytes.to_vec(), now);
            }
            Event::Frame(mut frame) => {
                if let Ok(Some(answer)) = node.gossip.answer(&mut node.tables, &mut frame.bytes, now) {
                    self.send_frame(frame.began, index, frame.from, answer, 1);
                }
            }
        }
        self.note(index);
        self.settle(index);
    }

    /// Notes when everybody knows the table of a node as it is now.
    pub(crate) fn watch(&mut self, index: usize) {
        let owner = &self.nodes[index];
        let version = owner.tables.own().version;
        let lacks = |node: &Node| node.tables.rank(&owner.id).is_none_or(|(known, _)| known < version);
        let missing: Vec<bool> = self.nodes.iter().map(lacks).collect();
        let left = missing.iter().filter(|missing| **missing).count();
        // A step may change nothing: its task is gone already.
        if left == 0 {
            return;
        }
        let change = Watched { version, made: self.now, missing, left };
        self.watched.entry(owner.id.clone()).or_default().push(change);
    }

    /// How many of the changes that are watched are not known to everybody.
    pub(crate) fn pending(&self) -> usize {
        self.watched.values().map(Vec::len).sum()
    }

    /// A node may have learnt something.
    fn note(&mut self, index: usize) {
        let tables = &mut self.nodes[index].tables;
        for owner in tables.take_changed() {
            let Some(changes) = self.watched.get_mut(&owner) else { continue };
            let known = tables.rank(&owner).map_or(0, |(version, _)| version);
            for change in changes.iter_mut().filter(|change| change.version <= known) {
                change.left -= usize::from(std::mem::take(&mut change.missing[index]));
            }
            let done = changes.extract_if(.., |change| change.left == 0);
            self.taken.extend(done.map(|change| self.now - change.made));
        }
    }

    /// Lets a node change its own table.
    pub(crate) fn change(&mut self, index: usize, change: impl FnOnce(&mut Tables, u64)) {
        let wall = EPOCH + self.now.as_millis() as u64;
        let node = &mut self.nodes[index];
        change(&mut node.tables, wall);
        if !node.dead && node.paused <= self.now {
            node.gossip.poll(&mut node.tables, self.now);
        }
        self.settle(index);
    }

    /// Owners of whose tables not all living nodes know the newest, with how many do not.
    pub(crate) fn stale(&self) -> BTreeMap<usize, usize> {
        let living: Vec<usize> = (0..self.nodes.len()).filter(|index| !self.nodes[*index].dead).collect();
        let mut stale = BTreeMap::new();
        for owner in &living {
            let truth = self.nodes[*owner].tables.rank(&self.nodes[*owner].id);
            let behind = living.iter().filter(|node| self.nodes[**node].tables.rank(&self.nodes[*owner].id) != truth);
            let behind = behind.count();
            if behind > 0 {
                stale.insert(*owner, behind);
            }
        }
        stale
    }

    /// The weight that a node's mesh gives an endpoint; `None` when it does not show it.
    pub(crate) fn weight(&self, node: usize, key: &EndpointKey) -> Option<u32> {
        self.nodes[node].tables.view().endpoints.get(key).map(|located| located.record.weight)
    }
}

pub(crate) fn member(node: &NodeId, underlay: IpAddr) -> Member {
    Member {
        node: node.clone(),
        hostname: String::new(),
        underlay,
        overlay: Ipv4Addr::new(10, 0, 1, 1),
        alive: true,
        away: false,
    }
}
