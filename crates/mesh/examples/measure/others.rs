//! What skep costs traffic that is not its own: between programs of a node, and through a node that forwards.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::figures::{Figure, Samples};
use crate::lab::{Lab, Netns, serve};
use crate::paths::{Effort, MANY};
use crate::plain::{client, node};
use crate::tools::{Bulk, Connections, Process, iperf3, wrk};

pub(crate) const LOOPBACK_WITHOUT: &str = "loopback, without skep";
pub(crate) const LOOPBACK_WITH: &str = "loopback, with skep";
pub(crate) const FORWARDING_WITHOUT: &str = "forwarding, without skep";
pub(crate) const FORWARDING_WITH: &str = "forwarding, with skep";

/// Ports that nobody publishes.
const HTTP: u16 = 7000;
const BULK: u16 = 7001;

/// A client and a server that skep has no part in.
struct Pair {
    name: &'static str,
    client: Netns,
    server: Ipv4Addr,
}

/// Two nodes, one without skep and one with, and pairs that talk on them and through them.
pub(crate) struct Others<'a> {
    loopbacks: [(&'static str, &'a Netns); 2],
    pairs: [Pair; 2],
    _servers: Vec<Netns>,
    _bulk: Vec<Process>,
}

impl<'a> Others<'a> {
    /// `plain` is a node without skep, `with` is one of the lab's.
    pub(crate) fn new(lab: &'a Lab, plain: &'a Netns, with: usize) -> Self {
        let skep = &lab.nodes[with];
        skep.ns.sysctl("net/ipv4/ip_forward", "1");
        for conf in ["all", "eth0"] {
            skep.ns.sysctl(&format!("net/ipv4/conf/{conf}/send_redirects"), "0");
        }
        let mut servers = Vec::new();
        let mut bulk = Vec::new();
        let loopbacks = [(LOOPBACK_WITHOUT, plain), (LOOPBACK_WITH, &skep.ns)];
        for (_, ns) in loopbacks {
            bulk.push(start(ns, Ipv4Addr::LOCALHOST));
        }
        let plain_addr = Ipv4Addr::new(10, 99, 0, PLAIN);
        let made = [(FORWARDING_WITHOUT, plain_addr, 150), (FORWARDING_WITH, skep.underlay, 152)];
        let pairs = made.map(|(name, via, number)| {
            let (asking, server) = (client(lab, number), client(lab, number + 1));
            let [from, to] = [number, number + 1].map(|n| Ipv4Addr::new(10, 99, 0, n));
            asking.ip(&format!("route add {to}/32 via {via}"));
            server.ip(&format!("route add {from}/32 via {via}"));
            bulk.push(start(&server, to));
            servers.push(server);
            Pair { name, client: asking, server: to }
        });
        Self { loopbacks, pairs, _servers: servers, _bulk: bulk }
    }

    /// Without and with, in turns.
    pub(crate) fn measure(&self, effort: Effort, samples: &mut Samples) {
        for (name, ns) in self.loopbacks {
            measure(name, ns, Ipv4Addr::LOCALHOST, effort, samples);
        }
        for pair in &self.pairs {
            measure(pair.name, &pair.client, pair.server, effort, samples);
        }
    }
}

/// The last byte of the address of the node without skep.
const PLAIN: u8 = 70;

/// A node without skep.
pub(crate) fn plain_node(lab: &Lab) -> Netns {
    node(lab, PLAIN)
}

fn start(ns: &Netns, addr: Ipv4Addr) -> Process {
    serve(ns, addr, HTTP);
    Process::start(ns.command(&format!("iperf3 -s -B {addr} -p {BULK}")))
}

fn measure(name: &'static str, client: &Netns, server: Ipv4Addr, effort: Effort, samples: &mut Samples) {
    let (http, bulk) = (SocketAddrV4::new(server, HTTP), SocketAddrV4::new(server, BULK));
    let many = wrk(client, http, MANY, Connections::Kept, effort.seconds);
    samples.add(name, Figure::Requests, many.rate);
    samples.add(name, Figure::RequestCpu, many.cpu);
    samples.add(name, Figure::Connections, wrk(client, http, MANY, Connections::NewEach, effort.seconds).rate);
    samples.add(name, Figure::BulkTo, iperf3(client, bulk, Bulk::ToTask, effort.seconds));
}
