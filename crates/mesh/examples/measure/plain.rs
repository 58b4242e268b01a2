//! The paths without skep: machines of the same kind that carry a client's requests to a task in other ways.
//!
//! All tasks are on one node, *owner*; each way in is a node of its own, so that what one needs (connection tracking above all) costs no
//! other. Between the nodes there is VXLAN, as wherever tasks live on an overlay.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path as File;
use std::process::Stdio;

use crate::lab::{Lab, Netns, serve};
use crate::paths::{HTTP, PUBLISHED, PUBLISHED_DATAGRAMS, Path, Sees, Server};
use crate::tools::Process;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const ROUTED: &str = "plain routing over VXLAN";
pub(crate) const HAPROXY: &str = "HAProxy";
pub(crate) const NGINX: &str = "nginx stream";
pub(crate) const NFTABLES: &str = "nftables";

/// What fits into VXLAN on an underlay of 1500 bytes.
const MTU: u16 = 1450;

/// The paths, and what has to live as long as they do.
#[derive(Default)]
pub(crate) struct Plain {
    pub(crate) paths: Vec<Path>,
    namespaces: Vec<Netns>,
    proxies: Vec<Process>,
}

impl Plain {
    /// Makes them on the lab's bridge. Configuration files go to `dir`.
    pub(crate) fn new(lab: &Lab, dir: &File) -> Self {
        let owner = node(lab, OWNER);
        let mut plain = Self::default();
        plain.direct(lab, &owner);
        plain.routed(lab, &owner);
        plain.proxied(lab, &owner, 62, HAPROXY, |via, task| haproxy(via, task, dir));
        plain.proxied(lab, &owner, 63, NGINX, |via, task| nginx(via, task, dir));
        plain.translated(lab, &owner);
        plain.namespaces.push(owner);
        for path in &plain.paths {
            path.check(if [DIRECT, ROUTED].contains(&path.name) { Sees::Client } else { Sees::Another });
        }
        plain
    }

    fn direct(&mut self, lab: &Lab, owner: &Netns) {
        let client = client(lab, 120);
        let (task, addr) = routed_task(owner, OWNER);
        client.ip(&format!("route add {addr} via {}", underlay(OWNER)));
        self.paths.push(Path::direct(DIRECT, client, Server::start(&task, addr)));
        self.namespaces.push(task);
    }

    fn routed(&mut self, lab: &Lab, owner: &Netns) {
        let client = client(lab, 121);
        let (task, addr) = routed_task(owner, 61);
        let via = tunnelled(lab, 61, owner);
        client.ip(&format!("route add {addr} via {}", underlay(61)));
        via.ip(&format!("route add {addr} via 10.3.61.2"));
        owner.ip(&format!("route add {} via 10.3.61.1", underlay(121)));
        self.paths.push(Path::direct(ROUTED, client, Server::start(&task, addr)));
        self.namespaces.extend([via, task]);
    }

    fn proxied(
        &mut self,
        lab: &Lab,
        owner: &Netns,
        n: u8,
        name: &'static str,
        start: impl Fn(&Netns, Ipv4Addr) -> Process,
    ) {
        let (task, addr) = routed_task(owner, n);
        let via = tunnelled(lab, n, owner);
        via.ip(&format!("route add {addr} via 10.3.{n}.2"));
        self.proxies.push(start(&via, addr));
        let path = Path::published(name, client(lab, n + 60), Server::start(&task, addr), underlay(n));
        let datagrams = path.datagrams.filter(|_| name != HAPROXY);
        self.paths.push(Path { datagrams, ..path });
        self.namespaces.extend([via, task]);
    }

    fn translated(&mut self, lab: &Lab, owner: &Netns) {
        let (via, task, addr) = bridged(lab, 64, owner);
        translate(&via, addr);
        self.paths.push(Path::published(NFTABLES, client(lab, 124), Server::start(&task, addr), underlay(64)));
        self.namespaces.extend([via, task]);
    }
}

/// The last byte of the underlay address of the node with the tasks; the others are ways in.
const OWNER: u8 = 60;

fn underlay(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, n)
}

/// A client on the bridge. One second's connections are more than the ports that a kernel gives out by itself: all of them may be used.
pub(crate) fn client(lab: &Lab, n: u8) -> Netns {
    let client = lab.another_client(n);
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    client
}

/// A machine on the bridge that forwards. It connects to others too, if it is a proxy.
pub(crate) fn node(lab: &Lab, n: u8) -> Netns {
    let node = client(lab, n);
    node.sysctl("net/ipv4/ip_forward", "1");
    for conf in ["all", "eth0"] {
        node.sysctl(&format!("net/ipv4/conf/{conf}/send_redirects"), "0");
    }
    node
}

