//! Services on networks: addresses, and what a change of networks does.

use std::time::Instant;

use skep_model::{EndpointMode, Network, NetworkId, NewNetwork};

use super::*;
use crate::control::network::unused;

fn on(mut spec: ServiceSpec, networks: &[&NetworkId]) -> ServiceSpec {
    spec.task.networks = networks.iter().map(|network| ((*network).clone(), Vec::new())).collect();
    spec
}

fn named(name: &str) -> NewNetwork {
    NewNetwork { name: name.to_owned(), ..Default::default() }
}

fn small(name: &str, subnet: &str) -> NewNetwork {
    NewNetwork { subnet: Some(subnet.parse().unwrap()), ..named(name) }
}

fn vips(sim: &Sim, id: &ServiceId) -> Vec<(NetworkId, String)> {
    let service = sim.tables.get::<Service>(id).unwrap();
    service.endpoint.virtual_ips.iter().map(|vip| (vip.network.clone(), vip.addr.to_string())).collect()
}

fn networks_of(task: &Task) -> Vec<NetworkId> {
    task.attachments.iter().map(|attachment| attachment.network.clone()).collect()
}

fn remove_service(sim: &mut Sim, id: &ServiceId) {
    sim.apply(vec![Change::Delete(Key::Service(id.clone()))]);
}

#[test]
fn a_service_has_an_address_on_each_network_and_so_has_every_task() {
    let mut sim = Sim::new(1);
    let (front, back) = (sim.network(named("front")).unwrap(), sim.network(named("back")).unwrap());
    let ingress = sim.tables.ingress().unwrap().id.clone();
    let web = publish(on(spec("web", 3), &[&front, &back]), &[(80, Some(8080), PublishMode::Ingress)]);
    let id = sim.create(web).unwrap();
    let of: Vec<_> = vips(&sim, &id).into_iter().map(|(network, _)| network).collect();
    assert_eq!(of, [ingress.clone(), front.clone(), back.clone()]);
    sim.settle();
    let running = sim.running(&id);
    assert_eq!(running.len(), 3);
    assert!(running.iter().all(|task| networks_of(task) == [ingress.clone(), front.clone(), back.clone()]));

    let before = vips(&sim, &id);
    let inside = sim.create(on(spec("inside", 1), &[&back])).unwrap();
    assert_eq!(vips(&sim, &inside).len(), 1, "none on the routing mesh without a port");
    // Neither kept nor lost addresses depend on the order.
    sim.update(&id, |spec| *spec = on(spec.clone(), &[&back])).unwrap();
    assert_eq!(vips(&sim, &id), [before[0].clone(), before[2].clone()]);
    sim.update(&id, |spec| *spec = on(spec.clone(), &[&back, &front])).unwrap();
    assert_eq!(vips(&sim, &id)[1], before[2]);
    assert_ne!(vips(&sim, &id)[2], before[1], "it was given up, and is left alone for a while");
}

#[test]
fn other_networks_and_aliases_replace_tasks_and_another_endpoint_mode_does_not() {
    let mut sim = Sim::new(1);
    let net = sim.network(named("net")).unwrap();
    let id = sim.create(on(spec("web", 2), &[&net])).unwrap();
    sim.pass(8);
    let ids = |sim: &Sim| sim.running(&id).into_iter().map(|task| task.id).collect::<BTreeSet<_>>();
    let before = ids(&sim);
    let mode = |sim: &mut Sim, mode| {
        sim.update(&id, |spec| spec.endpoint = Some(EndpointSpec { mode: Some(mode), ports: Vec::new() })).unwrap();
        sim.pass(8);
    };
    mode(&mut sim, EndpointMode::Dnsrr);
    assert_eq!((ids(&sim), vips(&sim, &id)), (before.clone(), Vec::new()));
    mode(&mut sim, EndpointMode::Vip);
    assert_eq!((ids(&sim), vips(&sim, &id).len()), (before.clone(), 1));
    sim.update(&id, |spec| spec.task.networks[0].1.push("db.internal".to_owned())).unwrap();
    sim.pass(20);
    assert!(ids(&sim).is_disjoint(&before));
    let before = ids(&sim);
    sim.update(&id, |spec| spec.task.networks.clear()).unwrap();
    sim.pass(20);
    assert!(ids(&sim).is_disjoint(&before) && ids(&sim).len() == 2);
    assert!(sim.running(&id).iter().all(|task| task.attachments.len() == 1));
}

