//! The node's network in a real kernel: every node and every task is a namespace that the test made and that goes with it. Looked at with
//! `ip`, which is not ours.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use skep_model::{Prefix6, Protocol, TaskId, mesh_ipv6};
use skep_network::{
    Attachment, Facts, HOST_MAC, KernelNetwork, Listeners, Namespace, NetworkError, NodeNetwork, Overlay, TaskAddress,
    TaskLink, Wiring,
};

/// Namespaces pinned in a directory that goes with them.
struct Net {
    dir: tempfile::TempDir,
    node: Namespace,
}

impl Net {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests of the network make namespaces: run them as root");
        let dir = tempfile::tempdir().unwrap();
        let node = Namespace::create(&dir.path().join("node")).unwrap();
        Self { dir, node }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `work` as a daemon inside the node would.
    fn daemon<T: Send>(&self, work: impl AsyncFnOnce(KernelNetwork) -> T + Send) -> T {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(KernelNetwork::new().unwrap()).await })
        };
        self.node.run(run).unwrap()
    }

    fn attach(&self, wanted: &Attachment) -> TaskLink {
        self.daemon(async |network| network.attach(wanted).await).unwrap()
    }

    fn facts(&self) -> Facts {
        self.daemon(async |network| network.facts().await).unwrap()
    }

    fn ip(&self, words: &str) -> Value {
        ip(&self.node, words)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for path in Namespace::list(self.dir.path()).unwrap() {
            Namespace::delete(&path).unwrap();
        }
    }
}

/// What `ip -j` says inside a namespace.
fn ip(inside: &Namespace, words: &str) -> Value {
    let mut command = std::process::Command::new("ip");
    command.arg("-j").args(words.split_whitespace());
    inside.enter_on_exec(&mut command).unwrap();
    let output = command.output().expect("ip runs");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() }
}

/// The addresses that `ip` shows for a selection.
fn addresses(inside: &Namespace, selection: &str) -> Vec<Value> {
    let shown = ip(inside, &format!("addr show {selection}"));
    let links = shown.as_array().cloned().unwrap_or_default();
    // Links without such an address are shown as empty objects.
    links
        .iter()
        .filter_map(|link| link["addr_info"].as_array())
        .flatten()
        .filter(|i| i["local"].is_string())
        .cloned()
        .collect()
}

fn sysctl(inside: &Namespace, name: &str) -> String {
    inside.run(|| std::fs::read_to_string(format!("/proc/sys/{name}"))).unwrap().unwrap().trim().to_owned()
}

fn set_sysctl(inside: &Namespace, name: &str, value: &str) {
    inside.run(|| std::fs::write(format!("/proc/sys/{name}"), value)).unwrap().unwrap();
}

fn on(ip: [u8; 4], subnet: &str) -> TaskAddress {
    let subnet: ipnet::Ipv4Net = subnet.parse().unwrap();
    let ipv6 = Prefix6::MESH.net(ipnet::Ipv4Net::new_assert(ip.into(), subnet.prefix_len()));
    TaskAddress { ip: ip.into(), subnet, ipv6, mtu: None }
}

/// By which address a namespace talks to somebody, and through whom.
fn way(inside: &Namespace, to: &str) -> (String, String) {
    let family = if to.contains(':') { "-6" } else { "-4" };
    let way = ip(inside, &format!("{family} route get {to}"));
    let text = |name: &str| way[0][name].as_str().unwrap_or_default().to_owned();
    (text("prefsrc"), text("gateway"))
}

/// A task's namespace and the link that it should have.
struct Task {
    namespace: Namespace,
    wanted: Attachment,
}

impl Task {
    fn new(net: &Net) -> Self {
        let netns = net.path("task");
        let namespace = Namespace::create(&netns).unwrap();
        let wanted =
            Attachment { task: TaskId::random(), netns, addresses: vec![on([10, 0, 0, 7], "10.0.0.0/24")], mtu: 1450 };
        Self { namespace, wanted }
    }

    fn ipv6(&self) -> IpAddr {
        mesh_ipv6(self.wanted.addresses[0].ip).into()
    }