/// A task behind a cable of its node, as skep makes them.
pub(crate) fn routed_task(owner: &Netns, n: u8) -> (Netns, Ipv4Addr) {
    let (task, addr, cable) = (Netns::new(&format!("pt{n}")), Ipv4Addr::new(10, 2, 0, n), format!("pt{n}"));
    owner.ip(&format!("link add {cable} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {}", task.name()));
    owner.ip(&format!("addr add 169.254.1.1/32 dev {cable}"));
    owner.ip(&format!("link set {cable} up"));
    owner.ip(&format!("route add {addr} dev {cable}"));
    task.ip(&format!("addr add {addr}/32 dev eth0"));
    task.ip("link set eth0 up");
    task.ip("route add 169.254.1.1 dev eth0 scope link");
    task.ip("route add default via 169.254.1.1");
    serve(&task, addr, HTTP);
    (task, addr)
}

/// A VXLAN device towards one other node, without checksums on the outside, as skep's.
pub(crate) fn vxlan(on: &Netns, name: &str, n: u8, remote: u8) {
    let remote = underlay(remote);
    on.ip(&format!("link add {name} mtu {MTU} type vxlan id {n} remote {remote} dstport 4789 nolearning noudpcsum"));
    on.ip(&format!("link set {name} up"));
}

/// A node with a tunnel to the owner: 10.3.n.1 here, 10.3.n.2 there.
fn tunnelled(lab: &Lab, n: u8, owner: &Netns) -> Netns {
    let via = node(lab, n);
    vxlan(&via, "vx", n, OWNER);
    vxlan(owner, &format!("vx{n}"), n, n);
    via.ip(&format!("addr add 10.3.{n}.1/30 dev vx"));
    owner.ip(&format!("addr add 10.3.{n}.2/30 dev vx{n}"));
    via
}

/// A node and a task on one bridged network, 10.4.0.0/24, that a tunnel holds together.
fn bridged(lab: &Lab, n: u8, owner: &Netns) -> (Netns, Netns, Ipv4Addr) {
    let via = node(lab, n);
    vxlan(&via, "vx", n, OWNER);
    vxlan(owner, &format!("vx{n}"), n, n);
    let task = Netns::new(&format!("pt{n}"));
    owner.ip(&format!("link add pt{n} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {}", task.name()));
    for (ns, ports) in [(&via, vec!["vx".to_owned()]), (owner, vec![format!("vx{n}"), format!("pt{n}")])] {
        ns.ip("link add overlay type bridge");
        ns.ip("link set overlay up");
        for port in ports {
            ns.ip(&format!("link set {port} master overlay up"));
        }
    }
    let addr = Ipv4Addr::new(10, 4, 0, 2);
    via.ip("addr add 10.4.0.1/24 dev overlay");
    task.ip(&format!("addr add {addr}/24 dev eth0"));
    task.ip("link set eth0 up");
    serve(&task, addr, HTTP);
    (via, task, addr)
}

fn translate(via: &Netns, task: Ipv4Addr) {
    let (from, to) = PUBLISHED_DATAGRAMS;
    let tcp = PUBLISHED.map(|(from, to)| format!("tcp dport {from} dnat to {task}:{to};"));
    let rules = format!(
        "table ip nat {{
            chain in {{ type nat hook prerouting priority dstnat; {} udp dport {from} dnat to {task}:{to}; }}
            chain out {{ type nat hook postrouting priority srcnat; oifname overlay masquerade; }}
        }}",
        tcp.join(" ")
    );
    let mut nft = via.command("nft -f -").stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused {rules}");
}

fn haproxy(on: &Netns, task: Ipv4Addr, dir: &File) -> Process {
    let mut config =
        "global\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
            .to_owned();
    for (from, to) in PUBLISHED {
        config.push_str(&format!("listen p{from}\n bind :{from}\n server task {task}:{to}\n"));
    }
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    Process::start(on.command(&format!("haproxy -db -q -f {}", file.display())))
}

fn nginx(on: &Netns, task: Ipv4Addr, dir: &File) -> Process {
    let (from, to) = PUBLISHED_DATAGRAMS;
    let tcp = PUBLISHED.map(|(from, to)| format!("server {{ listen {from} reuseport; proxy_pass {task}:{to}; }}\n"));
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
        worker_processes 2;
        daemon off;
        pid {dir}/nginx.pid;
        error_log {dir}/nginx.log;
        events {{ worker_connections 8192; }}
        stream {{
            {}
            server {{ listen {from} udp reuseport; proxy_responses 0; proxy_pass {task}:{to}; }}
        }}",
        tcp.concat(),
        dir = dir.display(),
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    Process::start(on.command(&format!("nginx -e {}/nginx.log -c {}", dir.display(), file.display())))
}