#[test]
fn networks_that_make_no_sense_are_refused() {
    let mut sim = Sim::new(0);
    let net = sim.network(named("net")).unwrap();
    let ingress = sim.tables.ingress().unwrap().id.clone();
    let mut refused = |spec: ServiceSpec, fragment: &str| {
        let refused = sim.create(spec).unwrap_err().to_string();
        assert!(refused.contains(fragment), "{refused}");
    };
    refused(on(spec("web", 1), &[&ingress]), "cannot be explicitly attached to the ingress network");
    refused(on(spec("web", 1), &[&net, &net]), "network net is listed twice");
    let gone = NetworkId::random();
    refused(on(spec("web", 1), &[&gone]), &format!("network {gone} not found"));
    for bad in ["", "a b", ".a", "-a"] {
        let mut web = on(spec("web", 1), &[&net]);
        web.task.networks[0].1.push(bad.to_owned());
        refused(web, "is no name");
    }
    for (new, fragment) in [
        (named("net"), "network with name net already exists"),
        (named("a b"), "name must be valid as a DNS name component"),
        (named(""), "name must be valid as a DNS name component"),
        (NewNetwork { ingress: true, ..named("second") }, "is already present"),
    ] {
        let refused = sim.network(new).unwrap_err().to_string();
        assert!(refused.contains(fragment), "{refused}");
    }
}

#[test]
fn a_network_goes_once_no_service_and_no_task_that_is_to_run_is_on_it() {
    let mut sim = Sim::new(1);
    let (net, other) = (sim.network(named("net")).unwrap(), sim.network(named("other")).unwrap());
    let id = sim.create(on(spec("web", 2), &[&net])).unwrap();
    sim.settle();
    let refused = unused(&sim.tables, &net).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("network {net} is in use by service {id} (web)")), "{refused}");
    sim.update(&id, |spec| *spec = on(spec.clone(), &[&other])).unwrap();
    let refused = unused(&sim.tables, &net).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("network {net} is in use by task ")), "{refused}");
    sim.pass(20);
    unused(&sim.tables, &net).unwrap();
    // `docker stack rm` removes the services and, before anything has stopped, their networks.
    remove_service(&mut sim, &id);
    unused(&sim.tables, &other).unwrap();
    sim.apply(vec![Change::Delete(Key::Network(other.clone()))]);
    sim.settle();
    assert!(sim.tables.all::<Task>().next().is_none());
    let ingress = sim.tables.ingress().unwrap().id.clone();
    let published = sim.create(publish(spec("web", 1), &[(80, None, PublishMode::Ingress)])).unwrap();
    let refused = unused(&sim.tables, &ingress).unwrap_err().to_string();
    assert_eq!(refused, format!("ingress network cannot be removed because service {published} depends on it"));
    remove_service(&mut sim, &published);
    unused(&sim.tables, &ingress).unwrap();
}

#[test]
fn tasks_wait_for_an_address_say_so_and_start_when_there_is_room() {
    let mut sim = Sim::new(1);
    // Six hosts: a gateway, an address of the service, and four tasks.
    let net = sim.network(small("tiny", "10.9.0.0/29")).unwrap();
    let id = sim.create(on(spec("web", 6), &[&net])).unwrap();
    sim.settle();
    assert_eq!(sim.running(&id).len(), 4);
    let said: Vec<_> = sim.tasks(&id).into_iter().filter_map(|task| task.status.err).collect();
    assert_eq!(said.len(), 2);
    assert!(said[0].contains("no address is left on network tiny (10.9.0.0/29): remove services"), "{said:?}");
    let ingress = sim.tables.ingress().unwrap().last;
    assert!(!sim.step(), "what waits must not keep the planner busy");
    assert_eq!(sim.tables.ingress().unwrap().last, ingress);
    let refused = sim.create(on(spec("more", 0), &[&net])).unwrap_err();
    assert!(refused.to_string().contains("no address is left"), "{refused}");
    sim.update(&id, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 }).unwrap();
    sim.settle();
    let more = sim.create(on(dnsrr(spec("more", 1)), &[&net])).unwrap();
    sim.settle();
    assert!(sim.running(&more).is_empty());
    sim.update(&id, |spec| spec.mode = ServiceMode::Replicated { replicas: 3 }).unwrap();
    sim.settle();
    assert_eq!((sim.running(&id).len(), sim.running(&more).len()), (3, 1));
    assert!(sim.tasks(&more).iter().all(|task| task.status.err.is_none()));
}

fn dnsrr(mut spec: ServiceSpec) -> ServiceSpec {
    spec.endpoint = Some(EndpointSpec { mode: Some(EndpointMode::Dnsrr), ports: Vec::new() });
    spec
}

