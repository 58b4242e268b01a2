//! What labels say of ports, which ports cannot be had, and how long many of them take.

use std::time::Instant;

use skep_model::PublishMode::{Host, Ingress};

use super::*;

fn label(spec: &mut ServiceSpec, label: &str, value: &str) {
    spec.labels.insert(label.to_owned(), value.to_owned());
}

fn range(name: &str, ports: std::ops::Range<u16>, protocol: Protocol) -> ServiceSpec {
    let ports: Vec<_> = ports.map(|port| (80, Some(port), Ingress)).collect();
    let mut spec = publish(spec(name, 1), &ports);
    spec.endpoint.iter_mut().flat_map(|e| &mut e.ports).for_each(|port| port.protocol = protocol);
    spec
}

#[test]
fn a_bad_label_is_refused_and_nothing_is_stored() {
    let mut sim = Sim::new(0);
    let mut web = publish(spec("web", 1), &[(80, Some(8080), Ingress), (81, Some(8081), Host)]);
    label(&mut web, "skep.publish.8082.lb", "maglev");
    let refused = sim.create(web.clone()).unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::InvalidArgument);
    assert!(
        refused.to_string().contains("\"skep.publish.8082.lb\": the service does not publish port 8082"),
        "{refused}"
    );
    assert!(sim.tables.all::<Service>().next().is_none());
    web.labels.clear();
    label(&mut web, "skep.publish.8080-8081.sources", "10.0.0.0/8");
    let id = sim.create(web).unwrap();
    let version = sim.tables.get::<Service>(&id).unwrap().meta.version;
    let refused = sim.update(&id, |spec| label(spec, "skep.publish.8080.sources", "192.0.2.0/24")).unwrap_err();
    assert!(refused.to_string().contains("both set sources of port 8080/tcp"), "{refused}");
    let refused = sim.update(&id, |spec| *spec = publish(spec.clone(), &[(80, Some(8080), Ingress)])).unwrap_err();
    assert!(refused.to_string().contains("does not publish port 8081"), "{refused}");
    let service = sim.tables.get::<Service>(&id).unwrap();
    assert_eq!((service.meta.version, service.spec.labels.len()), (version, 1));
}

#[test]
fn a_label_may_name_the_number_that_was_chosen() {
    let mut sim = Sim::new(0);
    let id = sim.create(publish(spec("web", 1), &[(80, None, Ingress)])).unwrap();
    sim.update(&id, |spec| label(spec, "skep.publish.30000.affinity", "client-ip")).unwrap();
    assert!(sim.update(&id, |spec| label(spec, "skep.publish.30001.drain", "1s")).is_err());
}

#[test]
fn rolling_back_checks_the_labels_of_then() {
    let mut sim = Sim::new(0);
    let mut web = publish(spec("web", 1), &[(80, None, Ingress)]);
    let id = sim.create(web.clone()).unwrap();
    sim.update(&id, |spec| label(spec, "skep.publish.30000.drain", "1s")).unwrap();
    sim.update(&id, |spec| {
        spec.labels.clear();
        spec.endpoint = None;
    })
    .unwrap();
    web.name = "other".parse().unwrap();
    sim.create(web).unwrap();
    let version = sim.tables.get::<Service>(&id).unwrap().meta.version;
    let refused = service::rollback(&sim.tables, &id, version, sim.now).unwrap_err();
    assert!(refused.to_string().contains("but 30001/tcp"), "{refused}");
}

#[test]
fn ports_of_the_nodes_own_are_refused_for_every_protocol() {
    let mut sim = Sim::new(0);
    let manager = sim.nodes()[0].clone();
    sim.node(&manager, |node| node.manager.as_mut().unwrap().addr.set_port(3377));
    for (port, what) in [
        (22, "SSH"),
        (2375, "Docker API"),
        (2376, "Docker API"),
        (2377, "managers"),
        (3377, "managers"),
        (7946, "talk"),
        (4789, "overlay"),
    ] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let refused = sim.create(range("x", port..port + 1, protocol)).unwrap_err().to_string();
            assert!(refused.contains(&format!("port '{port}'")) && refused.contains(what), "{refused}");
        }
    }
    sim.create(range("x", 9999..10_000, Protocol::Sctp)).unwrap();
}

/// The bound is ten times what a debug build takes on a slow machine; with a loop in a loop it would be minutes.
#[test]
fn ten_thousand_ports_beside_thousands_of_services_take_no_time() {
    let mut sim = Sim::new(1);
    for number in 0..3000u16 {
        let name = format!("s{number}");
        let id = ServiceId::random();
        let port = skep_model::PublishedPort {
            protocol: Protocol::Tcp,
            target: 80.try_into().unwrap(),
            published: (10_000 + number).try_into().unwrap(),
            mode: Ingress,
        };
        let service = Service {
            id,
            meta: skep_model::Meta::new(sim.now),
            spec: spec(&name, 0),
            previous_spec: None,
            task_version: sim.tables.version(),
            endpoint: skep_model::Endpoint { ports: vec![port], ..Default::default() },
            update_status: None,
        };
        sim.apply(vec![service.into()]);
    }
    let mut many = range("many", 20_000..30_000, Protocol::Udp);
    for port in 20_000..30_000 {
        label(&mut many, &format!("skep.publish.{port}/udp.idle-timeout"), "10s");
    }
    label(&mut many, "skep.publish.20000-29999.sources", "10.0.0.0/8");
    let began = Instant::now();
    let id = sim.create(many).unwrap();
    sim.update(&id, |spec| label(spec, "skep.publish.20000-29999.affinity", "client-ip")).unwrap();
    // All that there are to choose from.
    let ports: Vec<_> = (0..2768).map(|_| (80, None, Ingress)).collect();
    let chosen = sim.create(publish(spec("chosen", 1), &ports)).unwrap();
    sim.update(&chosen, |spec| label(spec, "skep.publish.32767.lb", "local-first")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(published(&sim, &chosen), (30_000..=32_767).collect::<Vec<_>>());
}
