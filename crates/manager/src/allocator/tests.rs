use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use skep_model::{Network, NewNetwork, Node};
use skep_store::Change;

use super::*;
use crate::tests::Sim;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// A swarm with one pool, from which networks of one size are cut.
fn with_pool(pool: &str, size: u8) -> Sim {
    let mut sim = Sim::new(0);
    let mut cluster = sim.tables.cluster().unwrap().as_ref().clone();
    cluster.default_pools = vec![net(pool)];
    cluster.subnet_size = size;
    let mut ingress = Network::clone(sim.tables.ingress().unwrap());
    ingress.spec.ipam.subnet = ingress_subnet(&[net(pool)], &[]).unwrap();
    sim.apply(vec![cluster.into(), ingress.into()]);
    sim
}

fn lengths(sim: &mut Sim) -> Vec<u8> {
    let mut lengths = Vec::new();
    for number in 0.. {
        let Ok(id) = sim.network(NewNetwork { name: format!("n{number}"), ..Default::default() }) else { break };
        let network = sim.tables.get::<Network>(&id).unwrap();
        lengths.push(network.spec.ipam.subnet.prefix_len());
    }
    lengths
}

#[test]
fn networks_are_large_while_there_is_plenty_and_never_share_addresses() {
    let mut sim = with_pool("10.20.0.0/16", 24);
    let told = lengths(&mut sim);
    let count = |length: u8| told.iter().filter(|l| **l == length).count();
    // A half is the routing mesh's; then a quarter, an eighth and an eighth.
    assert_eq!((count(20), count(22), count(24)), (4, 8, 32), "{told:?}");
    assert!(told.is_sorted());
    let subnets: Vec<_> = sim.tables.all::<Network>().map(|network| network.spec.ipam.subnet).collect();
    for (at, one) in subnets.iter().enumerate() {
        assert!(net("10.20.0.0/16").contains(one));
        assert!(subnets[at + 1..].iter().all(|other| !one.contains(other) && !other.contains(one)), "{subnets:?}");
    }
    let refused = sim.network(NewNetwork { name: "more".to_owned(), ..Default::default() }).unwrap_err().to_string();
    assert!(refused.contains("no subnet of /24 is left") && refused.contains("10.20.0.0/16"), "{refused}");
    // What is given back can be had again.
    let id = sim.tables.all::<Network>().find(|n| n.spec.name == "n0").unwrap().id.clone();
    sim.apply(vec![Change::Delete(skep_store::Key::Network(id))]);
    assert_eq!(lengths(&mut sim).len(), 1);
}

#[test]
fn ten_thousand_networks_fit_into_dockers_pool() {
    let mut sim = Sim::new(0);
    let id = sim.network(NewNetwork { name: "first".to_owned(), ..Default::default() }).unwrap();
    let first = Network::clone(sim.tables.get(&id).unwrap());
    assert_eq!(first.spec.ipam.subnet, net("10.0.0.0/18"), "10.1.0.0/16 is the routing mesh's");
    // As many of each size as the rule comes to.
    let sizes = [(18, 508), (20, 1024), (22, 2048), (24, 6500)];
    let mut at = u32::from(Ipv4Addr::new(10, 2, 0, 0));
    let mut many = Vec::new();
    for (size, count) in sizes {
        for _ in 0..count {
            let mut network = first.clone();
            network.id = NetworkId::random();
            network.spec.ipam.subnet = Ipv4Net::new(Ipv4Addr::from(at), size).unwrap();
            at += 1 << (32 - size);
            many.push(network.into());
        }
    }
    sim.apply(many);
    let id = sim.network(NewNetwork { name: "last".to_owned(), ..Default::default() }).unwrap();
    assert_eq!(sim.tables.all::<Network>().len(), 10_083);
    assert_eq!(sim.tables.get::<Network>(&id).unwrap().spec.ipam.subnet.prefix_len(), 24);
}

#[test]
fn a_size_that_was_asked_for_is_kept_to() {
    let mut sim = with_pool("10.20.0.0/20", 26);
    assert_eq!(lengths(&mut sim), vec![26; 32]);
    assert_eq!(ingress_subnet(&[net("10.20.0.0/20")], &[]).unwrap(), net("10.20.0.0/21"));
    assert_eq!(ingress_subnet(&[net("10.0.0.0/8")], &[]).unwrap(), net("10.0.0.0/16"));
    assert_eq!(ingress_subnet(&[net("10.0.0.0/30")], &[]).unwrap(), net("10.0.0.0/30"));
}

