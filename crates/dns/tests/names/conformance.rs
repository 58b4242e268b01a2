//! What each question is answered with: the table of `docs/dns.md`.

use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::world::{World, ask, id, query, text, told, with_room};
use hickory_proto::op::{MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use skep_dns::{Question, Received};
use skep_model::{EndpointState, Ipv6Subnet};

use RecordType::{A, AAAA, ANY, HTTPS, MX, PTR, SRV, TXT};

/// What comes of a question.
enum Comes<'a> {
    /// These records, in any order.
    Of(&'a [&'a str]),
    /// The name is there, and has nothing of the kind.
    NoData,
    /// There is no such name, and nobody else is asked.
    NoName,
    /// Others are asked.
    Elsewhere,
}
use Comes::{Elsewhere, NoData, NoName, Of};

const B: &str = "web.1.bbbbbbbbbbbbbbbbbbbbbbbbb";

/// Who asks: its networks and itself; what is asked; what comes of it.
const TABLE: &[(&[char], &str, RecordType, Comes<'_>)] = &[
    // A service with an address of its own.
    (&['n'], "web", A, Of(&["A 10.1.0.2"])),
    (&['n'], "WeB", A, Of(&["A 10.1.0.2"])),
    (&['n'], "web.app", A, Of(&["A 10.1.0.2"])),
    (&['n'], "WEB.APP", A, Of(&["A 10.1.0.2"])),
    (&['n'], "www", A, Of(&["A 10.1.0.2"])),
    (&['n'], "www.app", A, Of(&["A 10.1.0.2"])),
    (&['n'], "web", AAAA, NoData),
    (&['n'], "web", MX, NoData),
    (&['n'], "web", TXT, NoData),
    (&['n'], "web", HTTPS, NoData),
    (&['n'], "web", ANY, Of(&["A 10.1.0.2"])),
    // Its tasks that are ready.
    (&['n'], "tasks.web", A, Of(&["A 10.1.0.11", "A 10.1.0.12"])),
    (&['n'], "tasks.web.app", A, Of(&["A 10.1.0.11", "A 10.1.0.12"])),
    (&['n'], "tasks.www", A, Of(&["A 10.1.0.11", "A 10.1.0.12"])),
    (&['n'], "tasks.web", AAAA, NoData),
    // A service without one.
    (&['n'], "api", A, Of(&["A 10.1.0.21"])),
    (&['n'], "rpc", A, Of(&["A 10.1.0.21"])),
    (&['n'], "tasks.api", A, Of(&["A 10.1.0.21"])),
    // Two services that share an alias.
    (&['n'], "shared", A, Of(&["A 10.1.0.21", "A 10.1.0.3"])),
    // Nobody serves it at present.
    (&['n'], "empty", A, NoData),
    (&['n'], "tasks.empty", A, NoData),
    (&['n'], "tasks.second", A, NoData),
    (&['n'], "second", A, Of(&["A 10.1.0.3"])),
    // Single tasks.
    (&['n'], B, A, Of(&["A 10.1.0.11"])),
    (&['n'], "web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app", A, Of(&["A 10.1.0.11"])),
    (&['n'], "web.1", A, Of(&["A 10.1.0.11"])),
    (&['n'], "web.2", A, Of(&["A 10.1.0.12"])),
    (&['n'], "box1", A, Of(&["A 10.1.0.11"])),
    (&['n'], "box3", A, NoData),
    (&['n'], "early", A, NoData),
    // On two networks: the first that has the name answers, and the network's name chooses. It has a dot itself.
    (&['n', 'm'], "web", A, Of(&["A 10.1.0.2"])),
    (&['m', 'n'], "web", A, Of(&["A 10.2.0.2"])),
    (&['n', 'm'], "web.back.end", A, Of(&["A 10.2.0.2"])),
    (&['n', 'm'], "web.1.Back.End", A, Of(&["A 10.2.0.11"])),
    (&['n', 'm'], "db", A, Of(&["A 10.2.0.9"])),
    // What is on another network is nobody's business.
    (&['n'], "db", A, Elsewhere),
    (&['n'], "web.back.end", A, Elsewhere),
    (&['n'], "db.1", A, Elsewhere),
    (&[], "web", A, Elsewhere),
    // Names that are nobody's here.
    (&['n'], "nosuch", A, Elsewhere),
    (&['n'], "tasks.nosuch", A, Elsewhere),
    (&['n'], "nosuch.app", A, Elsewhere),
    (&['n'], "example.org", A, Elsewhere),
    (&['n'], "web.example.org", A, Elsewhere),
    (&['n'], ".", A, Elsewhere),
    // Names of addresses.
    (&['n'], "11.0.1.10.in-addr.arpa", PTR, Of(&["PTR web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app."])),
    (&['n'], "2.0.1.10.in-addr.arpa", PTR, Of(&["PTR web.app."])),
    (&['n'], "2.0.1.10.in-addr.arpa", A, NoData),
    (
        &['n'],
        "b.0.0.0.1.0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.5.6.b.6.3.7.d.f.ip6.arpa",
        PTR,
        Of(&["PTR web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app."]),
    ),
    (&['n'], "99.0.1.10.in-addr.arpa", PTR, NoName),
    (&['n'], "11.0.2.10.in-addr.arpa", PTR, Elsewhere),
    (&['n'], "1.0.1.10.in-addr.arpa", PTR, NoName),
    (&['n'], "1.10.in-addr.arpa", PTR, Elsewhere),
    (&['n'], "1.2.0.192.in-addr.arpa", PTR, Elsewhere),
    // Ports.
    (&['n'], "_80._tcp.web", SRV, Of(&["SRV 0 1 80 web.app."])),
    (&['n'], "_80._tcp.web.app", SRV, Of(&["SRV 0 1 80 web.app."])),
    (
        &['n'],
        "_80._TCP.tasks.web",
        SRV,
        Of(&["SRV 0 1 80 web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app.", "SRV 0 1 80 web.2.ccccccccccccccccccccccccc.app."]),
    ),
    (&['n'], "_53._udp.api", SRV, Of(&["SRV 0 1 53 api.1.fffffffffffffffffffffffff.app."])),
    (&['n'], "_53._udp.api", A, NoData),
    (&['n'], "_http._tcp.web", SRV, NoName),
    (&['n'], "_0._tcp.web", SRV, NoName),
    (&['n'], "_65536._tcp.web", SRV, NoName),
    (&['n'], "_80._quic.web", SRV, NoName),
    (&['n'], "_80._tcp.empty", SRV, NoData),
    (&['n'], "_80._tcp.nosuch", SRV, Elsewhere),
    (&['n'], "web", SRV, NoData),
];

#[test]
fn every_question_of_the_table() {
    let world = World::new();
    for (networks, name, kind, comes) in TABLE {
        let got = ask(&world.scope(networks, None), name, *kind);
        let what = format!("{name} {kind} of {networks:?}");
        match comes {
            Elsewhere => assert!(got.is_none(), "{what}: {got:?}"),
            Of(records) => {
                let got = got.unwrap_or_else(|| panic!("{what}: others are asked"));
                assert_eq!((told(&got), got.response_code), (words(records), ResponseCode::NoError), "{what}");
            }
            NoData | NoName => {
                let code = if matches!(comes, NoData) { ResponseCode::NoError } else { ResponseCode::NXDomain };
                let got = got.unwrap_or_else(|| panic!("{what}: others are asked"));
                assert_eq!((told(&got), got.response_code), (Vec::new(), code), "{what}");
            }
        }
    }
}

fn words(records: &[&str]) -> Vec<String> {
    let mut words: Vec<_> = records.iter().map(|record| (*record).to_owned()).collect();
    words.sort();
    words
}

#[test]
fn a_network_with_ipv6_names_both_addresses() {
    let mut world = World::new();
    world.networks[0].spec.ipv6 = true;
    let scope = world.scope(&['n'], None);
    let told = |name, kind| told(&ask(&scope, name, kind).unwrap());
    assert_eq!(told("web", AAAA), ["AAAA fd73:6b65:7000::a01:2"]);
    assert_eq!(told("web", ANY), ["A 10.1.0.2", "AAAA fd73:6b65:7000::a01:2"]);
    assert_eq!(told("tasks.web", AAAA), ["AAAA fd73:6b65:7000::a01:b", "AAAA fd73:6b65:7000::a01:c"]);
}

#[test]
fn an_ipv6_subnet_of_its_own_is_where_a_networks_names_lead() {
    let mut world = World::new();
    let spec = &mut world.networks[0].spec;
    let (subnet, gateway) = ("2001:db8:9::/64".parse().unwrap(), Ipv6Addr::UNSPECIFIED);
    (spec.ipv6, spec.ipam.ipv6) = (true, Some(Ipv6Subnet { subnet, gateway }));
    let scope = world.scope(&['n'], None);
    let asked = |name, kind| told(&ask(&scope, name, kind).unwrap());
    assert_eq!(asked("web", AAAA), ["AAAA 2001:db8:9::a01:2"]);
    assert_eq!(asked("web", ANY), ["A 10.1.0.2", "AAAA 2001:db8:9::a01:2"]);
    let back = |address: Ipv6Addr| ask(&scope, &Name::from(address).to_string(), PTR);
    let web = back("2001:db8:9::a01:2".parse().unwrap()).unwrap();
    assert_eq!(told(&web), ["PTR web.app."]);
    let nobody = back("2001:db8:9::1:2:3".parse().unwrap()).unwrap();
    assert_eq!((told(&nobody), nobody.response_code), (Vec::new(), ResponseCode::NXDomain));
    // What would be its address without the subnet is nobody's here, and others may be asked.
    assert!(back(skep_model::mesh_ipv6([10, 1, 0, 2].into())).is_none());
}

#[test]
fn a_task_knows_itself_before_others_do() {
    let world = World::new();
    let told = |own, name| told(&ask(&world.scope(&['n'], own), name, A).unwrap());
    assert_eq!(told(Some('g'), "early"), ["A 10.1.0.22"]);
    assert_eq!(told(Some('g'), "api.2"), ["A 10.1.0.22"]);
    assert!(told(Some('f'), "early").is_empty());
    assert_eq!(told(Some('g'), "tasks.api"), ["A 10.1.0.21"], "but it is not among those that take connections");
}

#[test]
fn a_task_takes_no_service_its_name() {
    // The only task of api calls itself web.
    let world = World::new();
    assert_eq!(told(&ask(&world.scope(&['n'], None), "web", A).unwrap()), ["A 10.1.0.2"]);
}

#[test]
fn a_task_on_a_node_that_is_not_heard_of_is_named_when_there_is_no_other() {
    let mut world = World::new();
    let weigh = |world: &mut World, task: char, weight| {
        let key = skep_model::EndpointKey { network: id('n'), task: id(task) };
        Arc::make_mut(&mut world.endpoints.get_mut(&key).unwrap().record).weight = weight;
    };
    weigh(&mut world, 'b', 0);
    assert_eq!(told(&ask(&world.scope(&['n'], None), "tasks.web", A).unwrap()), ["A 10.1.0.12"]);
    weigh(&mut world, 'c', 0);
    let both = ["A 10.1.0.11", "A 10.1.0.12"];
    assert_eq!(told(&ask(&world.scope(&['n'], None), "tasks.web", A).unwrap()), both);
    assert_eq!(told(&ask(&world.scope(&['n'], None), "web.1", A).unwrap()), ["A 10.1.0.11"], "asked for by its name");
}

#[test]
fn answers_may_be_kept_for_seconds_only_and_tell_what_ports_lead_to() {
    let scope = World::new().scope(&['n'], None);
    let reply = ask(&scope, "_80._tcp.tasks.web", SRV).unwrap();
    let mut extras: Vec<_> = reply.additionals.iter().map(|r| format!("{} {}", r.name, text(&r.data))).collect();
    extras.sort();
    assert_eq!(
        extras,
        ["web.1.bbbbbbbbbbbbbbbbbbbbbbbbb.app. A 10.1.0.11", "web.2.ccccccccccccccccccccccccc.app. A 10.1.0.12"]
    );
    for name in ["web", "tasks.web", "_80._tcp.web"] {
        let reply = ask(&scope, name, if name.starts_with('_') { SRV } else { A }).unwrap();
        assert!(reply.answers.iter().chain(&reply.additionals).all(|record| (1..=5).contains(&record.ttl)));
        assert!(reply.recursion_available && reply.recursion_desired && reply.message_type == MessageType::Response);
        assert_eq!((reply.id, reply.queries.len()), (0x5e9, 1));
    }
    // As it was asked, for those who compare letter by letter.
    assert_eq!(ask(&scope, "WeB", A).unwrap().queries[0].name().to_ascii(), "WeB.");
}

#[test]
fn the_order_is_another_each_time() {
    let world = World::new();
    let scope = world.scope(&['n'], None);
    let question = crate::world::question(&query("tasks.web", A));
    let first = |seed| {
        let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
        let skep_dns::Answer::Known(reply) = skep_dns::answer(&question, &scope, &mut random) else { panic!() };
        text(&reply.answers[0].data)
    };
    let firsts: std::collections::BTreeSet<_> = (0..32).map(first).collect();
    assert_eq!(firsts.len(), 2);
}

fn refused(bytes: &[u8]) -> hickory_proto::op::Message {
    match Question::read(bytes) {
        Received::Refused(reply) => hickory_proto::op::Message::from_vec(&reply).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_question_is_told_so() {
    let good = query("web", A).to_vec().unwrap();
    let code = |bytes: &[u8]| refused(bytes).response_code;
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert_eq!(code(&changed(5, 0)), ResponseCode::FormErr, "no question");
    assert_eq!(code(&changed(5, 2)), ResponseCode::FormErr, "two");
    assert_eq!(code(&changed(7, 1)), ResponseCode::FormErr, "an answer");
    assert_eq!(code(&changed(9, 1)), ResponseCode::FormErr, "an authority");
    assert_eq!(code(&changed(11, 1)), ResponseCode::FormErr, "less than it says");
    assert_eq!(code(&changed(10, 255)), ResponseCode::FormErr, "more records than anybody needs");
    assert_eq!(code(&changed(12, 63)), ResponseCode::FormErr, "a label without an end");
    assert_eq!(code(&changed(12, 0xc0)), ResponseCode::FormErr, "a name that points to itself");
    assert_eq!(code(&changed(2, (u8::from(OpCode::Update)) << 3)), ResponseCode::NotImp);
    assert_eq!(refused(&changed(5, 0)).id, 0x5e9);
    for ignored in [&good[..11], &[], &changed(2, 0x80)] {
        assert!(matches!(Question::read(ignored), Received::Ignored), "{ignored:?}");
    }
    let mut later = with_room(query("web", A), 1232);
    later.edns.as_mut().unwrap().set_version(1);
    let later = refused(&later.to_vec().unwrap());
    // A signature that is bad has the same number.
    assert_eq!((u16::from(later.response_code), later.edns.unwrap().version()), (16, 0));
    let mut chaos = query("version.bind", TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(refused(&chaos.to_vec().unwrap()).response_code, ResponseCode::Refused);
}

/// Five hundred ready tasks.
fn crowd() -> World {
    let mut world = World::new();
    for n in 0..500u16 {
        let [high, low] = n.to_be_bytes();
        let (mut key, located) =
            crate::world::endpoint('n', ('x', 'a', &[]), [10, 1, high + 1, low], EndpointState::Ready);
        key.task = format!("{n:025}").parse().unwrap();
        world.endpoints.insert(key, located);
    }
    world
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let scope = crowd().scope(&['n'], None);
    let reply = |message: &hickory_proto::op::Message, room: Option<u16>| {
        let question = crate::world::question(message);
        let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let skep_dns::Answer::Known(known) = skep_dns::answer(&question, &scope, &mut random) else { panic!() };
        let bytes = question.reply(known, room.unwrap_or_else(|| question.room()));
        (bytes.len(), hickory_proto::op::Message::from_vec(&bytes).unwrap())
    };
    for (message, room, least) in [
        (query("tasks.api", A), 512, 29),
        (with_room(query("tasks.api", A), 100), 512, 28),
        (with_room(query("tasks.api", A), 1232), 1232, 70),
        (with_room(query("tasks.api", A), 4096), 4096, 200),
    ] {
        let (length, got) = reply(&message, None);
        assert!(
            length <= room && got.truncation && got.answers.len() >= least,
            "{room}: {length}, {}",
            got.answers.len()
        );
        assert_eq!(got.edns.is_some(), message.edns.is_some());
    }
    let (_, whole) = reply(&query("tasks.api", A), Some(u16::MAX));
    assert_eq!((whole.answers.len(), whole.truncation), (501, false));
    let (_, ports) = reply(&query("_80._tcp.api", SRV), Some(u16::MAX));
    assert_eq!((ports.answers.len(), ports.additionals.len(), ports.truncation), (501, 501, false));
}

#[test]
fn what_will_be_asked_next_is_left_out_first() {
    let scope = World::new().scope(&['n'], None);
    let question = crate::world::question(&query("_80._tcp.tasks.web", SRV));
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
    let skep_dns::Answer::Known(known) = skep_dns::answer(&question, &scope, &mut random) else { panic!() };
    let bytes = question.reply(known, 170);
    let got = hickory_proto::op::Message::from_vec(&bytes).unwrap();
    assert_eq!((got.answers.len(), got.additionals.len(), got.truncation), (2, 0, false), "{}", bytes.len());
}
