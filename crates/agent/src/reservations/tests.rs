use skep_mesh::{Devices, LocalTask};
use skep_model::{
    EndpointState, NetworkId, NodeId, PublishMode, PublishOptions, ServiceEntry, ServiceId, TaskId, Version,
};
use skep_network::FakePorts;

use super::*;

fn port(number: u16, mode: PublishMode) -> PublishedPort {
    let port = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol: Protocol::Tcp, target: port(80), published: port(number), mode }
}

fn options(number: u16, answers: bool, listen: &[&str]) -> PortOptions {
    let listen = listen.iter().map(|text| match text.parse() {
        Ok(net) => ListenOn::Net(net),
        Err(_) => ListenOn::Interface((*text).to_owned()),
    });
    let options = PublishOptions { listen: listen.collect(), ..Default::default() };
    PortOptions { protocol: Protocol::Tcp, published: number.try_into().unwrap(), options, answers }
}

/// A node with two addresses that publishes what is given.
fn desired(ports: &[u16], with: Vec<PortOptions>) -> Desired {
    let entry = ServiceEntry {
        id: ServiceId::random(),
        name: "web".to_owned(),
        version: Version(1),
        ports: ports.iter().map(|n| port(*n, PublishMode::Ingress)).collect(),
        options: with,
        virtual_ips: Vec::new(),
        networks: Vec::new(),
    };
    let addresses = [("192.0.2.1", "eth0"), ("fd00::1", "eth0"), ("198.51.100.1", "eth1")];
    let node = OwnNode {
        id: NodeId::random(),
        underlay: "192.0.2.1".parse().unwrap(),
        overlay: "10.0.0.2".parse().unwrap(),
        addresses: addresses.iter().map(|(a, d)| (a.parse().unwrap(), (*d).to_owned())).collect(),
        taken: BTreeSet::new(),
        reply_direct: false,
        direct: BTreeSet::new(),
    };
    Desired {
        node,
        devices: Devices {
            loopback: 1,
            overlay: 2,
            overlay_mtu: 1450,
            overlay_port: 4789,
            ipsec: false,
            underlay: None,
            uplinks: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            ways: BTreeMap::new(),
        },
        members: Vec::new(),
        member_addresses: BTreeSet::new(),
        services: vec![entry],
        networks: Vec::new(),
        endpoints: Vec::new(),
        local_tasks: Vec::new(),
    }
}

fn shown(wanted: &BTreeSet<PortAddress>) -> Vec<String> {
    wanted.iter().map(ToString::to_string).collect()
}

#[test]
fn ports_are_wanted_where_the_node_answers_on_them() {
    assert_eq!(shown(&wanted(&desired(&[80, 81], Vec::new()))), ["80/tcp", "81/tcp"]);
    assert_eq!(shown(&wanted(&desired(&[80, 81], vec![options(80, false, &[])]))), ["81/tcp"]);
    for (listen, is) in [
        (&["192.0.2.0/24"][..], &["192.0.2.1:80/tcp"][..]),
        (&["eth0"], &["192.0.2.1:80/tcp", "[fd00::1]:80/tcp"]),
        (&["fd00::/8", "eth1"], &["198.51.100.1:80/tcp", "[fd00::1]:80/tcp"]),
        (&["127.0.0.1/32"], &["127.0.0.1:80/tcp"]),
        (&["127.0.0.5/32"], &["127.0.0.5:80/tcp"]),
        (&["lo"], &["127.0.0.1:80/tcp", "[::1]:80/tcp"]),
        (&["203.0.113.7/32", "eth9"], &[]),
        (&["0.0.0.0/0"], &["127.0.0.1:80/tcp", "192.0.2.1:80/tcp", "198.51.100.1:80/tcp"]),
    ] {
        assert_eq!(shown(&wanted(&desired(&[80], vec![options(80, true, listen)]))), is, "{listen:?}");
    }
    let mut with_task = desired(&[], Vec::new());
    with_task.local_tasks.push(LocalTask {
        task: TaskId::random(),
        home: NetworkId::random(),
        addr: "10.0.0.3".parse().unwrap(),
        networks: Vec::new(),
        host_ifindex: 3,
        mac: [0; 6],
        ipv6: true,
        state: EndpointState::Ready,
        host_ports: vec![port(90, PublishMode::Host), port(91, PublishMode::Host)],
        host_options: vec![options(91, true, &["eth1"])],
    });
    assert_eq!(shown(&wanted(&with_task)), ["90/tcp", "198.51.100.1:91/tcp"]);
}

fn listener(number: u16, address: &str) -> Listener {
    let address = address.parse().unwrap();
    Listener { protocol: Protocol::Tcp, port: number, address, v6_only: false, inode: number.into() }
}