#[test]
fn an_address_is_given_again_only_after_all_others() {
    let mut sim = Sim::new(1);
    let net = sim.network(small("net", "10.9.0.0/24")).unwrap();
    let mut given = Vec::new();
    // Services and tasks come and go, and nothing in the tables remembers them.
    for round in 0..60 {
        let id = sim.create(on(spec(&format!("web{round}"), 3), &[&net])).unwrap();
        sim.settle();
        given.push(sim.tables.get::<Service>(&id).unwrap().endpoint.virtual_ips[0].addr.addr());
        given.extend(sim.running(&id).iter().map(|task| task.attachments[1].addr.addr()));
        remove_service(&mut sim, &id);
        sim.settle();
    }
    assert_eq!(given.len(), 240);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 240);
}

#[test]
fn a_task_whose_network_was_removed_meanwhile_says_so_and_an_update_gets_it_out() {
    let mut sim = Sim::new(0);
    let net = sim.network(named("net")).unwrap();
    let id = sim.create(on(spec("web", 1), &[&net])).unwrap();
    // Another manager may have removed it in the same instant.
    sim.apply(vec![Change::Delete(Key::Network(net.clone()))]);
    sim.settle();
    let said = sim.tasks(&id)[0].status.err.clone().unwrap();
    assert!(said.contains(&format!("network {net} is not there any more")), "{said}");
    let refused = sim.update(&id, |spec| spec.task.force_update += 1).unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::NotFound);
    sim.update(&id, |spec| spec.task.networks.clear()).unwrap();
    sim.pass(10);
    assert_eq!(sim.running(&id).len(), 1);
    let version = sim.tables.get::<Service>(&id).unwrap().meta.version;
    let refused = service::rollback(&sim.tables, &id, version, sim.now).unwrap_err();
    assert!(refused.to_string().contains("not found"), "{refused}");
}

#[test]
fn a_failing_update_is_not_rolled_back_onto_a_network_that_is_gone() {
    let mut sim = Sim::new(1);
    let (old, new) = (sim.network(named("old")).unwrap(), sim.network(named("new")).unwrap());
    sim.broken.insert("web:2".to_owned());
    let mut web = on(spec("web", 1), &[&old]);
    web.update = Some(UpdateConfig { failure_action: FailureAction::Rollback, ..Default::default() });
    let id = sim.create(web).unwrap();
    sim.settle();
    sim.update(&id, |spec| {
        spec.task.container.image = "web:2".to_owned();
        *spec = on(spec.clone(), &[&new]);
    })
    .unwrap();
    sim.apply(vec![Change::Delete(Key::Network(old.clone()))]);
    sim.pass(10);
    let status = sim.tables.get::<Service>(&id).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Paused);
    assert!(
        status.message.contains(&format!("it cannot be rolled back: network {old} not found")),
        "{}",
        status.message
    );
}

#[test]
fn a_node_whose_routes_lead_into_a_network_does_not_join() {
    let mut sim = Sim::new(0);
    sim.network(small("net", "10.9.0.0/16")).unwrap();
    let joining = Joining {
        role: Role::Worker,
        credential: "key".to_owned(),
        description: NodeDescription::default(),
        addr: "192.0.2.9".parse().unwrap(),
        availability: Availability::Active,
        routes: vec!["10.9.8.0/24".parse().unwrap()],
    };
    let refused = join(&sim.tables, joining, sim.now).unwrap_err().to_string();
    assert!(refused.contains("network net (10.9.0.0/16) collides with the route to 10.9.8.0/24"), "{refused}");
    assert!(refused.contains("replace the network by one with another --subnet"), "{refused}");
}

/// The bound is ten times what a debug build takes; with a look at all tasks for each it would be hours.
#[test]
fn ten_thousand_tasks_on_three_networks_get_their_addresses_in_no_time() {
    let mut sim = Sim::new(9);
    let (a, b) = (sim.network(named("a")).unwrap(), sim.network(named("b")).unwrap());
    for number in 0..300 {
        sim.network(small(&format!("n{number}"), &format!("10.{}.{}.0/24", 200 + number / 256, number % 256))).unwrap();
    }
    let id = sim.create(on(spec("web", 10_000), &[&a, &b])).unwrap();
    let began = Instant::now();
    let changes = plan(&sim.tables, &Dirty::All, sim.now, 1).changes;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    sim.apply(changes);
    let tasks = sim.tasks(&id);
    assert!(tasks.iter().all(|task| task.attachments.len() == 3 && task.status.state == TaskState::Assigned));
    let addrs: BTreeSet<_> = tasks.iter().flat_map(|task| &task.attachments).map(|at| at.addr.addr()).collect();
    assert_eq!(addrs.len(), 30_000);
}

