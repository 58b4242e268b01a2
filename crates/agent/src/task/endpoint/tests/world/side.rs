//! The two nodes, and the task that each has of the one service.

use std::sync::LazyLock;

use skep_mesh::LocalTask;
use skep_model::{EndpointKey, EndpointRecord, EndpointState, Member, NodeId, ServiceId, TaskId};

use self::Side::{Other, Owner};

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(digit: char) -> T {
    digit.to_string().repeat(25).parse().unwrap()
}

pub(super) static SERVICE: LazyLock<ServiceId> = LazyLock::new(|| id('s'));

/// The two nodes, which have a task each: the first node's is the one that all this is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Owner,
    Other,
}

impl Side {
    pub(super) fn digit(self) -> u8 {
        match self {
            Owner => 1,
            Other => 2,
        }
    }

    pub(super) fn node(self) -> &'static NodeId {
        static NODES: LazyLock<[NodeId; 2]> = LazyLock::new(|| ['1', '2'].map(id));
        &NODES[usize::from(self.digit() - 1)]
    }

    pub(super) fn key(self) -> &'static EndpointKey {
        static KEYS: LazyLock<[EndpointKey; 2]> =
            LazyLock::new(|| ['a', 'b'].map(|task| EndpointKey { network: id('n'), task: id(task) }));
        &KEYS[usize::from(self.digit() - 1)]
    }

    pub(super) fn task(self) -> &'static TaskId {
        &self.key().task
    }

    pub(super) fn record(self, state: EndpointState) -> EndpointRecord {
        let addr = [10, 0, 1, self.digit()].into();
        EndpointRecord { service: SERVICE.clone(), addr, state, weight: 1, aliases: Vec::new(), host_ports: Vec::new() }
    }

    pub(super) fn member(self, alive: bool) -> Member {
        Member {
            node: self.node().clone(),
            hostname: String::new(),
            underlay: [192, 0, 2, self.digit()].into(),
            overlay: [10, 0, 0, self.digit()].into(),
            alive,
            away: false,
        }
    }

    pub(super) fn local(self, state: EndpointState) -> LocalTask {
        LocalTask {
            task: self.task().clone(),
            home: id('n'),
            addr: [10, 0, 1, self.digit()].into(),
            networks: Vec::new(),
            host_ifindex: 9,
            mac: [2; 6],
            ipv6: true,
            state,
            host_ports: Vec::new(),
            host_options: Vec::new(),
        }
    }
}