    /// Addresses of `eth0` that are valid beyond the link, with their lengths.
    fn addresses(&self) -> Vec<String> {
        let infos = addresses(&self.namespace, "dev eth0 scope global");
        assert!(infos.iter().all(|i| i["tentative"].is_null() && i["dadfailed"].is_null()), "{infos:?}");
        let mut all: Vec<_> =
            infos.iter().map(|i| format!("{}/{}", i["local"].as_str().unwrap(), i["prefixlen"])).collect();
        all.sort();
        all
    }

    /// Both families: addresses, the way out, and who is there.
    fn check(&self) {
        assert_eq!(self.addresses(), ["10.0.0.7/32", "fd73:6b65:7000::a00:7/128"]);
        for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
            let route = ip(&self.namespace, &format!("{family} route show default"));
            assert_eq!((&route[0]["gateway"], &route[0]["dev"]), (&gateway.into(), &"eth0".into()), "{route}");
            assert_eq!(route.as_array().unwrap().len(), 1, "{route}");
            let neighbour = ip(&self.namespace, &format!("{family} neigh show to {gateway} dev eth0 nud permanent"));
            assert_eq!(neighbour[0]["lladdr"], HOST_MAC.to_string(), "{neighbour}");
        }
        let out = ip(&self.namespace, "-6 route get 2001:db8::1");
        assert_eq!(out[0]["prefsrc"], self.ipv6().to_string(), "{out}");
        for (name, value) in [("accept_ra", "0"), ("accept_dad", "0"), ("dad_transmits", "0"), ("disable_ipv6", "0")] {
            assert_eq!(sysctl(&self.namespace, &format!("net/ipv6/conf/eth0/{name}")), value, "{name}");
        }
    }
}

#[test]
fn a_task_has_addresses_of_both_families_at_once() {
    let net = Net::new();
    let task = Task::new(&net);
    let link = net.attach(&task.wanted);
    assert!(link.ipv6);
    task.check();
    // Not tentative: a server may be bound to it at once, and reach itself.
    let address = SocketAddr::new(task.ipv6(), 8080);
    task.namespace
        .run(|| {
            let _server = TcpListener::bind(address).unwrap();
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
        })
        .unwrap();
    // The node's side has its end of the cable only, and nothing of the mesh counts as the node's.
    let name = skep_network::host_link_name(&task.wanted.task);
    let own = addresses(&net.node, &format!("dev {name}"));
    assert_eq!(own.iter().map(|a| a["local"].as_str().unwrap()).collect::<Vec<_>>(), ["169.254.1.1"]);
    for family in ["ipv4", "ipv6"] {
        assert_eq!(sysctl(&net.node, &format!("net/{family}/conf/{name}/forwarding")), "1");
    }
    let facts = net.facts();
    let outside = |link: u32| facts.link_by_index(link).is_some_and(|link| !link.own);
    assert!(facts.addresses.iter().filter(|a| outside(a.link)).all(|a| a.ip.is_loopback()));
}

