//! Machines with real certificates, which hear, act and report whenever they get to it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skep_ca::{NodeCredentials, NodeKeys, RootCa, Roots, SigningRequest};
use skep_model::{Cluster, NodeDescription, NodeId, NodeState, Timestamp, Trust};
use skep_store::{Change, Key};

use super::*;
use crate::control::{issue, renew};
use crate::tests::Sim;

/// What can happen, to one machine or to the swarm.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody asks for another root.
    Rotate,
    /// The leader, whoever it is by now, looks at the tables.
    Look,
    /// Those of the machines whose bits are set hear, act and report, if they are up; then the leader looks.
    Round(u8),
    /// Its session brings a machine what the managers say.
    Hear(usize),
    /// A machine does what it has heard last, be it old.
    Act(usize),
    /// As that, but the answer of the manager gets lost.
    ActInVain(usize),
    /// A machine gets another certificate for a reason of its own.
    Renew(usize),
    /// Its session brings the managers what a machine has.
    Report(usize),
    Down(usize),
    Up(usize),
    /// Its daemon starts again: it has what is on its disk.
    Restart(usize),
    /// A node that is down is removed.
    Remove(usize),
    Join,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = 0..8usize;
    let event = prop_oneof![
        3 => Just(Event::Rotate),
        8 => any::<u8>().prop_map(|some| Event::Round(some | some.rotate_left(3))),
        2 => Just(Event::Look),
        1 => one.clone().prop_map(Event::Hear),
        2 => one.clone().prop_map(Event::Act),
        1 => one.clone().prop_map(Event::ActInVain),
        1 => one.clone().prop_map(Event::Renew),
        1 => one.clone().prop_map(Event::Report),
        2 => one.clone().prop_map(Event::Down),
        1 => one.clone().prop_map(Event::Up),
        1 => one.clone().prop_map(Event::Restart),
        1 => one.prop_map(Event::Remove),
        1 => Just(Event::Join),
    ];
    prop::collection::vec(event, 0..60)
}

struct Machine {
    held: NodeCredentials,
    heard: Option<Trust>,
}

/// The first three machines are managers, and are never removed.
struct World {
    sim: Sim,
    machines: BTreeMap<NodeId, Machine>,
    order: Vec<NodeId>,
    joined: usize,
}

const MANAGERS: usize = 3;

impl World {
    fn new() -> Self {
        let mut world = Self { sim: Sim::new(0), machines: BTreeMap::new(), order: Vec::new(), joined: 0 };
        let first = world.sim.nodes();
        world.sim.apply(first.into_iter().map(|node| Change::Delete(Key::Node(node))).collect());
        (0..4).for_each(|_| world.join());
        for node in world.order.clone() {
            world.report(&node);
        }
        world
    }

    fn cluster(&self) -> Cluster {
        Cluster::clone(self.sim.tables.cluster().unwrap())
    }

    fn join(&mut self) {
        let number = self.joined;
        self.joined += 1;
        let keys = NodeKeys::generate().unwrap();
        let node = self.sim.join(&format!("w{number}"), &format!("192.0.2.{}", number + 2)).unwrap();
        let held = self.issued(&node, keys);
        self.sim.node(&node.id, |node| node.status.state = NodeState::Ready);
        self.machines.insert(node.id.clone(), Machine { held, heard: None });
        self.order.push(node.id);
    }

    fn issued(&self, node: &Node, keys: NodeKeys) -> NodeCredentials {
        let request = SigningRequest::from_der(&keys.request().unwrap()).unwrap();
        let issued = issue(&self.cluster(), node, &request, Timestamp::now()).unwrap();
        NodeCredentials::new(keys, &issued.certificate, Roots::from_pem(&issued.roots).unwrap()).unwrap()
    }

    fn rotate(&mut self) {
        let mut cluster = self.cluster();
        let root = RootCa::generate(Timestamp::now()).unwrap();
        cluster.authority = root.succeed(&cluster.authority, Timestamp::now()).unwrap();
        self.sim.apply(vec![cluster.into()]);
    }

    fn is_up(&self, node: &NodeId) -> bool {
        self.sim.tables.get::<Node>(node).is_some_and(|node| node.status.state == NodeState::Ready)
    }

    fn report(&mut self, node: &NodeId) {
        let tls = self.machines[node].held.tls();
        self.sim.node(node, |node| {
            node.description = Some(NodeDescription { tls: Some(tls), ..node.description.clone().unwrap_or_default() });
        });
    }

    /// Asks for a certificate. The answer may get lost.
    fn renew(&mut self, node: &NodeId, answered: bool) {
        let keys = NodeKeys::generate().unwrap();
        let request = SigningRequest::from_der(&keys.request().unwrap()).unwrap();
        let (known, changes) = renew(&self.sim.tables, node, &request).unwrap();
        self.sim.apply(changes);
        if answered {
            let held = self.issued(&known, keys);
            self.machines.get_mut(node).unwrap().held = held;
        }
    }

    /// As the daemon does: it trusts first, and then gets the certificate that it should have.
    fn act(&mut self, node: &NodeId, answered: bool) {
        let machine = self.machines.get_mut(node).unwrap();
        let Some(heard) = machine.heard.clone() else { return };
        let roots = Roots::from_pem(&heard.roots).unwrap();
        if let Ok(trusting) = machine.held.trusting(roots) {
            machine.held = trusting;
        }
        if heard.issuer.is_some_and(|issuer| issuer != machine.held.issuer().to_pem()) {
            self.renew(node, answered);
        }
    }