#[test]
fn a_subnet_that_cannot_be_had_names_who_has_it() {
    let mut sim = Sim::new(1);
    let worker = sim.nodes().into_iter().find(|id| sim.tables.get::<Node>(id).unwrap().manager.is_none()).unwrap();
    sim.node(&worker, |node| {
        let description = node.description.get_or_insert_default();
        description.hostname = "w0".to_owned();
        description.routes = vec![net("0.0.0.0/1"), net("10.0.0.0/24"), net("172.17.0.0/16")];
    });
    let try_one = |sim: &mut Sim, subnet: &str| {
        let subnet = Some(subnet.parse().unwrap());
        sim.network(NewNetwork { name: "x".to_owned(), subnet, ..Default::default() }).unwrap_err().to_string()
    };
    for (subnet, fragment) in [
        ("10.1.7.0/24", "10.1.7.0/24 shares addresses with the network ingress (10.1.0.0/16)"),
        ("172.16.0.0/12", "the route to 172.17.0.0/16 of node w0"),
        ("192.0.2.0/24", "the address 192.0.2."),
        ("10.9.0.1/24", "bits beyond its prefix"),
        ("10.9.0.0/31", "no room for a gateway and a task"),
        ("127.0.0.0/8", "choose private ones"),
        ("224.0.0.0/8", "choose private ones"),
        ("0.0.0.0/0", "it is too large"),
    ] {
        let refused = try_one(&mut sim, subnet);
        assert!(refused.contains(fragment), "{subnet}: {refused}");
    }
    // What is chosen lies elsewhere by itself.
    let id = sim.network(NewNetwork { name: "x".to_owned(), ..Default::default() }).unwrap();
    assert_eq!(sim.tables.get::<Network>(&id).unwrap().spec.ipam.subnet, net("10.0.64.0/18"));
}

#[test]
fn an_ipv6_subnet_of_its_own_is_checked_like_the_other() {
    let mut sim = Sim::new(1);
    let worker = sim.nodes().into_iter().find(|id| sim.tables.get::<Node>(id).unwrap().manager.is_none()).unwrap();
    sim.node(&worker, |node| {
        let description = node.description.get_or_insert_default();
        description.hostname = "w0".to_owned();
        description.routes6 = ["::/0", "2000::/3", "2001:db8:1::/64"].map(|route| route.parse().unwrap()).to_vec();
    });
    let wanted = |name: &str, subnet6: &str, gateway6: Option<&str>| NewNetwork {
        name: name.to_owned(),
        subnet: Some(net(if name == "x" { "10.9.0.0/24" } else { "10.8.0.0/24" })),
        subnet6: Some(subnet6.parse().unwrap()),
        gateway6: gateway6.map(|gateway| gateway.parse().unwrap()),
        ipv6: true,
        ..Default::default()
    };
    sim.network(wanted("other", "2001:db8:2::/64", None)).unwrap();
    for (subnet, gateway, fragment) in [
        ("2001:db8::/32", None, "2001:db8::/32 shares addresses with the network other (2001:db8:2::/64)"),
        ("2001:db8:1::/80", None, "the route to 2001:db8:1::/64 of node w0"),
        ("2001:db8:3::/97", None, "choose a /96 or larger, such as a /64"),
        ("2001:db8:3::1/64", None, "bits beyond its prefix"),
        ("fd00::/8", None, "it is too large"),
        ("::ffff:0:0/96", None, "mean something else to every machine"),
        ("fe80::/64", None, "mean something else to every machine"),
        ("ff05::/64", None, "mean something else to every machine"),
        ("fd73:6b65::/32", None, "skep itself has fd73:6b65:7000::/96"),
        ("2001:db8:3::/64", Some("2001:db8:4::1"), "the gateway 2001:db8:4::1 is no host's address in 2001:db8:3::/64"),
        ("2001:db8:3::/64", Some("2001:db8:3::"), "no host's address"),
        ("2001:db8:3::/64", Some("2001:db8:3::a09:7"), "goes with 10.9.0.7, which a task may have"),
    ] {
        let refused = sim.network(wanted("x", subnet, gateway)).unwrap_err().to_string();
        assert!(refused.contains(fragment), "{subnet} {gateway:?}: {refused}");
    }
    let with = |change: fn(&mut NewNetwork)| {
        let mut new = wanted("x", "2001:db8:3::/64", Some("2001:db8:3::1"));
        change(&mut new);
        sim_refuses(&mut Sim::new(1), new)
    };
    assert!(with(|new| new.ipv6 = false).contains("add --ipv6, or leave the subnet out"));
    assert!(with(|new| new.subnet6 = None).contains("need a --subnet that they are part of"));
    let ingress = sim.tables.ingress().unwrap().id.clone();
    let changes = crate::control::network::remove(&sim.tables, &ingress).unwrap();
    sim.apply(changes);
    let refused = sim_refuses(&mut sim, NewNetwork { ingress: true, ..wanted("x", "2001:db8:3::/64", None) });
    assert!(refused.contains("cannot be that of the ingress network"), "{refused}");
    let made = |sim: &mut Sim, new| {
        let id = sim.network(new).unwrap();
        sim.tables.get::<Network>(&id).unwrap().spec.clone()
    };
    let spec = made(&mut sim, wanted("x", "2001:db8:3::/64", None));
    assert_eq!(spec.ipam.ipv6.unwrap().gateway.to_string(), "2001:db8:3::a09:1", "what goes with the IPv4 one");
    assert_eq!(spec.ipv6_of([10, 9, 0, 7].into()).to_string(), "2001:db8:3::a09:7/64");
    // Stack files are written like that.
    let chosen = NewNetwork { subnet: None, ..wanted("z", "2001:db8:5::/64", Some("2001:db8:5::1")) };
    assert_eq!(made(&mut sim, chosen).ipam.ipv6.unwrap().gateway.to_string(), "2001:db8:5::1");
}

