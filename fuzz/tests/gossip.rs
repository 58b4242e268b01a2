//! Whatever a member sends that has the keys: no node falls over it, none takes in more than members say, and those that speak properly go on.
//!
//! What is sent is what nodes really say to each other, spoiled. A run prints its seed, and `SKEP_SIM_SEED` repeats it; `SKEP_FUZZ_SECONDS=60` goes on
//! for a minute, with as many seeds as there is time for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use skep_fuzz::Mutator;
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, GossipKey, GossipKeys, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
};
use skep_netdb::Tables;
use skep_netdb::gossip::{Gossip, Output};

const EPOCH: u64 = 1_790_000_000_000;
const SECRET: [u8; 32] = [7; 32];
/// Bytes before what is sealed, and behind it.
const HEAD: usize = 3 + 4 + NONCE_LEN + 17;
const TAG: usize = 16;
/// How many spoiled messages a run sends.
const MESSAGES: usize = 3000;

/// By what a message travels: the last byte of what is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Datagram = 0,
    Stream = 1,
}

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SECRET).unwrap())
}

fn authenticated(way: Way, head: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([head, &[way as u8]].concat())
}

/// What a message says, without its seal.
fn open(way: Way, message: &[u8]) -> Vec<u8> {
    let (head, sealed) = message.split_at(HEAD);
    let nonce = Nonce::try_assume_unique_for_key(&head[7..7 + NONCE_LEN]).unwrap();
    let mut content = sealed.to_vec();
    key().open_in_place(nonce, authenticated(way, head), &mut content).unwrap();
    content.truncate(sealed.len() - TAG);
    content
}

/// Seals a content as the message was from which the head is taken.
fn seal(way: Way, head: &[u8], content: &[u8]) -> Vec<u8> {
    let nonce = Nonce::try_assume_unique_for_key(&head[7..7 + NONCE_LEN]).unwrap();
    let mut sealed = content.to_vec();
    key().seal_in_place_append_tag(nonce, authenticated(way, head), &mut sealed).unwrap();
    [head, &sealed].concat()
}

struct Node {
    addr: SocketAddr,
    gossip: Gossip,
    tables: Tables,
}

struct Swarm {
    nodes: Vec<Node>,
    now: Duration,
    rng: StdRng,
    /// Nobody answers there.
    dead: Option<SocketAddr>,
    /// What was said: by which way, the head, and the content.
    said: Vec<(Way, Vec<u8>, Vec<u8>)>,
}

fn record(state: EndpointState, aliases: &[&str]) -> EndpointRecord {
    let aliases = aliases.iter().map(ToString::to_string).collect();
    EndpointRecord {
        service: ServiceId::random(),
        addr: [10, 0, 0, 9].into(),
        state,
        weight: 1,
        aliases,
        host_ports: Vec::new(),
    }
}