#[test]
fn a_task_talks_by_the_address_of_the_network_that_it_talks_to() {
    let net = Net::new();
    let mut task = Task::new(&net);
    task.wanted.addresses.push(on([10, 0, 1, 9], "10.0.1.0/24"));
    task.wanted.addresses.push(on([10, 8, 0, 3], "10.8.0.0/16"));
    let own = "2001:db8:9::a07:3/64".parse().unwrap();
    task.wanted.addresses.push(TaskAddress { ipv6: own, ..on([10, 7, 0, 3], "10.7.0.0/16") });
    net.attach(&task.wanted);
    assert_eq!(task.addresses().len(), 8, "{:?}", task.addresses());
    let expected = [
        ("192.0.2.1", "10.0.0.7"),
        ("10.0.0.200", "10.0.0.7"),
        ("10.0.1.200", "10.0.1.9"),
        ("10.8.200.1", "10.8.0.3"),
        ("2001:db8::1", "fd73:6b65:7000::a00:7"),
        ("fd73:6b65:7000::a00:c8", "fd73:6b65:7000::a00:7"),
        ("fd73:6b65:7000::a00:1c8", "fd73:6b65:7000::a00:109"),
        ("fd73:6b65:7000::a08:c801", "fd73:6b65:7000::a08:3"),
        ("2001:db8:9::a07:c801", "2001:db8:9::a07:3"),
        ("2001:db8:9:0:1::1", "2001:db8:9::a07:3"),
        ("fd73:6b65:7000::a07:c801", "fd73:6b65:7000::a00:7"),
    ];
    for (to, by) in expected {
        let gateway = if to.contains(':') { "fe80::1" } else { "169.254.1.1" };
        assert_eq!(way(&task.namespace, to), (by.to_owned(), gateway.to_owned()), "{to}");
    }
    // What somebody breaks is repaired, and what is not wanted any more goes.
    ip(&task.namespace, "route del 10.0.1.0/24");
    ip(&task.namespace, "-6 route del fd73:6b65:7000::a08:0/112");
    net.attach(&task.wanted);
    expected.iter().for_each(|(to, by)| assert_eq!(way(&task.namespace, to).0, *by, "{to}"));
    task.wanted.addresses.truncate(1);
    net.attach(&task.wanted);
    task.check();
    assert_eq!(way(&task.namespace, "10.0.1.200").0, "10.0.0.7");
    assert_eq!(way(&task.namespace, "fd73:6b65:7000::a08:c801").0, "fd73:6b65:7000::a00:7");
    task.wanted.addresses.clear();
    let refused = net.daemon(async |network| network.attach(&task.wanted).await);
    assert!(matches!(refused, Err(NetworkError::NoTaskAddress(_))), "{refused:?}");
}

#[test]
fn a_task_link_is_repaired_and_one_that_is_right_is_left_alone() {
    let net = Net::new();
    let task = Task::new(&net);
    let link = net.attach(&task.wanted);
    ip(&task.namespace, "-6 addr flush dev eth0 scope global");
    ip(&task.namespace, "-6 addr add 2001:db8::7/64 dev eth0 nodad");
    ip(&task.namespace, "-6 neigh del fe80::1 dev eth0");
    set_sysctl(&task.namespace, "net/ipv6/conf/eth0/accept_ra", "1");
    ip(&task.namespace, "-6 route flush default");
    assert_eq!(net.attach(&task.wanted), link);
    task.check();
    // Neighbours behind a link are forgotten when its address is set again, and what is on its way to them waits or is lost.
    let namespace = &task.namespace;
    ip(namespace, "-6 neigh add fe80::99 lladdr 02:00:00:00:00:99 dev eth0");
    assert_eq!(net.attach(&task.wanted), link);
    assert_eq!(ip(namespace, "-6 neigh show to fe80::99 nud permanent").as_array().unwrap().len(), 1);
}

#[test]
fn a_link_of_an_earlier_daemon_gets_its_ipv6_address() {
    let net = Net::new();
    let task = Task::new(&net);
    // As they were made: IPv4 only, with the kernel's defaults for IPv6.
    let before = net.attach(&task.wanted);
    ip(&task.namespace, "-6 addr flush dev eth0 scope global");
    ip(&task.namespace, "-6 route flush default");
    ip(&task.namespace, "-6 neigh flush dev eth0 nud permanent");
    set_sysctl(&task.namespace, "net/ipv6/conf/eth0/accept_ra", "1");
    let after = net.attach(&task.wanted);
    assert_eq!(before, after);
    task.check();
}

#[test]
fn a_machine_that_has_ipv6_off_by_default_does_not_keep_tasks_from_it() {
    let net = Net::new();
    let task = Task::new(&net);
    set_sysctl(&task.namespace, "net/ipv6/conf/all/disable_ipv6", "1");
    set_sysctl(&task.namespace, "net/ipv6/conf/default/disable_ipv6", "1");
    assert!(net.attach(&task.wanted).ipv6);
    task.check();
}

#[test]
fn a_task_that_has_ipv6_off_keeps_it_off() {
    let net = Net::new();
    let task = Task::new(&net);
    assert!(net.attach(&task.wanted).ipv6);
    set_sysctl(&task.namespace, "net/ipv6/conf/all/disable_ipv6", "1");
    assert!(!net.attach(&task.wanted).ipv6);
    assert_eq!(task.addresses(), ["10.0.0.7/32"]);
    assert_eq!(sysctl(&task.namespace, "net/ipv6/conf/eth0/disable_ipv6"), "1");
}