fn sim_refuses(sim: &mut Sim, new: NewNetwork) -> String {
    sim.network(new).unwrap_err().to_string()
}

#[test]
fn gateway_and_range_are_parts_of_the_subnet() {
    let mut sim = Sim::new(0);
    let ask = |gateway: Option<&str>, range: Option<&str>| NewNetwork {
        name: "x".to_owned(),
        subnet: Some(net("10.9.0.0/24")),
        gateway: gateway.map(|text| text.parse().unwrap()),
        range: range.map(net),
        ..Default::default()
    };
    for (gateway, range, fragment) in [
        (Some("10.9.1.1"), None, "the gateway 10.9.1.1 is no host's address in 10.9.0.0/24"),
        (Some("10.9.0.0"), None, "gateway"),
        (Some("10.9.0.255"), None, "gateway"),
        (None, Some("10.9.1.0/25"), "the range 10.9.1.0/25 is not within 10.9.0.0/24"),
        (None, Some("10.9.0.0/16"), "range"),
    ] {
        let refused = sim.network(ask(gateway, range)).unwrap_err().to_string();
        assert!(refused.contains(fragment), "{gateway:?} {range:?}: {refused}");
    }
    let without = NewNetwork { subnet: None, ..ask(Some("10.9.0.1"), None) };
    assert!(sim.network(without).unwrap_err().to_string().contains("need a --subnet"));
    let id = sim.network(ask(Some("10.9.0.129"), Some("10.9.0.130/30"))).unwrap();
    let mut pools = Pools::new(&sim.tables);
    let given: Vec<_> = std::iter::from_fn(|| pools.take(&id).ok()).map(|addr| addr.to_string()).collect();
    assert_eq!(given, ["10.9.0.128/24", "10.9.0.130/24", "10.9.0.131/24"]);
    assert!(pools.check(&id).unwrap_err().to_string().contains("no address is left on network x (10.9.0.128/30)"));
}

#[test]
fn numbers_go_onward_and_leave_out_the_data_planes_own() {
    let mut sim = Sim::new(0);
    let vni = |sim: &mut Sim, name: &str| {
        let id = sim.network(NewNetwork { name: name.to_owned(), ..Default::default() }).unwrap();
        (sim.tables.get::<Network>(&id).unwrap().vni, id)
    };
    let (first, id) = vni(&mut sim, "a");
    assert_eq!((sim.tables.ingress().unwrap().vni, first), (4096, 4097));
    sim.apply(vec![Change::Delete(skep_store::Key::Network(id))]);
    assert_eq!(vni(&mut sim, "b").0, 4098, "not the number of the one that is gone");
    let last = |sim: &mut Sim, last_vni: u32| {
        let cluster = skep_model::Cluster { last_vni, ..sim.tables.cluster().unwrap().as_ref().clone() };
        sim.apply(vec![cluster.into()]);
    };
    last(&mut sim, 0x0073_6aff);
    assert_eq!(vni(&mut sim, "c").0, 0x0073_6c00);
    last(&mut sim, 0x00ff_ffff);
    assert_eq!(vni(&mut sim, "d").0, 4097, "from the beginning again, without those in use");
    assert_eq!(vni(&mut sim, "e").0, 4099);
}