fn reservations() -> (Arc<FakePorts>, Reservations) {
    let ports = Arc::new(FakePorts::default());
    (ports.clone(), Reservations::new(ports))
}

fn told(reservations: &Reservations) -> Vec<String> {
    reservations.watch().borrow().iter().flatten().map(ToString::to_string).collect()
}

#[test]
fn a_port_is_left_to_its_process_and_taken_over_when_that_ends() {
    let (kernel, mut reservations) = reservations();
    assert_eq!(*reservations.watch().borrow(), None, "nothing is told before it was looked at");
    kernel.set_listeners(vec![listener(80, "127.0.0.1")]);
    let wanted = wanted(&desired(&[80, 81], Vec::new()));
    assert_eq!(reservations.look(&wanted), [(Protocol::Tcp, 80)].into());
    assert_eq!(told(&reservations), ["port 80/tcp is taken by fake (process 80)"]);
    assert_eq!(reservations.settle(), Settled::Yes);
    assert_eq!(shown(&reservations.held.keys().copied().collect()), ["81/tcp"]);
    kernel.set_listeners(Vec::new());
    assert_eq!(reservations.look(&wanted), BTreeSet::new());
    assert_eq!(told(&reservations).len(), 1, "not over before the port is kept");
    assert_eq!(reservations.settle(), Settled::Yes);
    assert_eq!(told(&reservations), Vec::<String>::new());
    assert_eq!(reservations.held.len(), 2);
    // From now on there is nothing to ask.
    let asked = kernel.asked();
    reservations.look(&wanted);
    reservations.settle();
    assert_eq!(kernel.asked(), asked);
    reservations.look(&BTreeSet::new());
    assert!(reservations.held.is_empty());
}

#[test]
fn a_process_that_comes_in_between_gets_its_port_back() {
    let (kernel, mut reservations) = reservations();
    let wanted = wanted(&desired(&[80], Vec::new()));
    assert!(reservations.look(&wanted).is_empty());
    kernel.set_listeners(vec![listener(80, "0.0.0.0")]);
    assert_eq!(reservations.settle(), Settled::No);
    assert_eq!(reservations.look(&wanted), [(Protocol::Tcp, 80)].into());
    assert_eq!(reservations.settle(), Settled::Yes);
}

#[test]
fn a_client_that_happens_to_have_the_number_is_no_conflict_and_no_excuse() {
    let (kernel, mut reservations) = reservations();
    let wanted = wanted(&desired(&[80], Vec::new()));
    kernel.set_client(*wanted.first().unwrap());
    for _ in 0..2 {
        assert!(reservations.look(&wanted).is_empty());
        assert_eq!((reservations.settle(), reservations.held.len()), (Settled::Yes, 0));
    }
    kernel.clear_clients();
    reservations.look(&wanted);
    assert_eq!((reservations.settle(), reservations.held.len()), (Settled::Yes, 1));
}

#[test]
fn a_process_on_an_address_that_is_not_published_is_not_in_the_way() {
    let (kernel, mut reservations) = reservations();
    kernel.set_listeners(vec![listener(53, "127.0.0.53")]);
    let bound = wanted(&desired(&[53], vec![options(53, true, &["eth0"])]));
    assert!(reservations.look(&bound).is_empty());
    assert_eq!((reservations.settle(), reservations.held.len()), (Settled::Yes, 2));
    // Published on all addresses from now on: what it has held itself is in nobody's way.
    let all = wanted(&desired(&[53], Vec::new()));
    assert_eq!(reservations.look(&all), [(Protocol::Tcp, 53)].into());
    assert!(reservations.held.is_empty());
}

#[test]
fn a_task_cannot_have_a_port_that_a_process_has_but_one_that_skep_holds() {
    let (kernel, mut reservations) = reservations();
    reservations.look(&wanted(&desired(&[80], Vec::new())));
    reservations.settle();
    // A reserved UDP port looks as if it listened.
    kernel.set_listeners(vec![listener(80, "::"), listener(81, "0.0.0.0")]);
    let ports = [80, 81, 82].map(|n: u16| (Protocol::Tcp, n.try_into().unwrap()));
    let taken = reservations.taken(ports.into_iter());
    assert_eq!(
        taken.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["port 81/tcp is taken by fake (process 81)"]
    );
}

#[test]
fn looking_at_ten_thousand_ports_is_quick() {
    let (kernel, mut reservations) = reservations();
    kernel.set_listeners((1..2000).map(|n| listener(n, "0.0.0.0")).collect());
    let ports: Vec<u16> = (20_000..30_000).collect();
    let began = std::time::Instant::now();
    let wanted = wanted(&desired(&ports, vec![options(20_000, true, &["eth0"])]));
    assert!(reservations.look(&wanted).is_empty());
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
    reservations.settle();
    assert_eq!(reservations.held.len(), 10_001);
}
