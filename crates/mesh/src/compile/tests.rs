use skep_model::{
    EndpointRecord, Member, NetworkId, Protocol, ServiceEntry, ServiceId, ServiceNetwork, TaskId, Version, VirtualIp,
};
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::desired::{Devices, OwnNode};
use crate::table::Way;
use crate::world::{World, change};

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(digit: char) -> T {
    digit.to_string().repeat(25).parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn member(digit: char, n: u8) -> Member {
    let hostname = format!("n{n}");
    Member {
        node: id(digit),
        hostname,
        underlay: IpAddr::from([192, 0, 2, n]),
        overlay: [10, 0, 0, n].into(),
        alive: true,
        away: false,
    }
}

fn port(published: u16, target: u16, mode: PublishMode) -> PublishedPort {
    let number = |n: u16| n.try_into().unwrap();
    PublishedPort { protocol: Protocol::Tcp, target: number(target), published: number(published), mode }
}

fn service(digit: char, ports: &[PublishedPort]) -> ServiceEntry {
    let name = format!("s{digit}");
    ServiceEntry {
        id: id(digit),
        name,
        version: Version::default(),
        ports: ports.to_vec(),
        options: vec![],
        virtual_ips: vec![],
        networks: Vec::new(),
    }
}

fn endpoint(task: char, service: char, owner: char, n: u8) -> LocatedEndpoint {
    let state = EndpointState::Ready;
    let record = EndpointRecord {
        service: id(service),
        addr: [10, 0, 1, n].into(),
        state,
        weight: 1,
        aliases: vec![],
        host_ports: Vec::new(),
    };
    LocatedEndpoint { key: EndpointKey { network: id::<NetworkId>('z'), task: id(task) }, owner: id(owner), record }
}

fn network(id_digit: char, number: u32, subnet: &str, kind: NetworkKind) -> Network {
    Network { id: id(id_digit), number, subnet: subnet.parse().unwrap(), subnet6: None, kind }
}

/// A task's entry on the network of the routing mesh.
fn on_ingress(task: char) -> EndpointKey {
    EndpointKey { network: id('z'), task: id(task) }
}

fn local(task: char, n: u8) -> LocalTask {
    let addr = [10, 0, 1, n].into();
    LocalTask {
        task: id(task),
        home: id('z'),
        addr,
        networks: vec![],
        host_ifindex: 100 + u32::from(n),
        mac: [2; 6],
        ipv6: true,
        state: EndpointState::Ready,
        host_ports: vec![],
        host_options: vec![],
    }
}

/// Nodes a (own) and b; service s on 8080 with task 1 here and task 2 there.
fn desired() -> Desired {
    Desired {
        node: OwnNode {
            id: id('a'),
            underlay: address("192.0.2.1"),
            overlay: [10, 0, 0, 1].into(),
            addresses: [(address("198.51.100.1"), "eth1".to_owned())].into(),
            taken: [].into(),
            reply_direct: false,
            direct: [].into(),
        },
        devices: Devices {
            loopback: 1,
            overlay: 5,
            overlay_mtu: 1450,
            overlay_port: 4789,
            ipsec: false,
            underlay: Some(2),
            uplinks: [2].into(),
            tunnels: [3].into(),
            ways: [("0.0.0.0/0".parse().unwrap(), Way { device: 2, mtu: 1500, source: address("198.51.100.1") })]
                .into(),
        },
        members: vec![member('a', 1), member('b', 2)],
        member_addresses: ["198.51.100.1", "198.51.100.2"].map(address).into(),
        services: vec![service('s', &[port(8080, 80, PublishMode::Ingress)])],
        networks: vec![network('z', 4096, "10.0.0.0/16", NetworkKind::Ingress)],
        endpoints: vec![endpoint('1', 's', 'a', 1), endpoint('2', 's', 'b', 2)],
        local_tasks: vec![local('1', 1)],
    }
}

/// Where overlay packets for node b leave straight.
fn straight(change: impl FnOnce(&mut Desired)) -> Option<u32> {
    let mut desired = desired();
    change(&mut desired);
    let tables = compile(&desired);
    assert!(tables.straight.keys().all(|member| *member == address("192.0.2.2")), "{:?}", tables.straight);
    tables.straight.values().next().copied()
}

fn route(to: &str, device: u32, mtu: u16) -> (IpNet, Way) {
    (to.parse().unwrap(), Way { device, mtu, source: address("198.51.100.1") })
}

#[test]
fn overlay_packets_leave_straight_by_the_best_route_where_it_carries_them() {
    assert_eq!(straight(|_| ()), Some(2));
    let routes = [route("192.0.0.0/16", 7, 9000), route("192.0.2.0/24", 8, 1500), route("192.0.3.0/24", 9, 1500)];
    assert_eq!(straight(|desired| desired.devices.ways.extend(routes)), Some(8));
    assert_eq!(straight(|desired| desired.devices.ways.extend([route("192.0.2.2/32", 8, 1499)])), None);
    assert_eq!(
        straight(|desired| desired.devices.ways = [route("192.0.3.0/24", 9, 1500), route("::/0", 9, 1500)].into()),
        None
    );
}

#[test]
fn overlay_packets_that_may_have_to_be_encrypted_or_are_of_ipv6_go_by_the_device() {
    assert_eq!(straight(|desired| desired.devices.ipsec = true), None);
    assert_eq!(straight(|desired| desired.node.underlay = address("2001:db8::1")), None);
    let elsewhere = |desired: &mut Desired| desired.members[1].underlay = address("2001:db8::2");
    assert_eq!(straight(elsewhere), None);
}

fn key(port: u16) -> FrontendKey {
    FrontendKey { protocol: Protocol::Tcp, port }
}

fn backend_of(tables: &Tables, task: char) -> Option<&Backend> {
    tables.backends.get(&on_ingress(task))
}

/// Who takes new flows of a port.
fn ready(tables: &Tables, port: u16) -> Vec<TaskId> {
    tables.groups[&tables.frontends[&key(port)].group].ready.iter().map(|key| key.task.clone()).collect()
}

/// Once its network was removed, its tasks are nobody's backend for published ports, and go on to serve ports in host mode and to go out.
#[test]
fn a_task_on_what_was_the_ingress_network_serves_its_own_ports_only() {
    let mut desired = desired();
    desired.networks[0].kind = NetworkKind::Retired;
    desired.local_tasks = vec![LocalTask { host_ports: vec![port(9090, 80, PublishMode::Host)], ..local('1', 1) }];
    let mut holds = |ports: &[u16]| {
        let tables = compile(&desired);
        let backend = backend_of(&tables, '1').unwrap();
        assert!(backend.egress && backend.network == 0);
        assert_eq!(ports.iter().map(|port| ready(&tables, *port)).collect::<Vec<_>>(), [vec![], vec![id('1')]]);
        assert_eq!(backend_of(&tables, '2'), None);
        desired.networks.push(network('y', 4097, "10.9.0.0/16", NetworkKind::Ingress));
    };
    holds(&[8080, 9090]);
    holds(&[8080, 9090]);
}

#[test]
fn a_service_has_backends_here_and_there() {
    let tables = compile(&desired());
    assert_eq!(ready(&tables, 8080), vec![id::<TaskId>('1'), id('2')]);
    assert_eq!(tables.groups[&tables.frontends[&key(8080)].group].slots.len(), maglev::SLOTS);
    assert_eq!(tables.frontends[&key(8080)].target, 80);
    let here = backend_of(&tables, '1').unwrap();
    assert_eq!(here.place, Place::Here { ifindex: 101, mac: [2; 6], ipv6: true });
    assert_eq!(backend_of(&tables, '2').unwrap().place, Place::There(address("192.0.2.2")));
}

#[test]
fn every_node_computes_the_same_table() {
    let mut other = desired();
    other.node.id = id('b');
    other.endpoints.reverse();
    other.local_tasks = vec![local('2', 2)];
    assert_eq!(compile(&desired()).groups, compile(&other).groups);
}

#[test]
fn addresses_are_told_apart() {
    let addresses = compile(&desired()).addresses;
    for own in ["192.0.2.1", "198.51.100.1", "10.0.0.1"] {
        assert_eq!(addresses[&address(own)], AddressOwner::Own, "{own}");
    }
    // Every node may have a bridge with the same address: then its own is meant.
    for other in ["192.0.2.2", "10.0.0.2", "198.51.100.2"] {
        assert_eq!(addresses[&address(other)], AddressOwner::Member, "{other}");
    }
}

#[test]
fn a_dead_members_endpoints_are_gone_and_its_address_stays_trusted() {
    let mut desired = desired();
    desired.members[1].alive = false;
    let tables = compile(&desired);
    assert_eq!(ready(&tables, 8080), vec![id::<TaskId>('1')]);
    assert_eq!(backend_of(&tables, '2'), None);
    assert!(tables.members.contains(&address("192.0.2.2")));
}

#[test]
fn a_draining_endpoint_keeps_its_flows_and_gets_no_slot() {
    let mut desired = desired();
    desired.endpoints[1].record.state = EndpointState::Draining;
    let tables = compile(&desired);
    assert_eq!(ready(&tables, 8080), vec![id::<TaskId>('1')]);
    assert_eq!(backend_of(&tables, '2').unwrap().state, BackendState::Draining);
}

#[test]
fn the_nodes_own_word_comes_before_its_record() {
    let mut desired = desired();
    desired.local_tasks[0].state = EndpointState::Draining;
    let tables = compile(&desired);
    assert_eq!(ready(&tables, 8080), vec![id::<TaskId>('2')]);
    assert_eq!(backend_of(&tables, '1').unwrap().state, BackendState::Draining);
    desired.local_tasks.clear();
    assert_eq!(backend_of(&compile(&desired), '1'), None);
}

#[test]
fn a_starting_endpoint_is_not_known_elsewhere() {
    let mut desired = desired();
    desired.endpoints[1].record.state = EndpointState::Starting;
    assert_eq!(backend_of(&compile(&desired), '2'), None);
}

#[test]
fn a_port_without_anybody_ready_stays_a_frontend() {
    let mut desired = desired();
    desired.endpoints.clear();
    assert_eq!(ready(&compile(&desired), 8080), []);
}

#[test]
fn host_mode_comes_before_the_mesh() {
    let mut desired = desired();
    desired.local_tasks.push(LocalTask { host_ports: vec![port(8080, 81, PublishMode::Host)], ..local('3', 3) });
    let tables = compile(&desired);
    let frontend = &tables.frontends[&key(8080)];
    assert_eq!((frontend.mode, frontend.target, ready(&tables, 8080)), (PublishMode::Host, 81, vec![id('3')]));
}

#[test]
fn of_two_tasks_on_one_port_in_host_mode_the_smaller_id_says_what_it_is_like() {
    let mut desired = desired();
    for (task, target) in [('4', 84), ('3', 83)] {
        let host_ports = vec![port(8080, target, PublishMode::Host)];
        desired.local_tasks.push(LocalTask { host_ports, ..local(task, target as u8) });
    }
    let tables = compile(&desired);
    assert_eq!((tables.frontends[&key(8080)].target, ready(&tables, 8080)), (83, vec![id('3'), id('4')]));
}

#[test]
fn host_mode_ports_of_a_service_are_no_frontends_elsewhere() {
    let mut desired = desired();
    desired.services = vec![service('s', &[port(8080, 80, PublishMode::Host)])];
    assert!(compile(&desired).frontends.is_empty());
}

#[test]
fn of_two_services_on_one_port_the_smaller_id_has_it() {
    let mut desired = desired();
    desired.services.insert(0, service('t', &[port(8080, 90, PublishMode::Ingress)]));
    desired.endpoints.push(endpoint('4', 't', 'b', 4));
    assert_eq!(ready(&compile(&desired), 8080), vec![id::<TaskId>('1'), id('2')]);
    assert_eq!(id::<ServiceId>('s').as_str().len(), 25);
}

#[test]
fn weight_zero_takes_no_new_flows() {
    let mut desired = desired();
    desired.endpoints[0].record.weight = 0;
    assert_eq!(ready(&compile(&desired), 8080), vec![id::<TaskId>('2')]);
}

/// Service s with its own address on network o, its task 2 on node b starting; task 1 here is on it too, and on the internal network i.
fn with_networks() -> Desired {
    let mut desired = desired();
    desired.networks.push(network('o', 4097, "10.1.0.0/24", NetworkKind::Open));
    desired.networks.push(network('i', 4098, "10.2.0.0/24", NetworkKind::Internal));
    desired.networks.push(network('f', 4099, "10.3.0.0/24", NetworkKind::Open));
    let vip = |network, addr: &str| VirtualIp { network: id(network), addr: addr.parse().unwrap() };
    desired.services[0].virtual_ips = vec![vip('z', "10.0.0.2/16"), vip('o', "10.1.0.2/24"), vip('f', "10.3.0.2/24")];
    desired.services[0].networks = vec![ServiceNetwork { network: id('o'), aliases: vec![] }];
    desired.local_tasks[0].networks = vec![(id('o'), [10, 1, 0, 11].into()), (id('i'), [10, 2, 0, 11].into())];
    for (task, owner, network, addr, state) in [
        ('1', 'a', 'o', [10, 1, 0, 11], EndpointState::Ready),
        ('1', 'a', 'i', [10, 2, 0, 11], EndpointState::Ready),
        ('2', 'b', 'o', [10, 1, 0, 12], EndpointState::Starting),
        ('3', 'b', 'f', [10, 3, 0, 13], EndpointState::Ready),
        ('3', 'b', 'x', [10, 9, 0, 13], EndpointState::Ready),
    ] {
        let mut endpoint = endpoint(task, 's', owner, 0);
        endpoint.key.network = id(network);
        (endpoint.record.addr, endpoint.record.state) = (addr.into(), state);
        desired.endpoints.push(endpoint);
    }
    desired
}

fn on(task: char, network: char) -> EndpointKey {
    EndpointKey { network: id(network), task: id(task) }
}

#[test]
fn a_task_is_a_backend_on_each_of_its_networks() {
    let tables = compile(&with_networks());
    let numbers: Vec<_> = tables.backends.iter().map(|(key, b)| (key.clone(), b.network, b.addr.to_string())).collect();
    let mut want = vec![
        (on('1', 'z'), 0, "10.0.1.1".to_owned()),
        (on('2', 'z'), 0, "10.0.1.2".to_owned()),
        (on('1', 'o'), 4097, "10.1.0.11".to_owned()),
        (on('2', 'o'), 4097, "10.1.0.12".to_owned()),
        (on('1', 'i'), 4098, "10.2.0.11".to_owned()),
    ];
    want.sort();
    assert_eq!(numbers, want, "nothing of networks that no task of the node is on, or that nobody knows");
    assert_eq!(ready(&tables, 8080), vec![id::<TaskId>('1'), id('2')], "published ports have the mesh's own addresses");
    // One that starts may talk already.
    assert_eq!(tables.backends[&on('2', 'o')].state, BackendState::Starting);
}

#[test]
fn a_services_own_address_is_known_where_a_task_may_ask_it() {
    let tables = compile(&with_networks());
    let own: Vec<_> = tables.vips.keys().map(ToString::to_string).collect();
    assert_eq!(own, ["10.1.0.2"]);
    let vip = &tables.vips[&Ipv4Addr::new(10, 1, 0, 2)];
    assert_eq!((vip.network, &tables.groups[&vip.group].ready), (4097, &vec![on('1', 'o')]));
}

#[test]
fn a_task_goes_out_unless_all_of_its_networks_keep_it() {
    let egress = |networks: &[char]| {
        let mut desired = with_networks();
        desired.local_tasks[0].networks = networks.iter().map(|n| (id(*n), [10, 1, 0, 11].into())).collect();
        compile(&desired).backends[&on('1', 'z')].egress
    };
    assert!(egress(&[]) && egress(&['o']) && egress(&['i', 'o']));
    assert!(!egress(&['i']) && !egress(&['x']), "internal ones, and those that nobody knows");
}

#[test]
fn all_addresses_of_the_swarm_are_known_and_the_ways_out() {
    let tables = compile(&with_networks());
    let subnets: Vec<_> = tables.subnets.iter().map(|(net, number)| format!("{net} {number}")).collect();
    let want =
        ["10.0.0.0/16 4096", "10.1.0.0/24 4097", "10.2.0.0/24 4098", "10.3.0.0/24 4099", "fd73:6b65:7000::/96 0"];
    assert_eq!(subnets, want);
    assert_eq!(tables.ways, with_networks().devices.ways);
}

#[test]
fn an_ipv6_subnet_of_its_own_is_part_of_what_is_known_of_a_network() {
    let mut desired = with_networks();
    let own = "2001:db8:9::/64".parse().unwrap();
    desired.networks.iter_mut().find(|n| n.id == id('o')).unwrap().subnet6 = Some(own);
    let tables = compile(&desired);
    assert_eq!(tables.subnets[&IpNet::from(own)], 4097, "nothing for all of it leaves by an uplink");
    let prefixes: BTreeMap<_, _> = tables.backends.iter().map(|(key, b)| (key.clone(), b.prefix6)).collect();
    for (key, prefix) in prefixes {
        let want = if key.network == id('o') { Prefix6::of(own).unwrap() } else { Prefix6::MESH };
        assert_eq!(prefix, want, "{key:?}");
    }
    assert_eq!(tables.vips[&Ipv4Addr::new(10, 1, 0, 2)].prefix6, Prefix6::of(own).unwrap());
}

#[test]
fn every_device_gets_its_program() {
    let hooks = compile(&desired()).hooks;
    let want = [(1, Hook::Loopback), (2, Hook::Uplink), (3, Hook::Tunnel), (5, Hook::Overlay), (101, Hook::Task)];
    assert_eq!(hooks, want.into());
}

fn world() -> impl Strategy<Value = World> {
    prop::collection::vec(change(), 0..60).prop_map(|changes| {
        let mut world = World::new();
        changes.into_iter().for_each(|change| world.suffer(change));
        world
    })
}

fn shuffled<T: Clone + std::fmt::Debug + 'static>(list: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    Just(list).prop_shuffle()
}

