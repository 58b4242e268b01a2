//! A way from a client to a task, and every figure that is measured on it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use crate::datagrams::{Sink, flood};
use crate::figures::{Figure, Samples};
use crate::lab::Netns;
use crate::paced::paced;
use crate::tools::{Bulk, Connections, Process, iperf3, who_answers, wrk};

/// Where a task serves: requests, bulk, datagrams.
pub(crate) const HTTP: u16 = 80;
pub(crate) const BULK: u16 = 5201;
pub(crate) const DATAGRAMS: u16 = 81;
/// And where each is published by whatever stands in front.
pub(crate) const PUBLISHED: [(u16, u16); 2] = [(8080, HTTP), (BULK, BULK)];
pub(crate) const PUBLISHED_DATAGRAMS: (u16, u16) = (8081, DATAGRAMS);

/// How many connections "many" are.
pub(crate) const MANY: u32 = 32;

/// The servers of a task, besides the one on [`HTTP`].
pub(crate) struct Server {
    addr: Ipv4Addr,
    sink: Sink,
    _bulk: Process,
}

impl Server {
    pub(crate) fn start(ns: &Netns, addr: Ipv4Addr) -> Rc<Self> {
        let bulk = ns.command(&format!("iperf3 -s -B {addr} -p {BULK}"));
        Rc::new(Self { addr, sink: Sink::start(ns, addr, DATAGRAMS), _bulk: Process::start(bulk) })
    }
}

/// Whom the task sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sees {
    Client,
    Another,
}

/// A way to a task. Each has a client with an address of its own: what a task's kernel remembers of one path's connections must not slow
/// another down.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) client: Netns,
    pub(crate) server: Rc<Server>,
    pub(crate) http: SocketAddrV4,
    pub(crate) bulk: SocketAddrV4,
    /// `None` where what stands in front does not carry datagrams.
    pub(crate) datagrams: Option<SocketAddrV4>,
}

/// How long and how hard.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Seconds for each figure.
    pub(crate) seconds: u64,
    /// Requests per second where the rate is fixed.
    pub(crate) rate: u32,
}

impl Path {
    /// The task itself is asked.
    pub(crate) fn direct(name: &'static str, client: Netns, server: Rc<Server>) -> Self {
        let at = |port| SocketAddrV4::new(server.addr, port);
        let (http, bulk, datagrams) = (at(HTTP), at(BULK), Some(at(DATAGRAMS)));
        Self { name, client, server, http, bulk, datagrams }
    }

    /// A published port is asked.
    pub(crate) fn published(name: &'static str, client: Netns, server: Rc<Server>, asked: Ipv4Addr) -> Self {
        let at = |port| SocketAddrV4::new(asked, port);
        let [(http, _), (bulk, _)] = PUBLISHED;
        Self { name, client, server, http: at(http), bulk: at(bulk), datagrams: Some(at(PUBLISHED_DATAGRAMS.0)) }
    }

    /// Makes sure that the path leads where it should before it is measured, and that the task sees whom it should.
    pub(crate) fn check(&self, sees: Sees) {
        let (answered, peer) = who_answers(&self.client, self.http);
        assert_eq!(answered, self.server.addr, "{}: another task answers", self.name);
        let own = self.client.ip("-br -4 addr show eth0");
        let seen = if own.contains(&format!("{peer}/")) { Sees::Client } else { Sees::Another };
        assert!(seen == sees, "{}: the task sees {peer}", self.name);
        eprintln!("{}: {} answers by {}, and sees {peer}", self.name, answered, self.http);
    }

    /// Everything, once.
    pub(crate) fn measure(&self, effort: Effort, samples: &mut Samples) {
        let Effort { seconds, rate } = effort;
        let mut add = |figure, value| samples.add(self.name, figure, value);
        let many = wrk(&self.client, self.http, MANY, Connections::Kept, seconds);
        add(Figure::Requests, many.rate);
        add(Figure::RequestCpu, many.cpu);
        add(Figure::ManyP50, many.p50);
        add(Figure::ManyP99, many.p99);
        let new = wrk(&self.client, self.http, MANY, Connections::NewEach, seconds);
        add(Figure::Connections, new.rate);
        add(Figure::ConnectionCpu, new.cpu);
        let one = wrk(&self.client, self.http, 1, Connections::Kept, seconds);
        add(Figure::OneP50, one.p50);
        add(Figure::OneP99, one.p99);
        let latency = paced(&self.client, self.http, MANY, rate, seconds);
        add(Figure::PacedP50, latency.p50);
        add(Figure::PacedP99, latency.p99);
        add(Figure::BulkTo, iperf3(&self.client, self.bulk, Bulk::ToTask, seconds));
        add(Figure::BulkFrom, iperf3(&self.client, self.bulk, Bulk::FromTask, seconds));
        if let Some(to) = self.datagrams {
            add(Figure::Datagrams, flood(&self.client, to, &self.server.sink, seconds));
        }
    }

    /// Only requests and connections.
    pub(crate) fn measure_requests(&self, effort: Effort, samples: &mut Samples) {
        let many = wrk(&self.client, self.http, MANY, Connections::Kept, effort.seconds);
        samples.add(self.name, Figure::Requests, many.rate);
        samples.add(self.name, Figure::RequestCpu, many.cpu);
        let new = wrk(&self.client, self.http, MANY, Connections::NewEach, effort.seconds);
        samples.add(self.name, Figure::Connections, new.rate);
        samples.add(self.name, Figure::ConnectionCpu, new.cpu);
    }
}