    fn look(&mut self) {
        while let Some(cluster) = next(&self.sim.tables) {
            self.sim.apply(vec![cluster.into()]);
        }
    }

    fn happens(&mut self, event: Event) {
        let of = |machine: usize| self.order.get(machine % self.order.len()).cloned().unwrap();
        match event {
            Event::Rotate => self.rotate(),
            // Every look is another leader's: it knows nothing but the tables.
            Event::Look => self.look(),
            Event::Round(some) => {
                for (at, node) in self.order.clone().iter().enumerate() {
                    if some & (1 << at) != 0 && self.is_up(node) {
                        [Event::Hear(0), Event::Act(0), Event::Report(0)]
                            .into_iter()
                            .for_each(|step| self.speaks(node, step));
                    }
                }
                self.look();
            }
            Event::Join if self.order.len() < 8 => self.join(),
            Event::Join => {}
            Event::Down(one) => {
                let node = of(one);
                self.sim.node(&node, |node| node.status.state = NodeState::Down);
            }
            Event::Up(one) => {
                let node = of(one);
                self.sim.node(&node, |node| node.status.state = NodeState::Ready);
            }
            Event::Restart(one) => self.machines.get_mut(&of(one)).unwrap().heard = None,
            Event::Remove(one) => {
                let node = of(one);
                let place = self.order.iter().position(|known| *known == node).unwrap();
                if place >= MANAGERS && !self.is_up(&node) {
                    self.order.remove(place);
                    self.machines.remove(&node);
                    self.sim.apply(vec![Change::Delete(Key::Node(node))]);
                }
            }
            Event::Hear(one) | Event::Act(one) | Event::ActInVain(one) | Event::Renew(one) | Event::Report(one) => {
                let node = of(one);
                if self.is_up(&node) {
                    self.speaks(&node, event);
                }
            }
        }
    }

    /// What a machine does that is in reach.
    fn speaks(&mut self, node: &NodeId, event: Event) {
        match event {
            Event::Hear(_) => self.machines.get_mut(node).unwrap().heard = Some(self.cluster().authority.trust()),
            Event::Act(_) => self.act(node, true),
            Event::ActInVain(_) => self.act(node, false),
            Event::Renew(_) => self.renew(node, true),
            _ => self.report(node),
        }
    }

    /// Everybody can speak with every manager, also who is away and comes back as it is.
    fn all_know_the_managers(&self) {
        for manager in &self.order[..MANAGERS] {
            let manager = &self.machines[manager].held;
            for machine in self.machines.values() {
                assert_eq!(manager.recognizes(&machine.held), Ok(()), "a manager does not know a node");
                assert_eq!(machine.held.recognizes(manager), Ok(()), "a node does not know a manager");
            }
        }
    }

    /// All are up, hear, act, and report, until nothing changes.
    fn comes_to_rest(&mut self) {
        for node in self.order.clone() {
            self.sim.node(&node, |node| node.status.state = NodeState::Ready);
        }
        for _ in 0..6 {
            for node in self.order.clone() {
                for step in [Event::Hear(0), Event::Act(0), Event::Report(0)] {
                    self.speaks(&node, step);
                }
                self.all_know_the_managers();
            }
            self.look();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn all_come_to_be_under_the_newest_root_and_nobody_is_ever_shut_out(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
            // Whatever else happens, nobody has another certificate by that, or trusts others.
            if matches!(event, Event::Round(_) | Event::Act(_) | Event::Renew(_) | Event::Join) {
                world.all_know_the_managers();
            }
        }
        let newest = world.cluster().authority.wanted().to_owned();
        world.comes_to_rest();
        let authority = world.cluster().authority;
        prop_assert_eq!(&authority.certificate, &newest);
        prop_assert_eq!(&authority.trusted, std::slice::from_ref(&newest));
        prop_assert!(authority.rotation.is_none());
        for machine in world.machines.values() {
            let tls = machine.held.tls();
            prop_assert_eq!((&tls.issuer, &tls.roots), (&newest, &newest));
        }
    }
}

#[test]
fn a_node_that_is_down_holds_up_the_end_and_nothing_else_until_it_is_removed() {
    let mut world = World::new();
    let (down, others) = (world.order[3].clone(), world.order[..3].to_vec());
    world.happens(Event::Down(3));
    let before = world.cluster();
    world.rotate();
    let goes_on = |world: &mut World| {
        for node in &others {
            for step in [Event::Hear(0), Event::Act(0), Event::Report(0)] {
                world.speaks(node, step);
            }
        }
        world.look();
    };
    world.look();
    assert_eq!(world.cluster().authority.rotation.unwrap().stage, RotationStage::Announced);
    assert_eq!(names(&world.sim.tables), ["w0", "w1", "w2"], "the one that is away is not waited for yet");
    (0..3).for_each(|_| goes_on(&mut world));
    let open = world.cluster();
    assert_eq!(names(&world.sim.tables), ["w3"]);
    assert!(others.iter().all(|node| world.machines[node].held.tls().issuer == open.authority.wanted()));
    assert_eq!((&open.authority.certificate, open.join), (&before.authority.certificate, before.join.clone()));
    world.all_know_the_managers();
    world.happens(Event::Remove(3));
    assert!(!world.machines.contains_key(&down));
    (0..2).for_each(|_| goes_on(&mut world));
    let after = world.cluster();
    assert_eq!(after.authority.trusted, [open.authority.wanted()]);
    assert!(after.join.worker != before.join.worker && after.join.manager != before.join.manager);
}