#[test]
fn an_mtu_below_what_ipv6_needs_leaves_ipv4() {
    let net = Net::new();
    let mut task = Task::new(&net);
    task.wanted.mtu = 1230;
    assert!(!net.attach(&task.wanted).ipv6);
    assert_eq!(task.addresses(), ["10.0.0.7/32"]);
    task.wanted.mtu = 1450;
    assert!(net.attach(&task.wanted).ipv6);
    task.check();
}

fn strings<T: ToString>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|x| x.to_string()).collect()
}

#[test]
fn a_node_knows_its_addresses_and_routes_of_both_families() {
    let net = Net::new();
    let other = Namespace::create(&net.path("other")).unwrap();
    net.daemon(async |_| {
        let wiring = Wiring::inside(&net.node).unwrap();
        wiring.add_bridge("br0").await.unwrap();
        wiring.add_cable("port0", "br0", &other, "eth0").await.unwrap();
        wiring.add_address("br0", [10, 77, 0, 2].into(), 24).await.unwrap();
        wiring.add_address("br0", "fd00:77::2".parse().unwrap(), 64).await.unwrap();
    });
    net.ip("-6 addr add 2001:db8:7::2/64 dev br0 nodad preferred_lft 0");
    net.ip("-6 route add 2001:db8:8::/48 via fd00:77::1");
    net.ip("-6 route add default via fd00:77::1");
    let facts = net.facts();
    let global = facts.addresses.iter().filter(|a| !a.ip.is_loopback());
    assert!(global.clone().all(|a| a.global));
    assert_eq!(strings(global.clone().map(|a| a.ip)), ["10.77.0.2", "2001:db8:7::2", "fd00:77::2"]);
    assert_eq!(global.map(|a| a.lasting).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(
        strings(facts.routes.clone()),
        ["10.77.0.0/24", "::/0", "2001:db8:7::/64", "2001:db8:8::/48", "fd00:77::/64"]
    );
    assert_eq!(facts.interface_addr("br0").unwrap(), IpAddr::from([10, 77, 0, 2]));
    assert_eq!(facts.mtu_of("fd00:77::2".parse().unwrap()).unwrap(), 1500);
    // Link-local ones are there and left out.
    assert_eq!(addresses(&net.node, "dev br0 scope link").len(), 1);
    assert!(facts.is_enslaved(facts.link("port0").unwrap()));
    assert!(!facts.is_enslaved(facts.link("br0").unwrap()));
}

#[test]
fn an_address_that_another_machine_has_is_not_the_nodes() {
    let net = Net::new();
    net.daemon(async |_| {
        let wiring = Wiring::inside(&net.node).unwrap();
        let other = Namespace::create(&net.path("other")).unwrap();
        wiring.add_bridge("br0").await.unwrap();
        wiring.add_cable("port0", "br0", &other, "eth0").await.unwrap();
        wiring.add_address("br0", "fd00:77::3".parse().unwrap(), 64).await.unwrap();
        Wiring::inside(&other).unwrap().add_address("eth0", "fd00:77::2".parse().unwrap(), 64).await.unwrap();
    });
    let double: IpAddr = "fd00:77::2".parse().unwrap();
    net.ip("-6 addr add fd00:77::2/64 dev br0");
    let failed = || !addresses(&net.node, "dev br0 dadfailed").is_empty();
    eventually("the kernel to find the other one", failed);
    let facts = net.facts();
    assert!(!facts.has_address(double) && facts.has_address("fd00:77::3".parse().unwrap()));
}

/// Waits until something holds that the kernel brings about by itself.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ipv6_addresses_and_routes_that_come_and_go_are_told() {
    let net = Net::new();
    net.daemon(async |network| {
        let wiring = Wiring::inside(&net.node).unwrap();
        wiring.add_bridge("br0").await.unwrap();
        wiring.add_address("br0", "fd00:77::2".parse().unwrap(), 64).await.unwrap();
        let mut changes = network.watch().unwrap();
        for words in ["-6 addr add fd00:77::3/128 dev br0 nodad", "-6 addr del fd00:77::3/128 dev br0"] {
            net.ip(words);
            let told = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
            told.unwrap_or_else(|_| panic!("nothing was told of {words}")).unwrap();
        }
    });
}

