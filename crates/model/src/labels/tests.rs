use proptest::prelude::*;

use super::*;

fn doors() -> Vec<PublishedPort> {
    let number = |port| NonZeroU16::new(port).unwrap();
    let mode = crate::PublishMode::Ingress;
    let door = |protocol, port| PublishedPort { protocol, target: number(80), published: number(port), mode };
    let range = (8000..=8010).map(|port| door(Protocol::Tcp, port));
    [door(Protocol::Tcp, 53), door(Protocol::Udp, 53), door(Protocol::Sctp, 99)].into_iter().chain(range).collect()
}

fn parse(labels: &[(&str, &str)]) -> Result<BTreeMap<Door, PublishOptions>, BadLabel> {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    publish_options(&labels, &doors())
}

fn one(label: &str, value: &str) -> PublishOptions {
    parse(&[(label, value)]).unwrap().into_values().next().unwrap()
}

fn refused(labels: &[(&str, &str)], words: &[&str]) {
    let said = parse(labels).expect_err(labels[0].0).to_string();
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

#[test]
fn every_option_is_read() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let options = one("skep.publish.99.addr", "10.0.0.5, fd00::/8,eth0");
    let nets = [net("10.0.0.5/32"), net("fd00::/8")].map(ListenOn::Net);
    assert_eq!(options.listen, [nets.as_slice(), &[ListenOn::Interface("eth0".to_owned())]].concat());
    let options = one("skep.publish.99.nodes", "node.labels.edge==true, node.role != manager");
    assert_eq!(options.nodes, ["node.labels.edge==true", "node.role != manager"]);
    let options = one("skep.publish.99.sources", "10.1.2.3/8,::ffff:192.0.2.1,2001:db8::1");
    assert_eq!(options.sources, [net("10.0.0.0/8"), net("192.0.2.1/32"), net("2001:db8::1/128")]);
    assert_eq!(one("skep.publish.99.lb", "local-first").balance, Balance::LocalFirst);
    assert_eq!(one("skep.publish.99.lb", "maglev"), PublishOptions::default());
    assert_eq!(one("skep.publish.53/udp.lb", "datagram").balance, Balance::Datagram);
    assert!(one("skep.publish.99.affinity", "client-ip").client_affinity);
    assert_eq!(one("skep.publish.99.idle-timeout", "1h1.5s").idle_timeout, Some(Duration::from_millis(3_601_500)));
    assert_eq!(one("skep.publish.99.drain", "0").drain, Some(Duration::ZERO));
}

#[test]
fn a_label_is_about_one_port_one_protocol_or_a_range() {
    let with = |label| parse(&[(label, "5s")]).unwrap().into_keys().map(shown).collect::<Vec<_>>();
    assert_eq!(with("skep.publish.53.drain"), ["53/tcp", "53/udp"]);
    assert_eq!(with("skep.publish.53/udp.drain"), ["53/udp"]);
    assert_eq!(with("skep.publish.8000-8010.drain").len(), 11);
    assert_eq!(with("skep.publish.8001-8002/TCP.drain"), ["8001/tcp", "8002/tcp"]);
    assert!(parse(&[("com.example.skep.x", "y"), ("skepticism", "1")]).unwrap().is_empty());
    let both = parse(&[("skep.publish.53.drain", "5s"), ("skep.publish.53/udp.lb", "datagram")]).unwrap();
    let udp = &both[&(NonZeroU16::new(53).unwrap(), Protocol::Udp)];
    assert_eq!((udp.drain, udp.balance), (Some(Duration::from_secs(5)), Balance::Datagram));
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    for label in [
        "skep.foo",
        "skep.",
        "skep.publish.53",
        "skep.publish.53.colour",
        "skep.publish.drain",
        "skep.Publish.53.drain",
    ] {
        refused(&[(label, "1s")], &[&format!("label {label:?} means nothing"), "idle-timeout or drain"]);
    }
    for port in ["0", "+53", "70000", "8010-8000", "53/icmp", "", "-", "53-", "http"] {
        let label = format!("skep.publish.{port}.drain");
        refused(&[(&label, "1s")], &[&format!("{port:?} is no published port"), "8000-8010"]);
    }
    refused(
        &[("skep.publish.81.drain", "1s")],
        &["does not publish port 81, but 53/tcp, 53/udp, 99/sctp, 8000/tcp, 8001/tcp, 9 more", "--label-rm"],
    );
    refused(&[("skep.publish.99/tcp.drain", "1s")], &["port 99/tcp"]);
    refused(&[("skep.publish.8009-8012.drain", "1s")], &["port 8011,"]);
    refused(&[("skep.publish.7999-8001.drain", "1s")], &["port 7999,"]);
    for addr in ["", "10.0.0.300", "10.0.0.0/33", "eth0,", "averyveryverylongname", "a b", "[::1]", "8080"] {
        refused(&[("skep.publish.53.addr", addr)], &[&format!("{addr:?} is not allowed"), "names of network devices"]);
    }
    refused(&[("skep.publish.53.sources", "eth0")], &["10.0.0.0/8"]);
    refused(&[("skep.publish.53.nodes", "edge=true")], &["node.labels.edge==true", "operator"]);
    refused(&[("skep.publish.53.nodes", "")], &["is not allowed"]);
    refused(&[("skep.publish.53.lb", "random")], &["maglev, local-first"]);
    refused(&[("skep.publish.53.affinity", "cookie")], &["client-ip"]);
    for timeout in ["0s", "500ms", "19h", "1", "-5s", "", "5 s", "1d"] {
        refused(&[("skep.publish.53.idle-timeout", timeout)], &["from 1s to 18h"]);
    }
    refused(&[("skep.publish.53.drain", "61m")], &["from 0s to 1h"]);
    refused(&[("skep.publish.53.lb", "datagram")], &["port 53/tcp", "put /udp behind"]);
    refused(
        &[("skep.publish.53.drain", "1s"), ("skep.publish.53/udp.drain", "2s")],
        &["\"skep.publish.53.drain\" and \"skep.publish.53/udp.drain\"", "drain of port 53/udp"],
    );
}

proptest! {
    #[test]
    fn any_label_is_taken_or_refused(label in "skep\\.(publish\\.)?[0-9a-z/.-]{0,20}", value in "\\PC{0,12}") {
        let _ = parse(&[(&label, &value)]);
    }
}
