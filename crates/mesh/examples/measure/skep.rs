//! The paths through skep: swarms of two nodes, one that is asked and one that has the task.

use std::net::Ipv4Addr;
use std::rc::Rc;

use skep_mesh::{Datapath, Desired, LocatedEndpoint, compile};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, Member, NodeId, Protocol, ServiceEntry, ServiceId, TaskId, Version,
};

use crate::lab::{Lab, Node, ingress};
use crate::paths::{PUBLISHED, PUBLISHED_DATAGRAMS, Path, Sees, Server};
use crate::plain::client;

pub(crate) const REMOTE: &str = "skep, through another node";
pub(crate) const LOCAL: &str = "skep, through the task's own node";
pub(crate) const REPLY_DIRECT: &str = "skep, `--reply direct`";

/// Who answers the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The node that was asked.
    Asked,
    /// The task's own node.
    Owner,
}

/// Tells a node of the lab who answers, before the tables are applied again.
fn set(node: &mut Node, reply: Reply) {
    node.reply_direct = reply == Reply::Owner;
}

/// Two nodes of the lab and a task on the second. Each is a swarm of its own and knows nothing of the others.
pub(crate) struct Swarm {
    pub(crate) asked: usize,
    pub(crate) owner: usize,
    task: usize,
    services: u16,
}

impl Swarm {
    /// On the nodes `asked` and the next, with this many services published; one of them is real.
    pub(crate) fn new(lab: &mut Lab, asked: usize, services: u16) -> Self {
        let (owner, task) = (asked + 1, lab.tasks.len());
        let (from, to) = PUBLISHED_DATAGRAMS;
        let mut ports = PUBLISHED.map(|(from, to)| ingress(Protocol::Tcp, from, to)).to_vec();
        ports.push(ingress(Protocol::Udp, from, to));
        lab.service(&ports, &[owner]);
        Self { asked, owner, task, services }
    }

    /// Brings both nodes to what they should be. To be called when all swarms of the lab are there.
    pub(crate) fn apply(&self, lab: &mut Lab) {
        for node in [self.asked, self.owner] {
            let tables = compile(&self.desired(lab, node));
            let Node { ns, bpf, .. } = &mut lab.nodes[node];
            let bpf = bpf.as_mut().unwrap();
            ns.run(|| bpf.apply(&tables)).unwrap();
        }
    }

    /// What one of its nodes should be.
    pub(crate) fn desired(&self, lab: &Lab, node: usize) -> Desired {
        let mut desired = lab.desired(node);
        let service = &lab.tasks[self.task].service;
        desired.services.retain(|s| s.id == *service);
        desired.endpoints.retain(|e| e.record.service == *service);
        let members = [self.asked, self.owner].map(|n| &lab.nodes[n].id);
        desired.members.retain(|m| members.contains(&&m.node));
        publish_more(&mut desired, self.services - 1);
        desired
    }

    /// A path by its first node or its second.
    pub(crate) fn path(&self, lab: &Lab, name: &'static str, by: usize, server: &Rc<Server>, number: u8) -> Path {
        let path = Path::published(name, client(lab, number), server.clone(), lab.nodes[by].underlay);
        path.check(Sees::Client);
        path
    }

    /// The servers of its task. Paths that end there share them.
    pub(crate) fn server(&self, lab: &Lab) -> Rc<Server> {
        let task = &lab.tasks[self.task];
        Server::start(&task.ns, task.addr)
    }

    /// From now on `reply` answers.
    pub(crate) fn set_reply(&self, lab: &mut Lab, reply: Reply) {
        for node in [self.asked, self.owner] {
            set(&mut lab.nodes[node], reply);
        }
        self.apply(lab);
    }
}

/// The first of the ports of [`publish_more`].
pub(crate) const FIRST_PORT: u16 = 10_000;

/// Publishes this many more services, a port each, with a task on a node that does not exist.
pub(crate) fn publish_more(desired: &mut Desired, count: u16) {
    let absent = NodeId::random();
    let network = desired.endpoints[0].key.network.clone();
    desired.members.push(Member {
        node: absent.clone(),
        hostname: "absent".into(),
        underlay: Ipv4Addr::new(10, 99, 0, 250).into(),
        overlay: Ipv4Addr::new(10, 0, 0, 250),
        alive: true,
        away: false,
    });
    for n in 0..count {
        let service = ServiceId::random();
        let [high, low] = n.to_be_bytes();
        desired.services.push(ServiceEntry {
            id: service.clone(),
            name: format!("more-{n}"),
            version: Version::default(),
            ports: vec![ingress(Protocol::Tcp, FIRST_PORT + n, 80)],
            options: vec![],
            virtual_ips: vec![],
            networks: Vec::new(),
        });
        desired.endpoints.push(LocatedEndpoint {
            key: EndpointKey { network: network.clone(), task: TaskId::random() },
            owner: absent.clone(),
            record: EndpointRecord {
                service,
                addr: Ipv4Addr::new(10, 1, high, low),
                state: EndpointState::Ready,
                weight: 1,
                aliases: vec![],
                host_ports: Vec::new(),
            },
        });
    }
}