#[test]
fn policies_of_ipsec_for_what_leaves_or_arrives_are_known_and_told() {
    let net = Net::new();
    assert!(!net.facts().ipsec);
    net.daemon(async |network| {
        let mut changes = network.watch().unwrap();
        let policy = "src 10.77.0.2 dst 10.77.0.3 proto udp dport 4789";
        for (words, there) in [
            (format!("xfrm policy add dir fwd {policy} tmpl proto esp mode transport"), false),
            (format!("xfrm policy add dir out {policy} tmpl proto esp mode transport"), true),
            (format!("xfrm policy del dir out {policy}"), false),
            (format!("xfrm policy add dir in {policy} tmpl proto esp mode transport"), true),
            (format!("xfrm policy del dir in {policy}"), false),
        ] {
            net.ip(&words);
            let told = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
            told.unwrap_or_else(|_| panic!("nothing was told of {words}")).unwrap();
            assert_eq!(network.facts().await.unwrap().ipsec, there, "after {words}");
        }
    });
}

#[test]
fn the_overlay_device_takes_packets_by_both_families() {
    let net = Net::new();
    let address: IpAddr = "fd00:77::2".parse().unwrap();
    let overlay = Overlay::over(address, 1500);
    let made = net.daemon(async |network| network.ensure_overlay(&overlay).await).unwrap();
    assert_eq!(made.mtu, 1430);
    let again = net.daemon(async |network| network.ensure_overlay(&overlay).await).unwrap();
    assert_eq!(made, again);
    let open = Listeners::open(net.node.path()).unwrap().all().unwrap();
    let open: Vec<IpAddr> =
        open.iter().filter(|l| (l.protocol, l.port) == (Protocol::Udp, 4789)).map(|l| l.address).collect();
    assert_eq!(open, [IpAddr::from([0, 0, 0, 0]), Ipv6Addr::UNSPECIFIED.into()]);
    // The way to an IPv4 node is shorter.
    let over_ipv4 = Overlay::over([10, 77, 0, 2].into(), 1500);
    assert_eq!(net.daemon(async |network| network.ensure_overlay(&over_ipv4).await).unwrap().mtu, 1450);
}

/// A server inside the namespace at `netns` for as long as the result lives.
fn tcp(netns: &Path, address: &str) -> TcpListener {
    Namespace::open(netns).unwrap().run(|| TcpListener::bind(address)).unwrap().unwrap()
}

#[test]
fn a_port_that_is_open_by_either_family_is_open() {
    let net = Net::new();
    let task = Task::new(&net);
    net.attach(&task.wanted);
    let netns = &task.wanted.netns;
    let mut listeners = Listeners::open(netns).unwrap();
    let _open = [
        tcp(netns, "0.0.0.0:1"),
        tcp(netns, "10.0.0.7:2"),
        tcp(netns, "[::]:3"),
        tcp(netns, &SocketAddr::new(task.ipv6(), 4).to_string()),
    ];
    let _own = [tcp(netns, "127.0.0.1:5"), tcp(netns, "[::1]:6")];
    let link_local = || addresses(&task.namespace, "dev eth0 scope link -tentative");
    eventually("the link's own address", || !link_local().is_empty());
    let link_local: Ipv6Addr = link_local()[0]["local"].as_str().unwrap().parse().unwrap();
    let bind = || -> io::Result<UdpSocket> {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        UdpSocket::bind(std::net::SocketAddrV6::new(link_local, 7, 0, index))
    };
    let _link = task.namespace.run(bind).unwrap().unwrap();
    let open: Vec<u16> = listeners.ports().unwrap().into_iter().map(|(_, port)| port).collect();
    assert_eq!(open, [1, 2, 3, 4]);
    assert_eq!(listeners.all().unwrap().len(), 7);
}