/// Nobody's addresses are anybody else's, all lie in their networks, and what runs is on the networks that it asks for.
fn check(sim: &Sim) -> Result<(), TestCaseError> {
    let mut taken: BTreeMap<(NetworkId, std::net::Ipv4Addr), String> = BTreeMap::new();
    let mut take = |network: &NetworkId, addr: std::net::Ipv4Addr, who: String| {
        let Some(known) = sim.tables.get::<Network>(network) else { return Ok(()) };
        let subnet = known.spec.ipam.subnet;
        prop_assert!(subnet.contains(&addr) && addr != subnet.network() && addr != subnet.broadcast());
        let before = taken.insert((network.clone(), addr), who.clone());
        prop_assert!(before.is_none(), "{addr} is of {who} and of {before:?}");
        Ok(())
    };
    for network in sim.tables.all::<Network>() {
        take(&network.id, network.spec.ipam.gateway, format!("gateway of {}", network.spec.name))?;
    }
    let ingress = sim.tables.ingress().unwrap().id.clone();
    for node in sim.tables.all::<Node>() {
        take(&ingress, node.overlay_addr.unwrap(), format!("node {}", node.id))?;
    }
    for service in sim.tables.all::<Service>() {
        for vip in &service.endpoint.virtual_ips {
            take(&vip.network, vip.addr.addr(), format!("service {}", service.spec.name))?;
        }
    }
    for task in sim.tables.all::<Task>() {
        let may_run = !task.status.state.is_terminal() && task.status.state >= TaskState::Assigned;
        for attachment in task.attachments.iter().filter(|_| may_run || task.is_live()) {
            take(&attachment.network, attachment.addr.addr(), format!("task {}", task.id))?;
        }
        if may_run {
            let asked = std::iter::once(&ingress).chain(task.spec.networks.iter().map(|(network, _)| network));
            prop_assert_eq!(networks_of(task), asked.cloned().collect::<Vec<_>>());
        }
    }
    Ok(())
}

proptest! {
    /// Services and networks come, change and go, nodes are lost and come back, leaders change between any two steps (they remember nothing).
    #[test]
    fn no_address_is_ever_two_things(steps in prop::collection::vec((0u8..10, 0usize..4, 0u64..7), 1..40)) {
        let mut sim = Sim::new(2);
        let mut networks = vec![sim.network(small("n0", "10.9.0.0/28")).unwrap(), sim.network(named("n1")).unwrap()];
        let mut services = Vec::new();
        for (number, (what, which, count)) in steps.into_iter().enumerate() {
            let mask = |networks: &[NetworkId]| -> Vec<NetworkId> {
                let chosen = networks.iter().enumerate().filter(|(at, _)| (count >> at) & 1 == 1);
                chosen.map(|(_, network)| network.clone()).collect()
            };
            let chosen = mask(&networks);
            let chosen: Vec<_> = chosen.iter().collect();
            let some = (!services.is_empty()).then(|| which % services.len().max(1));
            let node = sim.nodes()[which % 3].clone();
            match (what, some) {
                (0 | 1, _) => {
                    let mut new = on(spec(&format!("s{number}"), count), &chosen);
                    if which == 0 {
                        new = publish(new, &[(80, None, PublishMode::Ingress)]);
                    }
                    services.extend(sim.create(new));
                }
                (2, Some(at)) => drop(sim.update(&services[at], |spec| *spec = on(spec.clone(), &chosen))),
                (3, Some(at)) => drop(sim.update(&services[at], |s| s.mode = ServiceMode::Replicated { replicas: count })),
                (4, Some(at)) => {
                    let service = services.swap_remove(at);
                    remove_service(&mut sim, &service);
                }
                (5, Some(at)) => drop(sim.update(&services[at], |spec| *spec = match which {
                    0 | 1 => dnsrr(spec.clone()),
                    _ => ServiceSpec { endpoint: None, ..spec.clone() },
                })),
                (6, _) if networks.len() < 4 => networks.extend(sim.network(named(&format!("n{number}")))),
                (7, _) => networks.retain(|network| {
                    let goes = unused(&sim.tables, network).is_ok();
                    if goes {
                        sim.apply(vec![Change::Delete(Key::Network(network.clone()))]);
                    }
                    !goes
                }),
                (8, _) => sim.apply(lose(&sim.tables, &[dead(&node)], "heartbeat failure")),
                (9, _) => sim.node(&node, |node| node.status.state = NodeState::Ready),
                _ => {}
            }
            check(&sim)?;
            for _ in 0..count {
                sim.step();
                check(&sim)?;
            }
        }
        for node in sim.nodes() {
            sim.node(&node, |node| node.status.state = NodeState::Ready);
        }
        sim.pass(40);
        check(&sim)?;
        for service in sim.tables.all::<Service>() {
            let vip = service.spec.endpoint.as_ref().is_none_or(|e| e.mode != Some(EndpointMode::Dnsrr));
            let meshed = !service.endpoint.ports.is_empty();
            let expected = if vip { usize::from(meshed) + service.spec.task.networks.len() } else { 0 };
            prop_assert_eq!(service.endpoint.virtual_ips.len(), expected);
        }
    }
}
