//! A small swarm with names, and how to ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use skep_dns::{Answer, Question, Received, Scope, answer, inside};
use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, IpamConfig, Meta, Network, NetworkId, NetworkSpec, ServiceEntry,
    ServiceId, ServiceNetwork, TaskId, Timestamp, Version, VirtualIp,
};
use skep_netdb::Located;

/// An identifier that is 25 times the same digit.
pub(crate) fn id<T: FromStr<Err: std::fmt::Debug>>(digit: char) -> T {
    digit.to_string().repeat(25).parse().unwrap()
}

pub(crate) fn network(digit: char, name: &str, subnet: &str) -> Network {
    Network {
        id: id(digit),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec: NetworkSpec {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            ipam: IpamConfig {
                subnet: subnet.parse().unwrap(),
                gateway: Ipv4Addr::UNSPECIFIED,
                range: None,
                ipv6: None,
            },
            ingress: false,
            internal: false,
            attachable: false,
            ipv6: false,
            options: BTreeMap::new(),
        },
        vni: 4097,
        last: None,
        retired: false,
    }
}

/// A service on networks, each with the service's own address there (if it has one) and its aliases.
pub(crate) fn service(digit: char, name: &str, on: &[(char, Option<&str>, &[&str])]) -> ServiceEntry {
    let ip = |(network, address, _): &(char, Option<&str>, &[&str])| {
        let addr = format!("{}/24", (*address)?).parse().unwrap();
        Some(VirtualIp { network: id(*network), addr })
    };
    let networks = on.iter().map(|(network, _, aliases)| ServiceNetwork {
        network: id(*network),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
    });
    ServiceEntry {
        id: id(digit),
        name: name.to_owned(),
        version: Version(1),
        ports: Vec::new(),
        options: Vec::new(),
        virtual_ips: on.iter().filter_map(ip).collect(),
        networks: networks.collect(),
    }
}

pub(crate) fn endpoint(
    network: char,
    (task, service, names): (char, char, &[&str]),
    addr: [u8; 4],
    state: EndpointState,
) -> (EndpointKey, Located) {
    let record = EndpointRecord {
        service: id::<ServiceId>(service),
        addr: addr.into(),
        state,
        weight: 1,
        aliases: names.iter().map(|name| (*name).to_owned()).collect(),
        host_ports: Vec::new(),
    };
    (EndpointKey { network: id(network), task: id(task) }, Located { owner: id('1'), record: record.into() })
}

/// On `app` (n): web with an address of its own, api without, one that nobody serves at present; on `Back.End` (m): web again, db.
pub(crate) struct World {
    pub(crate) networks: Vec<Network>,
    pub(crate) services: Vec<ServiceEntry>,
    pub(crate) endpoints: BTreeMap<EndpointKey, Located>,
}

impl World {
    pub(crate) fn new() -> Self {
        use EndpointState::{Draining, Ready, Starting};
        let services = vec![
            service('w', "web", &[('n', Some("10.1.0.2"), &["www"]), ('m', Some("10.2.0.2"), &[])]),
            service('a', "Api", &[('n', None, &["rpc", "shared"])]),
            service('e', "empty", &[('n', None, &[])]),
            service('d', "db", &[('m', Some("10.2.0.9"), &[])]),
            service('s', "second", &[('n', Some("10.1.0.3"), &["shared"])]),
        ];
        let endpoints = [
            endpoint('n', ('b', 'w', &["web.1", "box1"]), [10, 1, 0, 11], Ready),
            endpoint('n', ('c', 'w', &["web.2", "box2"]), [10, 1, 0, 12], Ready),
            endpoint('n', ('d', 'w', &["web.2", "box3"]), [10, 1, 0, 13], Draining),
            endpoint('m', ('b', 'w', &["web.1", "box1"]), [10, 2, 0, 11], Ready),
            endpoint('n', ('f', 'a', &["Api.1", "web"]), [10, 1, 0, 21], Ready),
            endpoint('n', ('g', 'a', &["Api.2", "early"]), [10, 1, 0, 22], Starting),
            endpoint('m', ('h', 'd', &["db.1", "box9"]), [10, 2, 0, 19], Ready),
        ];
        Self {
            networks: vec![network('n', "app", "10.1.0.0/24"), network('m', "Back.End", "10.2.0.0/24")],
            services,
            endpoints: endpoints.into(),
        }
    }

    pub(crate) fn scope(&self, networks: &[char], own: Option<char>) -> Scope {
        let zone = |digit: &char| {
            let wanted = id::<NetworkId>(*digit);
            let network = self.networks.iter().find(|network| network.id == wanted).unwrap();
            Arc::new(inside::zone(
                network,
                self.services.iter(),
                self.endpoints.iter().filter(|(key, _)| key.network == wanted),
            ))
        };
        Scope { zones: networks.iter().map(zone).collect(), own: own.map(id::<TaskId>) }
    }
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x5e9, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message
}

pub(crate) fn with_room(mut query: Message, room: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(room).set_version(0);
    query.set_edns(edns);
    query
}

pub(crate) fn question(message: &Message) -> Question {
    match Question::read(&message.to_vec().unwrap()) {
        Received::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

/// What comes back as seen by whoever asks; `None` when others are asked.
pub(crate) fn ask(scope: &Scope, name: &str, kind: RecordType) -> Option<Message> {
    let question = question(&query(name, kind));
    match answer(&question, scope, &mut StdRng::seed_from_u64(7)) {
        Answer::Known(reply) => Some(Message::from_vec(&question.reply(reply, question.room())).unwrap()),
        Answer::Unknown => None,
    }
}

/// The answers as text, sorted: `A 10.0.0.1`.
pub(crate) fn told(message: &Message) -> Vec<String> {
    let mut told: Vec<_> = message.answers.iter().map(|record| text(&record.data)).collect();
    told.sort();
    told
}

pub(crate) fn text(data: &RData) -> String {
    let address = |ip: IpAddr| ip.to_string();
    match data {
        RData::A(a) => format!("A {}", address(a.0.into())),
        RData::AAAA(a) => format!("AAAA {}", address(a.0.into())),
        RData::PTR(name) => format!("PTR {}", name.0),
        RData::SRV(srv) => format!("SRV {} {} {} {}", srv.priority, srv.weight, srv.port, srv.target),
        other => format!("{other:?}"),
    }
}
