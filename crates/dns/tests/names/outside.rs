//! What programs outside of the swarm are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::{World, ask, id, told};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skep_dns::{Scope, Zone, outside};
use skep_model::{EndpointState, Member, Protocol, PublishMode, PublishedPort};
use skep_netdb::View;

use EndpointState::{Draining, Ready};
use RecordType::{A, AAAA, PTR, SRV};

fn port(target: u16, published: u16, mode: PublishMode) -> PublishedPort {
    let n = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol: Protocol::Tcp, target: n(target), published: n(published), mode }
}

/// `lb` publishes a port of its tasks' nodes, `site` one of every node, `web` none. Nodes 1 and 2 are alive, 3 is not.
fn zones(only: &[&str]) -> Vec<Arc<Zone>> {
    let base = World::new();
    let mut services = base.services;
    services.push(crate::world::service('l', "lb", &[('n', None, &["balanced"])]));
    let mut site = crate::world::service('i', "site", &[]);
    site.ports = vec![port(80, 8080, PublishMode::Ingress)];
    services.push(site);
    let (mut members, mut endpoints) = (BTreeMap::new(), BTreeMap::new());
    for (digit, hostname, underlay) in
        [('1', "Node-1", "192.0.2.1"), ('2', "node-2", "2001:db8::2"), ('3', "node-3", "192.0.2.3")]
    {
        let member = Member {
            node: id(digit),
            hostname: hostname.to_owned(),
            underlay: underlay.parse().unwrap(),
            overlay: [10, 0, 0, 9].into(),
            alive: digit != '3',
            away: false,
        };
        members.insert(id(digit), member);
    }
    let mut endpoint = |task, service, node, state, host: Option<u16>| {
        // As every task is on the network of the mesh.
        let (key, mut located) = crate::world::endpoint('9', (task, service, &[]), [10, 0, 0, 1], state);
        located.owner = id(node);
        Arc::make_mut(&mut located.record).host_ports =
            host.into_iter().map(|published| port(80, published, PublishMode::Host)).collect();
        endpoints.insert(key, located);
    };
    endpoint('p', 'l', '1', Ready, Some(32768));
    endpoint('q', 'l', '1', Ready, Some(32769));
    endpoint('r', 'l', '2', Ready, Some(32768));
    endpoint('t', 'l', '2', Draining, Some(32770));
    endpoint('u', 'i', '2', Ready, None);
    endpoint('v', 'w', '1', Ready, None);
    for (task, name, port) in [('p', "lb.1", 32768u16), ('q', "lb.2", 32769)] {
        let (key, mut located) = crate::world::endpoint('n', (task, 'l', &[name]), [10, 1, 0, 9], Ready);
        located.owner = id('1');
        assert!(port > 0 && located.record.host_ports.is_empty());
        endpoints.insert(key, located);
    }
    let view = View { members: members.into(), endpoints: endpoints.into_iter().collect(), ..View::default() };
    let networks: BTreeMap<_, _> = base.networks.into_iter().map(|network| (network.id.clone(), network)).collect();
    let services: BTreeMap<_, _> = services.into_iter().map(|service| (service.id.clone(), service)).collect();
    let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
    outside::zones(outside::World { services: &services, networks: &networks, view: &view }, &only)
}

fn check(zones: &[Arc<Zone>], table: &[(&str, RecordType, Option<&[&str]>)]) {
    let scope = Scope { zones: zones.to_vec(), own: None };
    for (name, kind, comes) in table {
        let got = ask(&scope, name, *kind);
        let got = got.as_ref().map(|message| (told(message), message.response_code));
        let expected = comes.map(|records| {
            let mut records: Vec<_> = records.iter().map(|record| (*record).to_owned()).collect();
            records.sort();
            (records, ResponseCode::NoError)
        });
        assert_eq!(got, expected, "{name} {kind}");
    }
}

#[test]
fn ports_of_nodes_are_what_names_lead_to() {
    let lb: &[&str] = &["SRV 0 1 32768 node-1.nodes.", "SRV 0 1 32769 node-1.nodes.", "SRV 0 1 32768 node-2.nodes."];
    check(
        &zones(&[]),
        &[
            // On the nodes of its tasks.
            ("lb", A, Some(&["A 192.0.2.1"])),
            ("lb", AAAA, Some(&["AAAA 2001:db8::2"])),
            ("tasks.lb", A, Some(&["A 192.0.2.1"])),
            ("balanced", A, Some(&["A 192.0.2.1"])),
            ("lb.app", A, Some(&["A 192.0.2.1"])),
            ("_80._tcp.lb", SRV, Some(lb)),
            ("_80._tcp.tasks.lb.app", SRV, Some(lb)),
            ("_80._udp.web", SRV, Some(&[])),
            ("lb.2", A, Some(&["A 192.0.2.1"])),
            ("_80._tcp.lb.2", SRV, Some(&["SRV 0 1 32769 node-1.nodes."])),
            ("lb.1.ppppppppppppppppppppppppp", A, Some(&["A 192.0.2.1"])),
            // On every node.
            ("site", A, Some(&["A 192.0.2.1"])),
            ("site", AAAA, Some(&["AAAA 2001:db8::2"])),
            ("tasks.site", A, Some(&[])),
            ("tasks.site", AAAA, Some(&["AAAA 2001:db8::2"])),
            ("_80._tcp.site", SRV, Some(&["SRV 0 1 8080 node-1.nodes.", "SRV 0 1 8080 node-2.nodes."])),
            // Nowhere.
            ("web", A, Some(&[])),
            ("tasks.web", A, Some(&[])),
            ("db.back.end", A, Some(&[])),
            // Nodes.
            ("node-1.nodes", A, Some(&["A 192.0.2.1"])),
            ("1111111111111111111111111.nodes", A, Some(&["A 192.0.2.1"])),
            ("node-3.nodes", A, None),
            ("1.2.0.192.in-addr.arpa", PTR, Some(&["PTR node-1.nodes."])),
            ("nosuch", A, None),
        ],
    );
}

#[test]
fn a_port_that_leads_nowhere_has_no_name() {
    let scope = Scope { zones: zones(&[]), own: None };
    let got = ask(&scope, "_443._tcp.lb", SRV).unwrap();
    assert_eq!((told(&got), got.response_code), (vec![], ResponseCode::NXDomain));
}

#[test]
fn of_the_networks_that_are_meant_only() {
    check(
        &zones(&["app"]),
        &[
            ("lb", A, Some(&["A 192.0.2.1"])),
            ("lb.app", A, Some(&["A 192.0.2.1"])),
            ("site", A, None),
            ("db", A, None),
            ("db.back.end", A, None),
            ("node-1.nodes", A, Some(&["A 192.0.2.1"])),
        ],
    );
}