impl Swarm {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let members: BTreeMap<NodeId, SocketAddr> =
            (1..=4).map(|last| (NodeId::random(), ([192, 0, 2, last], 7946).into())).collect();
        let keys = vec![GossipKey { id: 1, secret: SECRET }];
        let nodes = members.iter().map(|(id, addr)| {
            let mut gossip = Gossip::new(id.clone(), EPOCH, rng.random());
            gossip.set_keys(&GossipKeys { keys: keys.clone(), primary: 1, rotated: Timestamp::UNIX_EPOCH });
            gossip.set_members(members.clone(), Duration::ZERO);
            Node { addr: *addr, gossip, tables: Tables::new(id.clone(), EPOCH) }
        });
        let nodes = nodes.collect();
        Self { nodes, now: Duration::ZERO, rng, dead: None, said: Vec::new() }
    }

    /// Some time passes, in which the nodes change something and speak with each other.
    fn talk(&mut self, rounds: usize) {
        for round in 0..rounds {
            self.now += Duration::from_millis(40);
            // Long enough to be doubted by the others, and to hear of it afterwards.
            self.dead = (rounds / 3..rounds * 2 / 3).contains(&round).then_some(self.nodes[3].addr);
            let wall = EPOCH + self.now.as_millis() as u64;
            let at = self.rng.random_range(0..self.nodes.len());
            let tables = &mut self.nodes[at].tables;
            let first = tables.own().records.keys().next().cloned();
            match (round % 4, first) {
                (0, Some(first)) => drop(tables.withdraw(&first, wall)),
                (1, Some(first)) => drop(tables.set_state(&first, EndpointState::Draining, wall)),
                (_, _) => {
                    let key = EndpointKey { network: NetworkId::random(), task: TaskId::random() };
                    tables.publish([(key, record(EndpointState::Ready, &["web", "api"][..round % 3]))], wall);
                }
            }
            for node in &mut self.nodes {
                node.gossip.poll(&mut node.tables, self.now);
            }
            self.deliver();
        }
    }

    /// Brings everything that was sent where it belongs.
    fn deliver(&mut self) {
        for _ in 0..20 {
            for from in 0..self.nodes.len() {
                for output in self.nodes[from].gossip.take() {
                    match output {
                        Output::Send { to, datagram } => {
                            self.note(Way::Datagram, &datagram);
                            let listens = |node: &&mut Node| node.addr == to && self.dead != Some(to);
                            let Some(to) = self.nodes.iter_mut().find(listens) else { continue };
                            to.gossip.receive(&mut to.tables, &mut datagram.to_vec(), self.now).unwrap();
                        }
                        Output::Exchange { addr, wants, .. } => self.exchange(from, addr, &wants),
                    }
                }
            }
        }
    }

    fn exchange(&mut self, from: usize, addr: SocketAddr, wants: &[NodeId]) {
        let Some(to) = self.nodes.iter().position(|node| node.addr == addr) else { return };
        let node = &mut self.nodes[from];
        let mut frame = node.gossip.open_exchange(&node.tables, wants);
        let mut turn = to;
        while let Some(mut said) = frame {
            self.note(Way::Stream, &said);
            let node = &mut self.nodes[turn];
            frame = node.gossip.answer(&mut node.tables, &mut said, self.now).unwrap();
            turn = from + to - turn;
        }
    }

    fn note(&mut self, way: Way, message: &[u8]) {
        if self.said.len() < 2000 {
            self.said.push((way, message[..HEAD].to_vec(), open(way, message)));
        }
    }
}

fn run(seed: u64) {
    println!("SKEP_SIM_SEED={seed}");
    let mut swarm = Swarm::new(seed);
    swarm.talk(120);
    assert!(swarm.said.iter().any(|(way, ..)| *way == Way::Stream), "some of it by exchanges");
    let parts = |kind: u8| swarm.said.iter().any(|(way, _, said)| *way == Way::Datagram && said[0] == kind);
    assert!((1..=3).chain([5, 6]).all(parts), "of every kind that begins a datagram");
    let (mut mutator, mut understood) = (Mutator::new(seed), 0);
    for message in 0..MESSAGES {
        let (way, head, said) = swarm.said[swarm.rng.random_range(0..swarm.said.len())].clone();
        let other = swarm.said[swarm.rng.random_range(0..swarm.said.len())].2.clone();
        let content = mutator.spoil(&[said, other]);
        let mut message_bytes = seal(way, &head, &content);
        let to = swarm.rng.random_range(0..swarm.nodes.len());
        let node = &mut swarm.nodes[to];
        let own: Vec<_> = node.tables.own().records.clone().into_iter().collect();
        let taken = match way {
            Way::Datagram => node.gossip.receive(&mut node.tables, &mut message_bytes, swarm.now).is_ok(),
            Way::Stream => node.gossip.answer(&mut node.tables, &mut message_bytes, swarm.now).is_ok(),
        };
        understood += usize::from(taken);
        assert!(own.into_iter().eq(node.tables.own().records.clone()), "nobody else says what runs here");
        assert!(node.tables.all().len() <= 4, "strangers have no tables");
        if message % 20 == 0 {
            swarm.now += Duration::from_millis(100);
            for node in &mut swarm.nodes {
                node.gossip.poll(&mut node.tables, swarm.now);
                // What comes of it goes nowhere.
                drop(node.gossip.take());
            }
        }
    }
    println!("{understood} of {MESSAGES} were understood");
    assert!(understood > MESSAGES / 50, "more than noise is needed");
}

#[test]
fn no_message_of_a_member_makes_a_node_fall_over() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SKEP_SIM_SEED") {
        return run(seed);
    }
    run(17);
    if let Some(seconds) = number("SKEP_FUZZ_SECONDS") {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            run(clock.as_nanos() as u64);
        }
    }
}