/// The same, heard of in another order.
fn reordered(desired: Desired) -> impl Strategy<Value = Desired> {
    let Desired { members, services, endpoints, local_tasks, .. } = desired.clone();
    let lists = (shuffled(members), shuffled(services), shuffled(endpoints), shuffled(local_tasks));
    lists.prop_map(move |(members, services, endpoints, local_tasks)| Desired {
        members,
        services,
        endpoints,
        local_tasks,
        ..desired.clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_things_became_known_does_not_matter(
        (one, other) in world().prop_map(|w| w.desired()).prop_flat_map(|d| (Just(d.clone()), reordered(d))),
    ) {
        prop_assert_eq!(compile(&one), compile(&other));
    }

    #[test]
    fn nodes_that_know_the_same_give_the_same_flow_to_the_same_task(world in world()) {
        let shared = |node: u8| {
            let groups = compile(&world.desired_on(node)).groups;
            groups.into_iter().filter(|(key, _)| matches!(key, GroupKey::Service(_, false))).collect::<BTreeMap<_, _>>()
        };
        let all: Vec<_> = world.nodes_alive().map(|node| (node, shared(node))).collect();
        for (node, groups) in &all[1..] {
            for (key, group) in groups {
                // A node's own port in host mode may stand before a group's only one.
                let first = all[0].1.get(key).unwrap_or(group);
                prop_assert_eq!(group, first, "{:?} on nodes {} and {}", key, all[0].0, node);
            }
        }
    }
}
