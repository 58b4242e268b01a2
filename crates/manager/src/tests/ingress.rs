//! The routing mesh's network, replaced by another.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use skep_model::{Network, NetworkId, NewNetwork, TaskId};

use super::*;
use crate::control::network::remove;

fn wanted(name: &str, subnet: &str) -> NewNetwork {
    let subnet = Some(subnet.parse().unwrap());
    NewNetwork { name: name.to_owned(), subnet, ingress: true, ..Default::default() }
}

fn ingress(sim: &Sim) -> Option<NetworkId> {
    sim.tables.ingress().map(|network| network.id.clone())
}

fn remove_ingress(sim: &mut Sim) {
    let id = ingress(sim).unwrap();
    let changes = remove(&sim.tables, &id).unwrap();
    sim.apply(changes);
}

fn homes(sim: &Sim, id: &ServiceId) -> Vec<(TaskId, NetworkId)> {
    sim.running(id).into_iter().map(|task| (task.id.clone(), task.attachments[0].network.clone())).collect()
}

fn node_addresses(sim: &Sim) -> BTreeSet<Ipv4Addr> {
    sim.tables.all::<Node>().filter_map(|node| node.overlay_addr).collect()
}

fn published(name: &str) -> ServiceSpec {
    publish(spec(name, 2), &[(80, None, PublishMode::Ingress)])
}

#[test]
fn an_empty_swarm_gets_another_ingress_network_with_the_very_same_addresses() {
    let mut sim = Sim::new(3);
    let before = Network::clone(sim.tables.ingress().unwrap());
    let subnet = before.spec.ipam.subnet;
    remove_ingress(&mut sim);
    assert_eq!(ingress(&sim), None);
    let refused = sim.create(published("web")).unwrap_err().to_string();
    assert!(
        refused.starts_with("service needs ingress network, but no ingress network is present: make one"),
        "{refused}"
    );
    let refused = remove(&sim.tables, &before.id).unwrap_err().to_string();
    assert!(refused.contains("not found"), "{refused}");
    let plain = NewNetwork { ingress: false, ..wanted("x", &subnet.to_string()) };
    let refused = sim.network(plain).unwrap_err().to_string();
    assert!(refused.contains("the ingress network that was removed"), "{refused}");
    // Its name is free, and so are its addresses to its successor.
    sim.network(wanted("ingress", &subnet.to_string())).unwrap();
    assert!(sim.tables.get::<Network>(&before.id).is_none());
    assert_eq!(node_addresses(&sim).len(), sim.tables.all::<Node>().len());
    let refused = sim.network(wanted("second", "10.200.0.0/16")).unwrap_err().to_string();
    assert!(refused.contains("is already present"), "{refused}");
    let web = sim.create(published("web")).unwrap();
    sim.settle();
    let new = ingress(&sim).unwrap();
    assert!(homes(&sim, &web).iter().all(|(_, home)| *home == new));
}

#[test]
fn tasks_keep_the_network_that_was_and_are_replaced_once_they_publish() {
    let mut sim = Sim::new(3);
    let (web, other) = (sim.create(spec("web", 2)).unwrap(), sim.create(spec("other", 1)).unwrap());
    sim.settle();
    let (old, before) = (Network::clone(sim.tables.ingress().unwrap()), homes(&sim, &web));
    let subnet: Ipv4Net = "10.200.0.0/16".parse().unwrap();
    remove_ingress(&mut sim);
    // Tasks that begin now need a way out, too, and nodes that join now an address.
    let third = sim.create(spec("third", 1)).unwrap();
    sim.settle();
    assert_eq!(homes(&sim, &third)[0].1, old.id);
    let refused = sim.network(wanted("mine", &old.spec.ipam.subnet.to_string())).unwrap_err().to_string();
    assert!(refused.contains("on which tasks still have addresses"), "{refused}");
    let refused = sim.network(wanted("mine", "10.200.0.0/30")).unwrap_err().to_string();
    assert!(refused.contains("no address is left on network mine"), "{refused}");
    sim.network(wanted("mine", "10.200.0.0/16")).unwrap();
    let mine = ingress(&sim).unwrap();
    let addresses = node_addresses(&sim);
    assert_eq!(addresses.len(), sim.tables.all::<Node>().len());
    assert!(addresses.iter().all(|addr| subnet.contains(addr)), "{addresses:?}");
    sim.settle();
    assert_eq!(homes(&sim, &web), before, "nobody was disturbed");

    sim.update(&web, |spec| *spec = published("web")).unwrap();
    sim.pass(20);
    let now = homes(&sim, &web);
    assert!(now.len() == 2 && now.iter().all(|(task, home)| *home == mine && before.iter().all(|b| b.0 != *task)));
    let kept = homes(&sim, &web);
    sim.update(&web, |spec| *spec = publish(published("web"), &[(81, None, PublishMode::Ingress)])).unwrap();
    sim.pass(20);
    assert_eq!(homes(&sim, &web), kept, "from then on ports replace nothing");

    assert!(sim.tables.get::<Network>(&old.id).is_some_and(|network| network.retired));
    for id in [other, third] {
        sim.apply(vec![Change::Delete(Key::Service(id))]);
    }
    sim.pass(20);
    assert!(sim.tables.get::<Network>(&old.id).is_none(), "nobody is on it any more");
}
